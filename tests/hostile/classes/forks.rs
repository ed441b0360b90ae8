//! Classes 122 to 127: the process that a worker was copied from, its other copies, and what they began with. Of a worker
//! that was started, the parent is the daemon.

use super::files::adopt;
use crate::case::{Case, program, refused};

pub(crate) const CASES: &[Case] = &[
    refused(
        122,
        &[
            "Deno.kill(Deno.ppid, 'SIGKILL')",
            "Deno.kill(-Deno.ppid, 'SIGSTOP')",
            "process.kill(process.ppid, 'SIGSTOP')",
            "process.kill(process.ppid, 0)",
            "process.kill(0, 'SIGSTOP')",
            "process.kill(-1, 'SIGKILL')",
            "process._debugProcess(process.ppid)",
        ],
    ),
    refused(
        123,
        &[
            "Deno.readFileSync(`/proc/${Deno.ppid}/mem`)",
            "Deno.openSync(`/proc/${Deno.ppid}/mem`, { write: true })",
            "Deno.readTextFileSync(`/proc/${Deno.ppid}/environ`)",
            "Deno.readTextFileSync(`/proc/${Deno.ppid}/maps`)",
            "Deno.readLinkSync(`/proc/${Deno.ppid}/fd/5`)",
            "Deno.openSync(`/proc/${Deno.ppid}/fd/5`)",
            "Deno.openSync(`/proc/${Deno.ppid}/task`)",
        ],
    ),
    // Event loop, waker and signals: whatever it does to its own, the next worker's answer in time.
    program(
        124,
        "FT",
        adopt!("for (let round = 0; round < 200; round++) for (let fd = 5; fd < 40; fd++) try { write(fd, '\\x01\\0\\0\\0\\0\\0\\0\\0') } catch {}\nfor (;;);"),
    ),
    program(
        125,
        "V",
        "const left = Object.getOwnPropertyNames(globalThis).filter((name) => name.startsWith('left'));\n\
         globalThis.leftBehind = 1; Array.prototype.leftBehind = 2; Math.leftBehind = 3; setInterval(() => {}, 1).leftBehind = 4;\n\
         left.length",
    )
    .gives("0"),
    // Where a file was read to is nobody else's business.
    program(
        126,
        "VDF",
        "import fs from 'node:fs'; let moved = 0;\n\
         for (let fd = 5; fd < 40; fd++) try { moved += fs.readSync(fd, Buffer.alloc(1 << 16)) } catch {}\nmoved",
    ),
    // Pages that it was copied with: written to, thrown away, and more of them than it may have.
    program(
        127,
        "M",
        "const kept = []; for (const name of Reflect.ownKeys(globalThis)) try { globalThis[name].spoiled = name } catch {}\n\
         for (;;) kept.push(new Uint8Array(1 << 24).fill(1));",
    ),
];
