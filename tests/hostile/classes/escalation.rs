//! Classes 33 to 45: more rights than were granted.

use crate::case::{Case, program, refused};

pub(crate) const CASES: &[Case] = &[
    refused(
        33,
        &[
            "Deno.permissions.request({ name: 'read' }).then((status) => must(status.state === 'granted'))",
            "must(Deno.permissions.requestSync({ name: 'run' }).state === 'granted')",
            "must(Deno.permissions.requestSync({ name: 'net', host: '127.0.0.1:{tcp}' }).state === 'granted')",
            "must(Deno.permissions.revokeSync({ name: 'write' }).state === 'granted')",
            "must(Deno.permissions.querySync({ name: 'ffi' }).state === 'granted')",
        ],
    ),
    program(34, "I", "[prompt('x'), confirm('y'), alert('z') ?? null]"),
    refused(
        35,
        &[
            "worker('data:text/javascript,' + encodeURIComponent(\"try { Deno.readTextFileSync('{secret}'); postMessage({}) } catch (e) { postMessage({ error: e.name }) }\"))",
        ],
    ),
    program(
        36,
        "F",
        "new Worker('data:text/javascript,postMessage(Deno.readTextFileSync(\"{secret}\"))', { type: 'module', deno: { permissions: 'inherit' } } as any);\n\
         await new Promise((done) => setTimeout(done, 2000)); 'BREACH'",
    ),
    refused(
        37,
        &[
            "import('node:worker_threads').then(({ Worker }) => emits(new Worker(\"require('node:worker_threads').parentPort.postMessage(require('node:fs').readFileSync('{secret}', 'utf8'))\", { eval: true }), 'message'))",
        ],
    ),
    refused(
        38,
        &[
            "import('node:vm').then((vm) => vm.runInThisContext('Deno').readTextFileSync('{secret}'))",
            "import('node:vm').then((vm) => vm.runInNewContext('f.constructor(\"return Deno\")()', { f() {} }).readTextFileSync('{secret}'))",
            "new Function('return Deno')().readTextFileSync('{secret}')",
            "(0, eval)('Deno').readTextFileSync('{secret}')",
        ],
    ),
    program(
        39,
        "DI",
        "for (const name of ['tcp_wrap', 'udp_wrap', 'pipe_wrap', 'cares_wrap', 'fs', 'spawn_sync', 'process_wrap', 'tty_wrap', 'uv', 'contextify']) {\n\
           let binding; try { binding = process.binding(name) } catch { continue }\n\
           const calls = { tcp_wrap: () => { const { TCP, TCPConnectWrap } = binding; new TCP(0).connect(new TCPConnectWrap(), '127.0.0.1', {tcp}) },\n\
             udp_wrap: () => { const { UDP } = binding; new UDP().bind('127.0.0.1', 0, 0) },\n\
             pipe_wrap: () => { const { Pipe, PipeConnectWrap } = binding; new Pipe(0).connect(new PipeConnectWrap(), '{listener}') } };\n\
           try { calls[name]?.() } catch {}\n\
         }\nawait new Promise((done) => setTimeout(done, 100)); 1",
    ),
    refused(
        40,
        &[
            "process.dlopen({ exports: {} }, '/usr/lib/x86_64-linux-gnu/libc.so.6')",
            "Deno.dlopen('libc.so.6', {})",
            "Deno.UnsafePointer.of(new Uint8Array(8))",
            "Deno.UnsafePointer.create(4096n)",
            "new Deno.UnsafeCallback({ parameters: [], result: 'void' }, () => {})",
        ],
    ),
    program(
        41,
        "I",
        "const v8 = await import('node:v8');\n\
         for (const flag of ['--allow-natives-syntax', '--max-old-space-size=8000', '--no-wasm-bounds-checks', '--expose-gc', '--sandbox-testing'])\n\
           try { v8.setFlagsFromString(flag) } catch {}\n\
         try { new Function('return %DebugPrint(1)')(); throw new Error('BREACH') } catch (e) { if (/BREACH/.test(e)) throw e } 1",
    ),
    program(
        42,
        "I",
        "const internal = Deno[Deno.internal]; const ops = internal?.core?.ops ?? {};\n\
         for (const name of ['op_fs_open_sync', 'op_fs_read_file_sync', 'op_fs_read_file_text_sync', 'op_fs_stat_sync', 'op_net_connect_tcp', 'op_spawn_sync'])\n\
           try { if (JSON.stringify(ops[name]?.('{secret}', false, false, false))?.includes('canary')) throw new Error('BREACH') } catch (e) { if (/BREACH/.test(e)) throw e }\n1",
    ),
    refused(43, &["import('node:inspector').then((inspector) => inspector.open({tcp}, '127.0.0.1'))"]),
    refused(44, &["Promise.resolve(globalThis.navigator?.gpu?.requestAdapter()).then(must)"]),
    program(
        44,
        "I",
        "const adapter = await navigator.gpu?.requestAdapter(); const device = await adapter?.requestDevice();\n\
         for (let n = 0; device && n < 6; n++) device.createBuffer({ size: 1 << 28, usage: 8 }); device ? 'BREACH' : 1",
    ),
    program(45, "IF", "await Deno.openKv('{ws}/kv')"),
    program(45, "IF", "Deno.cron('x', '* * * * *', () => {})"),
    program(45, "IF", "await Deno.bundle({ entrypoints: ['{secret}'] })"),
    program(45, "IF", "await Deno.connectQuic({ hostname: '127.0.0.1', port: {udp}, alpnProtocols: ['x'] })"),
    program(45, "IF", "new WebSocketStream('ws://127.0.0.1:{tcp}')"),
];
