//! Classes 69 to 80: no end.

use crate::case::{Case, program};

pub(crate) const CASES: &[Case] = &[
    program(69, "T", "for (;;);"),
    program(
        70,
        "TM",
        "const spin = () => { queueMicrotask(spin); queueMicrotask(spin) }; spin(); await new Promise(() => {})",
    ),
    program(71, "T", "const spin = () => process.nextTick(spin); spin(); await new Promise(() => {})"),
    program(
        72,
        "TM",
        "const storm = () => { for (let n = 0; n < 100; n++) setTimeout(storm, 0) }; storm(); await new Promise(() => {})",
    ),
    program(73, "F", "await new Promise(() => {})"),
    // Nothing can wake it any more, which the worker says at once instead of at the limit.
    program(74, "F", "await new Promise((done) => Deno.unrefTimer(setTimeout(done, 1e6)))"),
    program(75, "T", "Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)"),
    program(76, "T", "/^(a+)+$/.test('a'.repeat(50) + 'b')"),
    program(77, "T", "const large = 3n ** 1_000_000n; for (;;) large * large"),
    program(
        78,
        "T",
        "import { pbkdf2Sync } from 'node:crypto'; pbkdf2Sync('a', 'b', 2 ** 31 - 1, 64, 'sha512')",
    ),
    program(
        78,
        "T",
        "import { pbkdf2 } from 'node:crypto'; await new Promise((done) => pbkdf2('a', 'b', 2 ** 31 - 1, 64, 'sha512', done))",
    ),
    program(79, "TV", "addEventListener('unload', () => { for (;;); }); 'sent'"),
    program(80, "I", "process.on('exit', () => { for (;;); }); 'sent'"),
];
