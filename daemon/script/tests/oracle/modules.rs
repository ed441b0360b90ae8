//! A rewritten program behaves as Deno runs the same text as a module: what it prints and throws, and where.

use std::fmt::Write as _;

use crate::runner::{Outcome, data, rewritten, run};
use serde_json::{Value, json};

/// Programs that print what they see of their being a module.
const PROGRAMS: [&str; 42] = [
    "console.log(this, (function () { return this })(), (() => this)())",
    "console.log(typeof arguments)",
    "try { arguments } catch (e) { console.log(String(e)) }",
    "function f() { return arguments.length + (() => arguments.length)() } console.log(f(1, 2))",
    "class A { m() { return arguments.length } } console.log(new A().m(1))",
    "try { undeclared = 1 } catch (e) { console.log(String(e)) }",
    "console.log(typeof import.meta, typeof import.meta.url, typeof import.meta.resolve)",
    "x; let x = 1",
    "new A(); class A {}",
    "f(); function f() { console.log('f') }",
    "console.log(v); var v = 1",
    "console.log(typeof f); { function f() {} } console.log(typeof f)",
    "console.log(typeof globalThis.top); var top = 1; console.log(typeof globalThis.top)",
    "console.log(constants.answer)\nimport { constants } from './counter.ts'",
    "console.log('body'); import './second.ts'; import './first.ts'; export * from './first.ts'",
    "import { second } from './second.ts'; import { first } from './first.ts'; console.log(first, second)",
    "import { first } from './first.ts'; console.log('unused imports are dropped')",
    "import * as all from './first.ts'; console.log('so are namespaces')",
    "import {} from './first.ts'; console.log('but not this')",
    "import { type Shape } from './counter.ts'; import type D from './first.ts'; console.log('types')",
    "import { Shape } from './counter.ts'; const s: Shape = { side: 1 }; console.log(s)",
    "import { count, increment } from './counter.ts'; const before = count; increment(); console.log(count - before)",
    "import { receiver } from './counter.ts'; console.log(receiver(), (receiver)(), receiver?.(), receiver!(), (receiver as any)(), receiver.call(1))",
    "import d, { receiver as r } from './counter.ts'\nconst a = 1\nr()\nd(a)\nconsole.log(d`x`, r`y`)",
    "import { count } from './counter.ts'; console.log(typeof count, { count }, [count])",
    "import { count } from './counter.ts'; { let count = 'inner'; console.log(count, { count }) }",
    "import { count } from './counter.ts'; function f(count) { return count } console.log(f('parameter'))",
    "import { count } from './counter.ts'; try { (count as any) = 5 } catch (e) { console.log(e.name) }",
    "import { default as d } from './counter.ts'; console.log(new d(1) instanceof d)",
    "import { constants } from './counter.ts'; class A { constants = constants; m() { return constants } } console.log(new A())",
    "import data from './data.json' with { type: 'json' }; console.log(data)",
    "const { constants } = await import('./counter.ts'); console.log(constants)",
    "const name = './counter.ts'; console.log((await import(name)).constants)",
    "try { await import('./missing.ts') } catch (e) { console.log(e.name, e.code) }",
    "import { join } from 'node:path'; console.log(join('a', 'b'))",
    "export default class { static x = console.log('static') }",
    "export default (console.log('default'), 5)",
    "export const a = 1; export { a as b }; export default function () {} console.log(a)",
    "using a = { [Symbol.dispose]() { console.log('a') } }; using b = { [Symbol.dispose]() { console.log('b') } }; console.log('body')",
    "await using a = { async [Symbol.asyncDispose]() { console.log('a') } }; console.log('body')",
    "label: for (const x of [1, 2]) { for await (const y of [x]) { if (y > 1) break label; console.log(y) } }",
    "console.log(await Promise.all([1, 2].map(async (x) => { await null; return x * 2 })))",
];

