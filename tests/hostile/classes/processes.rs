//! Classes 54 to 68: other processes, and descriptors of its own.

use super::files::adopt;
use crate::case::{Case, program, refused};

/// Native calls, as code makes them that was granted `ffi` or has broken out of V8.
macro_rules! native {
    ($then:expr) => {
        concat!(
            "const { symbols: c } = Deno.dlopen('libc.so.6', { ptrace: { parameters: ['i64', 'i32', 'usize', 'usize'], result: 'i64' },\n",
            "  process_vm_readv: { parameters: ['i32', 'buffer', 'u64', 'buffer', 'u64', 'u64'], result: 'i64' },\n",
            "  open: { parameters: ['buffer', 'i32'], result: 'i32' }, kill: { parameters: ['i32', 'i32'], result: 'i32' },\n",
            "  fork: { parameters: [], result: 'i32' }, getppid: { parameters: [], result: 'i32' } });\n",
            "const path = (text) => new TextEncoder().encode(text + '\\0'); const vector = new BigUint64Array([0n, 8n]);\n",
            $then
        )
    };
}

pub(crate) const CASES: &[Case] = &[
    refused(
        54,
        &[
            "new Deno.Command('/bin/true').outputSync()",
            "new Deno.Command('/bin/true').spawn()",
            "import('node:child_process').then((processes) => must(processes.spawnSync('/bin/true').status === 0))",
            "import('node:child_process').then((processes) => processes.execSync('true'))",
            "import('node:child_process').then((processes) => emits(processes.fork('{ws}/bait.js'), 'spawn'))",
            "import('node:cluster').then(({ default: cluster }) => emits(cluster.fork(), 'online'))",
        ],
    ).bare("DF"),
    refused(55, &["new Deno.Command(Deno.execPath(), { args: ['eval', '1'] }).outputSync()", "new Deno.Command('/proc/self/exe', { args: ['run', '-A', '{ws}/bait.js'] }).outputSync()"]),
    refused(
        56,
        &["Deno.kill({pid}, 'SIGTERM')", "Deno.kill(1, 'SIGTERM')", "Deno.kill(0, 'SIGTERM')", "Deno.kill(-1, 'SIGTERM')", "process.kill({pid}, 'SIGTERM')", "process.kill({pid}, 0)"],
    ),
    refused(57, &["(() => { for (let n = 0; n < 40; n++) new Deno.Command('/bin/sleep', { args: ['987'] }).spawn() })()"]),
    // Granted programs are in the worker's process group, and end with it.
    program(
        57,
        "V",
        "const script = 'export PATH=/usr/bin:/bin; n=0; while [ $n -lt 40 ]; do sleep 987 & n=$((n+1)); done; sleep 0.05; [ -d /proc/$! ]';\n\
         new Deno.Command('/bin/sh', { args: ['-c', script], stdin: 'null', stdout: 'null', stderr: 'null' }).outputSync().code",
    )
    .gives("0")
    .with("allow-run=/bin/sh"),
    refused(58, &["new Deno.Command('/usr/bin/setsid', { args: ['-f', 'sleep', '987'] }).outputSync()"]),
    // In sessions of their own and without a parent, granted programs end with their run all the same.
    program(
        58,
        "V",
        "const script = 'set -e; export PATH=/usr/bin:/bin; setsid -f sleep 987; (setsid sh -c \"setsid -f sleep 987; sleep 987\" &); sleep 0.05';\n\
         new Deno.Command('/bin/sh', { args: ['-c', script], stdin: 'null', stdout: 'null', stderr: 'null' }).outputSync().code",
    )
    .gives("0")
    .with("allow-run=/bin/sh"),
    program(59, "F", "process.kill(process.pid, 'SIGKILL'); for (;;);"),
    program(60, "T", "process.kill(process.pid, 'SIGSTOP'); for (;;);"),
    program(61, "T", "for (const name of ['SIGTERM', 'SIGINT', 'SIGHUP']) Deno.addSignalListener(name as any, () => {}); for (;;);"),
    program(
        62,
        "V",
        native!("[Number(c.ptrace(16n, {pid}, 0n, 0n)), Number(c.process_vm_readv({pid}, vector, 1n, vector, 1n, 0n)), c.open(path('/proc/{pid}/mem'), 0),\n\
                 c.open(path('/proc/{pid}/environ'), 0)]"),
    )
    .gives("[-1,-1,-1,-1]")
    .with("allow-ffi"),
    // The rest of what native code does to others, the jail alone stops.
    program(62, "V", native!("if (c.kill({pid}, 0) >= 0) throw new Error('BREACH'); 1")).with("allow-ffi").bare("B"),
    program(62, "V", native!("const child = c.fork(); if (child > 0) throw new Error('BREACH'); 1")).with("allow-ffi").bare("BF"),
    // Node's API closes no descriptor that it has not opened.
    program(63, "V", "import fs from 'node:fs'; for (let fd = 0; fd <= 40; fd++) try { fs.closeSync(fd) } catch {}\n1").gives("1"),
    program(63, "V", "Deno.stdout.close(); Deno.stderr.close(); Deno.stdin.close(); 1").gives("1"),
    program(63, "F", "const { Pipe, constants } = process.binding('pipe_wrap');\n\
                      for (let fd = 0; fd <= 40; fd++) try { const pipe = new Pipe(constants.SOCKET); pipe.open(fd); pipe.close(); } catch {}\n\
                      await new Promise((done) => setTimeout(done, 50)); 1"),
    program(
        64,
        "I",
        "import net from 'node:net';\n\
         for (let fd = 5; fd < 40; fd++) try { const socket = new net.Socket({ fd }); socket.on('error', () => {}); socket.write('x') } catch {}\n\
         await new Promise((done) => setTimeout(done, 50)); 1",
    ),
    program(
        65,
        "I",
        "import net from 'node:net';\n\
         for (let fd = 5; fd < 40; fd++) try { const server = net.createServer(() => { throw new Error('BREACH') }); server.on('error', () => {}); server.listen({ fd }) } catch {}\n\
         await new Promise((done) => setTimeout(done, 50)); 1",
    ),
    program(
        66,
        "F",
        adopt!("for (let fd = 0; fd < 40; fd++) if (fd !== 4) try { write(fd, '\\x00\\xff'.repeat(64)) } catch {}\nawait new Promise((done) => setTimeout(done, 50)); 1"),
    ),
    refused(
        67,
        &[
            "import('node:fs').then((fs) => fs.readSync(9, Buffer.alloc(1)))",
            "import('node:fs').then((fs) => fs.fstatSync(20))",
            "import('node:fs').then((fs) => fs.writeSync(12, 'x'))",
            "import('node:fs').then((fs) => fs.ftruncateSync(11))",
        ],
    ),
    program(68, "F", "const files = []; for (;;) files.push(Deno.openSync('{ws}/bait.js'));").with("allow-read={ws}"),
];
