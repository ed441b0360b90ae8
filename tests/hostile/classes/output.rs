//! Classes 93 to 102: more output than there may be, and output that is something else.

use super::files::adopt;
use crate::case::{Case, program};

macro_rules! frames {
    ($then:expr) => {
        adopt!(concat!(
            "const length = (n) => String.fromCharCode(n & 255, n >> 8 & 255, n >> 16 & 255, n >>> 24);\n",
            "const frame = (text) => write(4, length(text.length) + text); const wait = () => new Promise((done) => setTimeout(done, 150));\n",
            $then
        ))
    };
}
pub(super) use frames;

pub(crate) const CASES: &[Case] = &[
    program(93, "O", "const part = new Uint8Array(1 << 16).fill(97); for (;;) Deno.stdout.writeSync(part)"),
    program(93, "O", "for (;;) console.log('x'.repeat(999))"),
    program(94, "O", "const part = new Uint8Array(1 << 16).fill(97); for (;;) Deno.stderr.writeSync(part)"),
    program(94, "O", "for (;;) console.error('x'.repeat(999))"),
    program(95, "O", "Deno.stdout.writeSync(new Uint8Array(40e6).fill(97)); 1"),
    program(96, "O", "'x'.repeat(6e7)"),
    program(96, "O", "'x'.repeat(1e8)"),
    program(96, "O", "Array.from({ length: 50 }, () => 'x'.repeat(1e6))"),
    program(97, "F", frames!("write(4, '\\x05\\x00\\x00\\x00\\xff\\xfe\\x80!!'); await wait(); 1")),
    program(97, "F", frames!("frame('no json'); await wait(); 1")),
    program(
        97,
        "F",
        frames!(
            "frame('{\"settled\":{\"kind\":\"json\",\"value\":' + '['.repeat(5000) + ']'.repeat(5000) + '}}'); await wait(); 1"
        ),
    ),
    program(97, "F", frames!("write(4, '\\xff\\xff\\xff\\x7f'); await wait(); 1")),
    program(98, "F", frames!("write(4, '\\x40\\x00\\x00\\x00{\"set'); await wait(); process.reallyExit(0)")),
    // A frame is a claim about its own run: as if it had returned this.
    program(
        99,
        "V",
        frames!("frame('{\"settled\":{\"kind\":\"json\",\"value\":\"forged\"}}'); await wait(); 'real'"),
    )
    .gives("\"forged\""),
    program(
        99,
        "VF",
        frames!(
            "frame('{\"settled\":{\"kind\":\"json\",\"value\":1,\"executionId\":\"x-1\"}}'); await wait(); 'real'"
        ),
    ),
    program(
        100,
        "O",
        "for (let n = 0; n < 1e5; n++) console.log(JSON.stringify({ level: 'info', n, text: 'a line of a log' }))",
    ),
    program(
        101,
        "V",
        "console.log('\\u001b[2J\\u001b]0;title\\u0007\\u009b31m \\0 \\u202e \\ud800'); console.error('\\u001b[31m'); '\\u001b[31m\\0\\u202e\\ud800'",
    ),
    program(101, "F", "throw new Error('\\u001b[2J\\u001b]0;title\\u0007 \\u009b \\0 \\u202e \\ud800')"),
    program(
        102,
        "V",
        "console.log('\\n{\"level\":\"ERROR\",\"fields\":{\"message\":\"forged\"}}\\n'); '\\r\\n{\"fields\":{\"message\":\"forged\"}}\\n'",
    ),
    program(102, "F", "throw new Error('x\\n{\"level\":\"ERROR\",\"fields\":{\"message\":\"forged\"}}\\n')"),
];
