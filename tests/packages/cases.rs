//! The packages that are tried, and what of each.

/// A package, a call that shows that it works, and what comes of it.
#[derive(Debug)]
pub(crate) struct Case {
    /// As an administrator lists it.
    pub(crate) listed: &'static str,
    /// What code imports, if it is not the package's main file.
    pub(crate) subpath: &'static str,
    /// As between `import` and `from`.
    pub(crate) binding: &'static str,
    /// An expression of what was imported.
    pub(crate) call: &'static str,
    pub(crate) outcome: Outcome,
}

/// What comes of a call.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The value, as JSON.
    Value(&'static str),
    /// Nothing of the package can be used: a part of the refusal, and why in the document.
    Refused(&'static str, &'static str),
    /// It can be imported, and the call needs a permission: which, as Deno names it, a part of the error, and for what.
    Needs(&'static str, &'static str, &'static str),
}

use Outcome::{Needs, Refused, Value};

impl Case {
    /// The specifier that code writes: the listed one, without the version.
    pub(crate) fn specifier(&self) -> String {
        format!("npm:{}{}", self.name(), self.subpath)
    }

    /// `zod` of `npm:zod@^4`.
    pub(crate) fn name(&self) -> &str {
        self.split().0
    }

    /// `^4` of `npm:zod@^4`.
    pub(crate) fn range(&self) -> &str {
        self.split().1
    }

    fn split(&self) -> (&str, &str) {
        let listed = self.listed.strip_prefix("npm:").expect("all are of npm");
        listed.rsplit_once('@').expect("all have a range")
    }

    /// As a model writes it.
    pub(crate) fn code(&self) -> String {
        format!("import {} from '{}';\n{}", self.binding, self.specifier(), self.call)
    }

    /// The same with the time of the import: `[milliseconds, value]`.
    pub(crate) fn timed_code(&self) -> String {
        let binding = match self.binding.strip_prefix("* as ") {
            Some(name) => name.to_owned(),
            None if self.binding.starts_with('{') => self.binding.to_owned(),
            None => format!("{{ default: {} }}", self.binding),
        };
        format!(
            "const start = performance.now();\nconst {binding} = await import('{}');\n\
             const took = performance.now() - start;\n[took, {}]",
            self.specifier(),
            self.call
        )
    }
}

const fn case(listed: &'static str, binding: &'static str, call: &'static str, outcome: Outcome) -> Case {
    Case { listed, subpath: "", binding, call, outcome }
}

pub(crate) const CASES: &[Case] = &[
    case(
        "npm:ajv@^8",
        "{ Ajv }",
        "new Ajv().validate({ type: 'object', required: ['a'] }, { b: 1 })",
        Value("false"),
    ),
    case(
        "npm:axios@^1",
        "axios",
        "await (async () => {\n  const http = axios.create({ adapter: async (config) => ({ data: config.url, status: 200, headers: {}, config }) });\n  http.interceptors.request.use((config) => ({ ...config, url: axios.getUri(config) }));\n  return (await http.get('/a', { params: { q: 1 } })).data;\n})()",
        Value(r#""/a?q=1""#),
    ),
    case(
        "npm:bignumber.js@^9",
        "BigNumber",
        "new BigNumber('0.1').plus('0.2').toString()",
        Value(r#""0.3""#),
    ),
    case(
        "npm:chalk@^5",
        "{ Chalk }",
        "new Chalk({ level: 1 }).red('a')",
        Value(r#""\u001b[31ma\u001b[39m""#),
    ),
    case(
        "npm:cheerio@^1",
        "* as cheerio",
        "cheerio.load('<ul><li>a<li>b</ul>')('li').map((_, li) => li.children[0].data).get()",
        Value(r#"["a","b"]"#),
    ),
    Case {
        listed: "npm:csv-parse@^6",
        subpath: "/sync",
        binding: "{ parse }",
        call: "parse('a,b\\n1,\"2,3\"', { columns: true })",
        outcome: Value(r#"[{"a":"1","b":"2,3"}]"#),
    },
    Case {
        listed: "npm:csv-stringify@^6",
        subpath: "/sync",
        binding: "{ stringify }",
        call: "stringify([['a', 'b,c']])",
        outcome: Value(r#""a,\"b,c\"\n""#),
    },
    case(
        "npm:date-fns@^4",
        "{ addDays, formatISO9075 }",
        "formatISO9075(addDays(new Date(2024, 1, 28), 2), { representation: 'date' })",
        Value(r#""2024-03-01""#),
    ),
    case(
        "npm:dayjs@^1",
        "dayjs",
        "dayjs('2024-01-31').add(1, 'month').format('YYYY-MM-DD')",
        Value(r#""2024-02-29""#),
    ),
    case(
        "npm:decimal.js@^10",
        "{ Decimal }",
        "new Decimal(2).sqrt().toFixed(30)",
        Value(r#""1.414213562373095048800000000000""#),
    ),
    case(
        "npm:diff@^8",
        "{ diffWords }",
        "diffWords('a b', 'a c').filter((part) => part.added).map((part) => part.value)",
        Value(r#"["c"]"#),
    ),
    case(
        "npm:ejs@^3",
        "ejs",
        "ejs.render('<% for (const n of ns) { %><%= n %>;<% } %>', { ns: [1, 2] })",
        Value(r#""1;2;""#),
    ),
    case(
        "npm:fast-xml-parser@^5",
        "{ XMLParser }",
        "new XMLParser({ ignoreAttributes: false }).parse('<a b=\"1\"><c>2</c></a>')",
        Value(r#"{"a":{"c":2,"@_b":"1"}}"#),
    ),
    case(
        "npm:fflate@^0.8",
        "{ gunzipSync, gzipSync, strFromU8, strToU8 }",
        "strFromU8(gunzipSync(gzipSync(strToU8('text'))))",
        Value(r#""text""#),
    ),
    case(
        "npm:fuse.js@^7",
        "Fuse",
        "new Fuse(['apple', 'banana'], {}).search('banan')[0].item",
        Value(r#""banana""#),
    ),
    case(
        "npm:gray-matter@^4",
        "matter",
        "(({ data, content }) => ({ data, content }))(matter('---\\na: 1\\n---\\ntext'))",
        Value(r#"{"data":{"a":1},"content":"text"}"#),
    ),
    case(
        "npm:handlebars@^4",
        "Handlebars",
        "Handlebars.compile('{{#each ns}}{{this}};{{/each}}')({ ns: [1, 2] })",
        Value(r#""1;2;""#),
    ),
    case(
        "npm:iconv-lite@^0.7",
        "iconv",
        "iconv.decode(iconv.encode('Grüße', 'latin1'), 'latin1')",
        Value(r#""Grüße""#),
    ),
    case(
        "npm:immer@^10",
        "{ produce }",
        "produce({ a: [1] }, (draft) => { draft.a.push(2); })",
        Value(r#"{"a":[1,2]}"#),
    ),
    case(
        "npm:jmespath@^0.16",
        "jmespath",
        "jmespath.search({ a: [{ b: 1 }, { b: 2 }] }, 'a[?b > `1`].b')",
        Value("[2]"),
    ),
    case(
        "npm:joi@^18",
        "Joi",
        "Joi.object({ a: Joi.number() }).validate({ a: 'x' }).error.message",
        Value(r#""\"a\" must be a number""#),
    ),
    case(
        "npm:js-tiktoken@^1",
        "{ getEncoding }",
        "getEncoding('cl100k_base').encode('hello world')",
        Value("[15339,1917]"),
    ),
    case("npm:js-yaml@^4", "yaml", "yaml.load('a: [1, 2]')", Value(r#"{"a":[1,2]}"#)),
    case(
        "npm:jsdom@^26",
        "{ JSDOM }",
        "new JSDOM('<p>a<b>c</b></p>').window.document.querySelector('b').textContent",
        Value(r#""c""#),
    ),
    case(
        "npm:jszip@^3",
        "JSZip",
        "await (async () => {\n  const zip = new JSZip().file('a', 'text');\n  const read = await JSZip.loadAsync(await zip.generateAsync({ type: 'uint8array' }));\n  return read.file('a').async('string');\n})()",
        Value(r#""text""#),
    ),
    case(
        "npm:ky@^1",
        "ky",
        "await ky('http://a.example', { fetch: async () => new Response('{\"a\":1}') }).json()",
        Value(r#"{"a":1}"#),
    ),
    case(
        "npm:linkedom@^0.18",
        "{ parseHTML }",
        "parseHTML('<p class=a>b</p>').document.querySelector('.a').textContent",
        Value(r#""b""#),
    ),
    case(
        "npm:lodash@^4",
        "_",
        "_.groupBy([1, 2, 3], (n) => n % 2 ? 'odd' : 'even')",
        Value(r#"{"even":[2],"odd":[1,3]}"#),
    ),
    case("npm:lodash-es@^4", "{ chunk }", "chunk([1, 2, 3], 2)", Value("[[1,2],[3]]")),
    case(
        "npm:luxon@^3",
        "{ DateTime }",
        "DateTime.fromISO('2024-03-31T01:30', { zone: 'Europe/Berlin' }).plus({ hours: 1 }).toISO()",
        Value(r#""2024-03-31T03:30:00.000+02:00""#),
    ),
    case(
        "npm:marked@^17",
        "{ marked }",
        "marked.parse('# a **b**')",
        Value(r#""<h1>a <strong>b</strong></h1>\n""#),
    ),
    case("npm:mathjs@^15", "{ evaluate }", "evaluate('det([1, 2; 3, 4]) + sqrt(16)')", Value("2")),
    case("npm:mime-types@^3", "mime", "mime.lookup('a.json')", Value(r#""application/json""#)),
    case("npm:minimist@^1", "minimist", "minimist(['--a=1', 'b'])", Value(r#"{"_":["b"],"a":1}"#)),
    case(
        "npm:moment@^2",
        "moment",
        "moment.utc('2024-01-31').add(1, 'month').format('YYYY-MM-DD')",
        Value(r#""2024-02-29""#),
    ),
    case(
        "npm:mustache@^4",
        "Mustache",
        "Mustache.render('{{#ns}}{{.}};{{/ns}}', { ns: [1, 2] })",
        Value(r#""1;2;""#),
    ),
    case("npm:nanoid@^5", "{ nanoid }", "nanoid(10).length", Value("10")),
    case(
        "npm:p-limit@^7",
        "pLimit",
        "await Promise.all([1, 2].map((n) => pLimit(1)(async () => n)))",
        Value("[1,2]"),
    ),
    case(
        "npm:pako@^2",
        "pako",
        "pako.inflate(pako.deflate(new TextEncoder().encode('text')), { to: 'string' })",
        Value(r#""text""#),
    ),
    case(
        "npm:papaparse@^5",
        "Papa",
        "Papa.parse('a,b\\n1,2', { header: true, dynamicTyping: true }).data",
        Value(r#"[{"a":1,"b":2}]"#),
    ),
    case("npm:qs@^6", "qs", "qs.parse('a[b]=1&a[c][]=2')", Value(r#"{"a":{"b":"1","c":["2"]}}"#)),
    case("npm:ramda@^0.32", "* as R", "R.pipe(R.filter((n) => n > 1), R.sum)([1, 2, 3])", Value("5")),
    case(
        "npm:rxjs@^7",
        "{ from, lastValueFrom, map, toArray }",
        "await lastValueFrom(from([1, 2]).pipe(map((n) => n * 2), toArray()))",
        Value("[2,4]"),
    ),
    case(
        "npm:sanitize-html@^2",
        "sanitize",
        "sanitize('<b onclick=\"x()\">a</b><script>b</script>')",
        Value(r#""<b>a</b>""#),
    ),
    case(
        "npm:semver@^7",
        "semver",
        "semver.maxSatisfying(['1.2.0', '1.10.0', '2.0.0'], '^1')",
        Value(r#""1.10.0""#),
    ),
    case("npm:simple-statistics@^7", "{ median }", "median([3, 1, 2])", Value("2")),
    case(
        "npm:turndown@^7",
        "Turndown",
        "new Turndown().turndown('<h1>a</h1><b>c</b>')",
        Value(r#""a\n=\n\n**c**""#),
    ),
    case(
        "npm:uuid@^13",
        "{ v5, validate }",
        "[v5('a.example', v5.DNS), validate('x')]",
        Value(r#"["05149b90-bca9-5cf7-9708-f45959ecfde6",false]"#),
    ),
    case(
        "npm:valibot@^1",
        "* as v",
        "v.safeParse(v.object({ a: v.number() }), { a: 'x' }).success",
        Value("false"),
    ),
    case(
        "npm:validator@^13",
        "validator",
        "[validator.isEmail('a@b.example'), validator.isIBAN('DE00')]",
        Value("[true,false]"),
    ),
    case(
        "npm:xlsx@^0.18",
        "* as XLSX",
        "XLSX.utils.sheet_to_csv(XLSX.read(XLSX.write({ SheetNames: ['s'], Sheets: { s: XLSX.utils.aoa_to_sheet([['a'], [1]]) } }, { type: 'array' })).Sheets.s)",
        Value(r#""a\n1""#),
    ),
    case(
        "npm:yaml@^2",
        "{ parse, stringify }",
        "parse(stringify({ a: [1, { b: 'c' }] }))",
        Value(r#"{"a":[1,{"b":"c"}]}"#),
    ),
    case("npm:zod@^4", "{ z }", "z.object({ a: z.coerce.number() }).parse({ a: '1' })", Value(r#"{"a":1}"#)),
    case(
        "npm:better-sqlite3@^12",
        "Database",
        "new Database(':memory:')",
        Refused("needs native code", "native code; `node:sqlite` is built in"),
    ),
    case(
        "npm:bcrypt@^6",
        "bcrypt",
        "bcrypt.hashSync('a', 4)",
        Refused("needs native code", "native code; `scrypt` of `node:crypto` is built in"),
    ),
    case(
        "npm:sharp@^0.34",
        "sharp",
        "sharp({ create: { width: 1, height: 1, channels: 3, background: 'red' } })",
        Refused("needs native code", "native code"),
    ),
    case(
        "npm:execa@^9",
        "{ execa }",
        "await execa('/bin/ls')",
        Needs("run", "Requires run access", "the call starts a program"),
    ),
    case(
        "npm:express@^5",
        "express",
        "await new Promise((_, no) => express().listen(0).on('error', no))",
        Needs("net", "Requires net access", "the call listens on a port"),
    ),
    case(
        "npm:fs-extra@^11",
        "fs",
        "await fs.readdir('/etc')",
        Needs("read", "Requires read access", "the call reads a directory"),
    ),
    case(
        "npm:node-fetch@^3",
        "fetch",
        "await fetch('http://a.example')",
        Needs("net", "getaddrinfo EPERM", "the call opens a connection; `fetch` is built in"),
    ),
];
