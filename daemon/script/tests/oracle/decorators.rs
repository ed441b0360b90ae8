//! Decorators do what Deno's own do; where Deno's lowering is broken, what the proposal says.

use std::fmt::Write as _;

use crate::runner::{Outcome, rewritten, run};
use crate::table::{Program, decorated_programs};
use serde_json::json;

/// Programs on which Deno 2.9.6 fails or contradicts the proposal, and what they print.
const BEYOND_DENO: [(&str, &str); 19] = [
    // Decorators and computed keys behind those of the class are evaluated before what it extends.
    (
        "const l = (t) => (console.log(t), t), d = (t) => (l(t), () => {});\n\
         @d('c') class C extends (l('h'), Object) { @d('m') [l('k')]() {} }",
        "c\nh\nm\nk\n",
    ),
    // It knows no end of a field in front of a decorator.
    (
        "const d = () => {}; class C {\n get\n @d a\n static\n @d b }; console.log(Object.keys(new C()))",
        "[ \"get\", \"a\", \"static\", \"b\" ]\n",
    ),
    // It makes a getter with parameters of such a method.
    (
        "const d = (f) => (x) => f(x) + 1; class C { @d #m(x) { return x } go() { return this.#m(1) } } console.log(new C().go())",
        "2\n",
    ),
    (
        "const d = () => {}; class C { @d f = () => 1; @d g = function () {} } console.log(Object.keys(new C()))",
        "[ \"f\", \"g\" ]\n",
    ),
    (
        "const d = () => (x) => x + 1; class C { @d 'a b' = 1; @d 2 = 2; @d ['c'] = 3 } console.log(new C())",
        "C { \"2\": 3, \"a b\": 2, c: 4 }\n",
    ),
    // It drops the initializers that field decorators add, unless a method is decorated too.
    (
        "const d = (_, c) => { c.addInitializer(function () { console.log(c.name) }) }; class C { @d f; @d static g } new C()",
        "g\nf\n",
    ),
    // In methods the name of a replaced class means the one that was replaced.
    (
        "const d = (v) => class D extends v {}; @d class C { m() { return C.name } } console.log(new C().m())",
        "D\n",
    ),
    (
        "const d = (v) => class D extends v {}; @d class C { static a = C.name; static { console.log(C.a, typeof C) } }",
        "D function\n",
    ),
    (
        "const d = (v) => class D extends v {}; @d class C { static I = class { a = C.name }; m() { return new C.I() } } console.log(new C().m())",
        "I { a: \"D\" }\n",
    ),
    // Metadata does not inherit.
    (
        "const d = (_, c) => { c.metadata[c.name] = 1 }; class A { @d a() {} } class B extends A { @d b() {} } console.log({ ...B[Symbol.metadata] }, B[Symbol.metadata].a)",
        "{ b: 1 } 1\n",
    ),
    // It panics.
    (
        "const d = (v) => class D extends v {}; namespace N { @d export class A {} @d class B {} console.log(A.name, B.name) } console.log(N.A.name)",
        "D D\nD\n",
    ),
    // Computed keys are converted more than once.
    (
        "const d = () => {}, k = { toString() { console.log('converted'); return 'k' } }; class C { @d [k]() {} }",
        "converted\n",
    ),
    // It leaves decorators in the code.
    (
        "const d = (t) => () => console.log(t); @d(((@d('a') class {}), 'b')) class C { static x = class { @d('c') m() {} } }",
        "a\nb\nc\n",
    ),
    // Static private fields come after public ones.
    (
        "const d = () => {}; @d class C { static #a = console.log('a'); static b = console.log('b'); static { console.log('c') } static d = console.log('d') }",
        "a\nb\nc\nd\n",
    ),
    // Classes of one text share their decorators.
    (
        "function make(n) { const i = (v) => v + n, d = (_, c) => c.kind === 'field' ? i : { init: i }; return class { @d f = 0; @d accessor g = 1 } }\n\
         const [A, B] = [make(1), make(2)]; const a = new A(); console.log(a.f, a.g, new B().f)",
        "1 2 2\n",
    ),
    // The access of private elements takes the object as its receiver only.
    (
        "let a; const d = (_, c) => { a = c.access }; class C { @d #f = 1; m() { return this.#f } } const c = new C(); a.set(c, a.get(c) + 1); console.log(c.m())",
        "2\n",
    ),
    (
        "let a; const d = (_, c) => { a = c.access }; class C { @d accessor #f = 1 } const c = new C(); a.set(c, a.get(c) + 1); console.log(a.get(c))",
        "2\n",
    ),
    // While a decorator awaits, the same class is made once more.
    (
        "const d = (t) => (_, c) => { c.metadata[c.name] = t }, sleep = (t) => new Promise((f) => setTimeout(f, t));\n\
         async function make(n) { @d(await sleep(9 - n)) class C { @d((await sleep(9 - n), n)) [(await sleep(n), 'k')]() {} } return C[Symbol.metadata].k }\n\
         console.log(await Promise.all([make(1), make(5), make(8)]))",
        "[ 1, 5, 8 ]\n",
    ),
    // An anonymous default class has a name.
    ("const d = (v, c) => { console.log(c.name, v.name) }; export default @d class {}", "default default\n"),
];

#[test]
fn decorators_do_what_they_do_in_deno() {
    let programs = decorated_programs();
    let runs: Vec<_> =
        programs.iter().flat_map(|it| [json!({ "module": it.source }), rewritten(&it.source)]).collect();
    let mut wrong = String::new();
    for (Program { title, source }, pair) in programs.iter().zip(run(&runs).chunks(2)) {
        let [module, ours] = pair else { panic!("outcomes come in pairs") };
        if module.prints != ours.prints || error_name(module) != error_name(ours) {
            let _ = writeln!(wrong, "=== {title}\n{source}\n--- module {module:?}\n--- ours {ours:?}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

fn error_name(outcome: &Outcome) -> Option<&str> {
    outcome.throws.as_deref().map(|text| text.split(':').next().unwrap_or(text))
}

#[test]
fn decorators_do_what_the_proposal_says_where_deno_does_not() {
    let runs: Vec<_> = BEYOND_DENO.iter().map(|(source, _)| rewritten(source)).collect();
    let mut wrong = String::new();
    for ((source, expected), outcome) in BEYOND_DENO.iter().zip(run(&runs)) {
        if outcome.prints != *expected || outcome.throws.is_some() {
            let _ = writeln!(wrong, "=== {source}\n--- expected {expected:?}\n--- ours {outcome:?}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
