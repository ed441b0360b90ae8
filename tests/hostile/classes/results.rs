//! Classes 103 to 110: values and errors that are not what they seem.

use crate::case::{Case, program};

pub(crate) const CASES: &[Case] = &[
    program(103, "VF", "const cycle = {}; cycle.self = cycle; cycle"),
    program(
        103,
        "VF",
        "[10n ** 100n, Symbol('x'), () => 1, NaN, -0, Infinity, new Map([[{}, 1]]), new Set([1]), new Error('x'), new Date(NaN), undefined, /x/]",
    ),
    program(103, "VF", "1n"),
    program(103, "VF", "new Date(NaN)"),
    program(103, "VF", "Symbol('x')"),
    program(104, "VF", "({ toJSON() { throw new Error('x') } })"),
    program(104, "TV", "({ toJSON() { for (;;); } })"),
    program(104, "T", "({ [Symbol.for('Deno.customInspect')]() { for (;;); } })"),
    program(105, "FV", "new Proxy({}, { get() { throw new Error('x') } })"),
    program(
        105,
        "FV",
        "[new Proxy({}, { get() { throw 1 }, ownKeys() { throw 1 }, getPrototypeOf() { throw 1 }, has() { throw 1 } })]",
    ),
    program(
        105,
        "FV",
        "const { proxy, revoke } = Proxy.revocable({}, {}); const box = [proxy]; revoke(); box",
    ),
    program(106, "V", "({ then(resolve) { resolve(6) } })").gives("6"),
    program(106, "F", "await { then() {} }"),
    program(106, "TF", "const self = { then(resolve) { resolve(self) } }; await self"),
    program(107, "VF", "let deep = []; for (let n = 0; n < 200_000; n++) deep = [deep]; deep"),
    program(108, "F", "throw 'text'"),
    program(108, "F", "throw null"),
    program(108, "F", "throw new Proxy({}, { get() { throw 1 } })"),
    program(
        108,
        "TF",
        "const error = new Error('x'); Object.defineProperty(error, 'message', { get() { for (;;); } }); throw error",
    ),
    program(109, "F", "Error.prepareStackTrace = () => { throw 1 }; throw new Error('x')"),
    program(
        109,
        "F",
        "Error.stackTraceLimit = Infinity; Error.prepareStackTrace = (_, sites) => sites; throw new Error('x')",
    ),
    program(110, "V", "JSON.parse('{\"__proto__\":{\"polluted\":1},\"a\":1,\"a\":2}').a").gives("2"),
    program(110, "V", "JSON.parse('{\"__proto__\":{\"polluted\":1},\"constructor\":{\"prototype\":1}}')"),
    program(110, "V", "Object.fromEntries(Array.from({ length: 1e5 }, (_, n) => [n, n]))"),
    program(110, "V", "Object.fromEntries(Array.from({ length: 1e6 }, (_, n) => [n, n]))"),
    program(
        110,
        "O",
        "Object.fromEntries(Array.from({ length: 4e5 }, (_, n) => [`key ${n}`.padEnd(90), n]))",
    ),
];
