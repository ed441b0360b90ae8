//! The packages that are allowed where nobody said which.

/// Allowed when the setting is absent: what code that works on data asks for most. All of them run without any
/// permission, none needs native code, and one major version of each is named, so that a release that breaks code never
/// comes by itself.
pub const DEFAULT_PACKAGES: &str = "
    npm:ajv@^8
    npm:axios@^1
    npm:chalk@^5
    npm:cheerio@^1
    npm:csv-parse@^6
    npm:date-fns@^4
    npm:dayjs@^1
    npm:diff@^8
    npm:fast-xml-parser@^5
    npm:handlebars@^4
    npm:ky@^1
    npm:lodash@^4
    npm:luxon@^3
    npm:marked@^17
    npm:mathjs@^15
    npm:nanoid@^5
    npm:papaparse@^5
    npm:ramda@^0.32
    npm:semver@^7
    npm:uuid@^13
    npm:validator@^13
    npm:yaml@^2
    npm:zod@^4
    jsr:@std/collections@^1
    jsr:@std/csv@^1
    jsr:@std/datetime@^0.225
    jsr:@std/encoding@^1
    jsr:@std/fs@^1
    jsr:@std/json@^1
    jsr:@std/path@^1
    jsr:@std/uuid@^1
    jsr:@std/yaml@^1
";
