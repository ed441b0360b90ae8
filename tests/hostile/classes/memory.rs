//! Classes 81 to 92: more memory than there is.
//!
//! What fills memory ends at the limit on what is used, what only reserves it at the kernel's limit on that.

use crate::case::{Case, program};

pub(crate) const CASES: &[Case] = &[
    program(81, "M", "const all = []; for (;;) all.push(new Array(1000).fill({}))"),
    program(81, "M", "const all = new Map(); for (let n = 0;; n++) all.set(n, `text ${n}`.repeat(9))"),
    program(
        81,
        "M",
        "let text = 'x'; const all = []; for (let n = 0;; n++) { all.push((text + n).repeat(1 << 16).split('').join('-')) }",
    ),
    program(82, "M", "const all = []; for (;;) all.push(new Uint8Array(1 << 26))"),
    program(82, "M", "const all = []; for (;;) { all.push(new SharedArrayBuffer(1 << 26)) }"),
    program(
        82,
        "M",
        "const all = []; for (;;) { const part = new ArrayBuffer(1, { maxByteLength: 1 << 28 }); part.resize(1 << 28); all.push(part) }",
    ),
    program(83, "M", "const all = []; for (;;) { all.push(new WebAssembly.Memory({ initial: 4096 })) }"),
    program(
        84,
        "M",
        "const all = []; const part = new Uint8Array(1 << 26); for (;;) all.push(new Blob([part]))",
    ),
    program(
        85,
        "M",
        "const code = 'const all = []; for (let n = 0; n < 4e5; n++) all.push({ n }); postMessage(all.length)';\n\
         const url = URL.createObjectURL(new Blob([code], { type: 'text/javascript' })); const all = [];\n\
         for (let n = 0; n < 64; n++) { const worker = new Worker(url, { type: 'module' }); await new Promise((done) => worker.onmessage = done); all.push(worker) }\n'BREACH'",
    ),
    program(
        86,
        "M",
        "const url = URL.createObjectURL(new Blob(['onmessage = () => {}; postMessage(1)'], { type: 'text/javascript' }));\n\
         const all = []; for (let n = 0; n < 500; n++) all.push(new Worker(url, { type: 'module' }));\n\
         await Promise.all(all.map((worker) => new Promise((done) => worker.onmessage = done))); 'BREACH'",
    ),
    program(
        87,
        "M",
        "import zlib from 'node:zlib'; const part = zlib.gzipSync(Buffer.alloc(1 << 24));\n\
         const all = []; for (;;) all.push(zlib.gunzipSync(Buffer.concat(Array(4).fill(part))))",
    ),
    program(
        88,
        "M",
        "const large = new Uint8Array(1 << 26); const all = []; for (;;) all.push(structuredClone(large))",
    ),
    program(
        89,
        "VM",
        "const all = []; for (let n = 0; n < 100; n++) all.push(new ArrayBuffer(1 << 30)); all.length",
    ),
    program(90, "F", "const deeper = (n) => deeper(n + 1) + 1; deeper(0)"),
    program(90, "F", "new Function('['.repeat(5e6))"),
    program(
        91,
        "TM",
        "const [one] = new ReadableStream({ pull(to) { to.enqueue(new Uint8Array(1 << 16)) } }).tee(); for await (const _ of one);",
    ),
    program(92, "VM", "'x'.repeat(1 << 27).normalize('NFD').length > 0"),
];