#[test]
fn rewritten_programs_do_what_modules_do() {
    let runs: Vec<Value> = PROGRAMS
        .iter()
        .flat_map(|source| [json!({ "module": absolute(source) }), rewritten(source)])
        .collect();
    let outcomes = run(&runs);
    let mut wrong = String::new();
    for (source, pair) in PROGRAMS.iter().zip(outcomes.chunks(2)) {
        let [module, ours] = pair else { panic!("outcomes come in pairs") };
        // Modules are evaluated once, so only the first of the two sees what an imported one prints.
        let imported = |text: &str| text.replace("first\n", "").replace("second\n", "");
        if imported(&module.prints) != imported(&ours.prints) || module.throws != ours.throws {
            let _ = writeln!(wrong, "=== {source}\n--- module {module:?}\n--- ours {ours:?}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// The same program for a module that lies elsewhere.
fn absolute(source: &str) -> String {
    let modules = format!("file://{}/", data().join("modules").display());
    source.replace("'./", &format!("'{modules}"))
}

#[test]
fn imports_are_evaluated_first_and_in_order() {
    let source = "console.log('body'); import './second.ts'; export * from './first.ts'";
    let outcome = run(&[rewritten(source)]).remove(0);
    assert_eq!(outcome.prints, "second\nfirst\nbody\n");
}

#[test]
fn unused_imports_are_not_evaluated() {
    let source = "import { first } from './first.ts'; import * as s from './second.ts'; let x: typeof first; console.log('body')";
    assert_eq!(run(&[rewritten(source)]).remove(0).prints, "body\n");
}

#[test]
fn a_missing_export_is_named() {
    let outcome = run(&[rewritten("import { nope } from './counter.ts'; nope")]).remove(0);
    let expected = "SyntaxError: The requested module './counter.ts' does not provide an export named 'nope'";
    assert_eq!(outcome.throws.as_deref(), Some(expected));
}

#[test]
fn top_level_return_gives_the_value() {
    let programs = [
        "return 5",
        "if (true) return { a: 1 }\n6",
        "for (const x of [1, 2]) { if (x > 1) return x; x }",
        "return",
        "1; return; 2",
    ];
    let outcomes = run(&programs.map(rewritten));
    let values: Vec<_> = outcomes.iter().map(|it| it.value.as_deref()).collect();
    let expected = ["5", "{ a: 1 }", "2", "undefined", "undefined"];
    assert_eq!(values, expected.map(Some));
}

#[test]
fn comments_around_an_object_do_not_matter() {
    let programs = ["// c\n{ a: 1 }", "{ a: 1 } // c", "#!/usr/bin/env deno\n/* c */ { a: 1 } /* d */"];
    for outcome in run(&programs.map(rewritten)) {
        assert_eq!(outcome.value.as_deref(), Some("{ a: 1 }"));
    }
}

/// Programs that throw at the place behind the mark.
const THROWING: [&str; 26] = [
    "throw ¶new Error('x')",
    "const a = 1;\n\n  null.¶x",
    "let a: number = 5 as number; ¶missing()",
    "type A = 1\ninterface B { x: number }\n  ¶missing",
    "enum E { A = 1 }\n¶missing",
    "enum E { A = (null as any).¶x }",
    "namespace N { export const a = 1;\n  export const b = (null as any).¶x }",
    "class P { constructor(public x: number) { ¶missing(x) } }\nnew P(1)",
    "class P { y = ¶missing(this.x); constructor(public x: number) {} }\nnew P(1)",
    "import { constants } from './counter.ts'\nconstants.answer; ¶missing()",
    "{ a: ¶missing() }",
    "// comment\n{\n  a: 1,\n  b: ¶missing(),\n}",
    "if (true) { 1; ¶missing() } else 2",
    "const f = (x: {\n  a: number\n}): {\n  b: number\n} => ¶missing(x)\nf({ a: 1 })",
    "'😀'; ¶missing()",
    "const s = `a\nb`; ¶missing(s)",
    "const x = <number>(\n  (null as any).¶x)",
    "\u{feff}¶missing()",
    "const d = () => {}\n@d class A { @d m() { ¶missing() } }\nnew A().m()",
    "const d = () => {}; class A { @d x: number = ¶missing() }\nnew A()",
    "const d = () => {}; class A {\n @d @d\n accessor x =\n ¶missing() }\nnew A()",
    "const d = () => {}; class A { @d #m() { ¶missing() } m() { this.#m() } }\nnew A().m()",
    "const d = () => {}; class A { @d [¶missing()]() {} }",
    "const a = 1\n@¶d(missing()) class A {}; function d() {}",
    "const d = () => { ¶missing() }; @d class A { @d m() {} }",
    "const a = 1\nclass A { m() {}\n ¶@((5) as any) n() {} }",
];

#[test]
fn stack_frames_map_to_the_place_that_threw() {
    let sources: Vec<_> = THROWING.iter().map(|marked| marked.replace('¶', "")).collect();
    let outcomes = run(&sources.iter().map(|source| rewritten(source)).collect::<Vec<_>>());
    for ((marked, source), outcome) in THROWING.iter().zip(&sources).zip(outcomes) {
        let script = conductor_script::prepare(source).expect("it ran");
        let top =
            frames(&outcome).into_iter().find_map(|(line, column)| script.original_position(line, column));
        assert_eq!(top, Some(mark(marked)), "{marked}\n{}\n{outcome:?}", script.code);
    }
}

/// The line and column of the mark, as V8 counts them.
fn mark(marked: &str) -> (u32, u32) {
    let before = marked.trim_start_matches('\u{feff}').split('¶').next().expect("there is a mark");
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().expect("a line").encode_utf16().count() + 1;
    (u32::try_from(line).expect("small"), u32::try_from(column).expect("small"))
}

/// The positions of the frames, innermost first, without the two lines that V8 puts before the body of a function.
fn frames(outcome: &Outcome) -> Vec<(u32, u32)> {
    let stack = outcome.stack.as_deref().expect("the program throws");
    let places = stack.lines().filter_map(|line| line.rsplit_once("<anonymous>:"));
    places.map(|(_, place)| position(place.trim_end_matches(')'))).collect()
}

fn position(text: &str) -> (u32, u32) {
    let (line, column) = text.split_once(':').expect("line and column");
    (line.parse::<u32>().expect("a number") - 2, column.parse().expect("a number"))
}
