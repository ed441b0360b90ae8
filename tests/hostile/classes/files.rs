//! Classes 1 to 16: files that were not granted, and what is kept of a run.

use crate::case::{Case, program, refused};

/// Opens a descriptor of the process past Deno's own table, and writes to it.
macro_rules! adopt {
    ($then:expr) => {
        concat!(
            "const { Pipe, constants } = process.binding('pipe_wrap'); const { WriteWrap } = process.binding('stream_wrap');\n",
            "const write = (fd, text) => { const pipe = new Pipe(constants.SOCKET); pipe.open(fd);\n",
            "  const request = new WriteWrap(); request.oncomplete = () => {}; pipe.writeLatin1String(request, text); };\n",
            $then
        )
    };
}
pub(super) use adopt;

pub(crate) const CASES: &[Case] = &[
    refused(
        1,
        &[
            "Deno.readFile('{secret}')",
            "Deno.readFileSync('/etc/passwd')",
            "Deno.readTextFile('{secret}')",
            "Deno.readTextFileSync(new URL('file://{secret}'))",
            "Deno.open('{secret}')",
            "Deno.openSync('{secret}', { read: true })",
            "fetch('file://{secret}')",
        ],
    ),
    refused(
        2,
        &[
            "Deno.stat('{secret}')",
            "Deno.lstatSync('{secret}')",
            "(async () => { for await (const _ of Deno.readDir('{outside}')) break })()",
            "Deno.realPath('{secret}')",
            "Deno.readLinkSync('/proc/self/exe')",
            "Deno.watchFs('{outside}').close()",
        ],
    ),
    refused(
        3,
        &[
            "Deno.writeTextFile('{ws}/new', 'x')",
            "Deno.writeFileSync('{secret}', new Uint8Array(1))",
            "Deno.mkdir('{ws}/new')",
            "Deno.makeTempFile()",
            "Deno.makeTempDirSync({ dir: '{ws}' })",
            "Deno.remove('{secret}')",
            "Deno.rename('{secret}', '{ws}/moved')",
            "Deno.link('{secret}', '{ws}/hard')",
            "Deno.symlink('{secret}', '{ws}/soft')",
            "Deno.chmod('{secret}', 0o777)",
            "Deno.utime('{secret}', 1, 1)",
            "Deno.truncate('{secret}')",
            "Deno.copyFile('{secret}', '{ws}/copy')",
            "Deno.create('{ws}/new')",
            "Deno.umask(0)",
        ],
    ),
    refused(
        4,
        &[
            "Deno.readTextFile('/proc/self/environ')",
            "Deno.readTextFile('/proc/self/maps')",
            "Deno.openSync('/proc/self/mem', { write: true })",
            "Deno.readTextFile('/proc/self/cmdline')",
            "Deno.readDirSync('/proc/self/fd').next()",
            "Deno.readTextFile('/proc/{pid}/environ')",
            "Deno.readTextFile('/proc/{pid}/cmdline')",
            "Deno.openSync('/proc/{pid}/mem')",
        ],
    ),
    refused(
        4,
        &[
            "Deno.readTextFile('/proc/self/environ')",
            "Deno.openSync('/proc/self/mem')",
            "Deno.readTextFile('/proc/{pid}/environ')",
            "Deno.openSync('/proc/{pid}/mem')",
            "Deno.openSync('/proc/{pid}/root/etc/passwd')",
        ],
    )
    .with("allow-read=/proc"),
    refused(
        5,
        &[
            "Deno.open('/dev/fd/3')",
            "Deno.open('/dev/fd/4', { write: true })",
            "Deno.open('/dev/stdin')",
            "Deno.open('/dev/stdout', { write: true })",
            "Deno.open('/proc/self/fd/0')",
        ],
    ),
    refused(6, &["Deno.readTextFile('{harness}')", "Deno.writeTextFile('{harness}', '')", "Deno.readDirSync('{cache}').next()"]),
    // Reading through the link is the attempt; what was read stays there.
    refused(7, &["Deno.readTextFile('{ws}/link.json')", "import('node:fs').then((fs) => fs.readFileSync('{ws}/link.json'))"])
        .with("allow-read={ws}")
        .bare("B"),
    refused(
        8,
        &[
            "Deno.readTextFile('{ws}/../outside/secret.json')",
            "Deno.readTextFile(new URL('file://{ws}/%2e%2e/outside/secret.json'))",
            "Deno.readTextFile(new URL('file://{ws}/x/../../outside/secret.json'))",
            "Deno.readTextFile('/proc/self/root{secret}')",
            "Deno.readTextFile('{ws}x')",
        ],
    )
    .with("allow-read={ws}"),
    refused(
        9,
        &[
            "import('node:fs').then((fs) => fs.readFileSync('{secret}'))",
            "import('node:fs/promises').then((fs) => fs.readFile('{secret}'))",
            "import('node:fs').then((fs) => emits(fs.createReadStream('{secret}'), 'data'))",
            "import('node:module').then((module) => module.createRequire('file:///x.js')('{secret}'))",
            "import('node:fs').then((fs) => fs.statfsSync('/'))",
            "process.loadEnvFile('{secret}')",
        ],
    ),
    refused(
        10,
        &[
            "import('node:sqlite').then(({ DatabaseSync }) => new DatabaseSync('{ws}/new.db'))",
            "import('node:sqlite').then(({ DatabaseSync }) => new DatabaseSync(':memory:').exec(\"ATTACH '{ws}/new.db' AS x; CREATE TABLE x.t (a)\"))",
            "import('node:sqlite').then(({ DatabaseSync }) => new DatabaseSync(':memory:').exec(\"VACUUM INTO '{ws}/new.db'\"))",
            "import('node:sqlite').then(({ DatabaseSync }) => new DatabaseSync(':memory:', { allowExtension: true }).loadExtension('{secret}'))",
        ],
    ),
    program(
        11,
        "DI",
        "const v8 = await import('node:v8');\n\
         for (const write of [() => v8.writeHeapSnapshot('{ws}/heap'), () => process.report.writeReport('{ws}/report')]) try { write() } catch {}\n1",
    ),
    refused(12, &["import('node:wasi').then(({ WASI }) => new WASI({ version: 'preview1', preopens: { '/': '/' } }))"]),
    program(12, "I", "const { WASI } = await import('node:wasi'); new WASI({ version: 'preview1', stdin: 9, stdout: 9, stderr: 9 }); 1"),
    // The descriptors that Deno keeps for itself cannot be written to; its own result channel can, which spoils its result.
    program(
        13,
        "F",
        adopt!("for (let fd = 5; fd < 40; fd++) try { write(fd, 'overwritten '.repeat(9)) } catch {}\nawait new Promise((done) => setTimeout(done, 50)); 1"),
    ),
    refused(14, &["localStorage.setItem('left', 'behind')", "globalThis.localStorage.length"]),
    program(14, "V", "sessionStorage.setItem('left', 'behind'); sessionStorage.length").gives("1"),
    refused(
        15,
        &[
            "caches.open('left').then((cache) => cache.put('http://x/', new Response('behind')))",
            "caches.has('left')",
        ],
    ),
    program(15, "DF", "const cache = await caches.open('flood'); for (let n = 0;; n++) await cache.put(`http://x/${n}`, new Response(new Uint8Array(1 << 20)));"),
    program(
        16,
        "F",
        "const file = Deno.openSync('{ws}/large', { write: true, create: true });\n\
         for (let size = 2 ** 30;; size *= 2) { file.truncateSync(size); if (size > 2 ** 40) throw new Error('BREACH'); }",
    )
    .with("allow-write={ws}"),
];
