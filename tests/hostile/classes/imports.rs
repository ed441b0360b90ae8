//! Classes 17 to 32: code from elsewhere.

use crate::case::{Case, program, refused};

pub(crate) const CASES: &[Case] = &[
    refused(
        17,
        &[
            "import('file://{outside}/module.js')",
            "import('file://{outside}/module' + '.js')",
            "import('file://{secret}', { with: { type: 'json' } })",
            "import('file://{secret}', { with: { type: 'text' } })",
            "import('file://{secret}', { with: { type: 'bytes' } })",
            "import('file:///usr/lib/x.wasm')",
            "import('{outside}/module.js')",
        ],
    ),
    program(17, "D", "import text from 'file://{outside}/module.js'; text"),
    refused(
        18,
        &[
            "import(\"data:text/javascript,import x from 'file://{secret}' with { type: 'text' }\")",
            "import(\"data:text/javascript,import x from 'file://{secret}' with { type: 'bytes' }\")",
            "import(\"data:text/javascript,import x from 'file://{secret}' with { type: 'json' }\")",
        ],
    ),
    program(18, "D", "import x from 'file://{secret}' with { type: 'json' }; x"),
    refused(19, &["import(\"data:text/javascript,export * from 'file://{outside}/module.js'\")"]),
    refused(20, &["import(\"data:text/javascript,import source x from 'file://{outside}/x.wasm'\")"]),
    refused(
        21,
        &[
            "import('https://' + 'esm.sh/x')",
            "import('https://' + 'jsr.io/@std/path/mod.ts')",
            "import('https://' + 'deno.land/std/version.ts')",
            "import('https://' + 'cdn.jsdelivr.net/npm/ms/index.js')",
            "import('https://' + 'gist.githubusercontent.com/x')",
        ],
    ),
    refused(
        22,
        &[
            "import(\"data:text/javascript,import 'https://esm.sh/x'\")",
            "import(\"data:text/javascript,export * from 'https://deno.land/x'\")",
        ],
    ),
    program(22, "D", "import x from 'https://esm.sh/x'; x"),
    refused(
        23,
        &[
            "import('npm:' + 'ms')",
            "import('jsr:' + '@std/path')",
            "import(\"data:text/javascript,import 'npm:ms'\")",
        ],
    ),
    program(23, "D", "import ms from 'npm:ms'; ms"),
    refused(
        24,
        &[
            "import('http://' + 'esm.sh/x')",
            "import('http://127.0.0.1:{tcp}/x.js')",
            "import('https://' + '127.0.0.1:{tcp}/x.js')",
            "import('https://' + 'user@esm.sh/x')",
            "import('https://' + 'esm.sh:8443/x')",
        ],
    ),
    program(
        25,
        "V",
        "const { default: a } = await import('data:text/javascript,export default 6');\n\
         const url = URL.createObjectURL(new Blob(['export default 7'], { type: 'text/javascript' }));\n\
         a * (await import(url)).default",
    )
    .gives("42"),
    refused(
        26,
        &[
            "worker('https://esm.sh/x.js')",
            "worker('file://{outside}/module.js')",
            "worker('http://127.0.0.1:{tcp}/x.js')",
            "worker('data:text/javascript,' + encodeURIComponent(\"import 'npm:ms'; postMessage(1)\"))",
        ],
    ),
    program(
        27,
        "I",
        "/** @jsxImportSource https://esm.sh/preact */\n/// <reference path=\"file://{secret}\" />\n/// <reference types=\"npm:x\" />\n\
         // @deno-types=\"https://esm.sh/x.d.ts\"\nimport type { X } from 'file://{secret}';\nlet x: X | number = 1; x",
    ),
    program(
        28,
        "VD",
        "const own = await import('file://{harness}'); if (Object.keys(own).length) throw new Error('BREACH'); 1",
    ),
    program(29, "V", "[import.meta.resolve('./x'), import.meta.resolve('npm:x')].length").gives("2"),
    program(
        30,
        "I",
        "const f = new Function('throw new Error(\"x\")\\n//# sourceURL=file://{secret}\\n//# sourceMappingURL=file://{secret}');\n\
         await import('data:text/javascript,throw new Error(1)//# sourceMappingURL=file://{secret}').catch((e) => e.stack);\ntry { f() } catch (e) { e.stack.length > 0 }",
    ),
    refused(
        31,
        &[
            "import('ext:' + 'core/mod.js')",
            "import('node:' + 'internal/errors')",
            "import('checkin:' + 'x')",
        ],
    ),
    program(
        31,
        "DI",
        "const fs = process.binding('fs'); try { fs.open('{secret}', 0, 0); throw new Error('BREACH') } catch (e) { if (/BREACH/.test(e)) throw e } 1",
    ),
    refused(32, &["import('bait')", "import('ba' + 'it')", "Deno.openKv('{ws}/kv')"]).with("allow-read={ws}"),
];
