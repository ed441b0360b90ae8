//! What a model reads when its program is not one: message, place, code frame, hint.

use std::fmt::Write as _;

use conductor_script::{SyntaxError, code_frame, prepare};

/// A program, the line, column and beginning of the message of its error, and a part of the hint.
type Case = (&'static str, u32, u32, &'static str, Option<&'static str>);

const CASES: [Case; 54] = [
    ("let x = ;", 1, 9, "Unexpected token ';'", None),
    ("foo(1,, 2)", 1, 7, "Unexpected token ','", None),
    ("}", 1, 1, "Unexpected token '}'", None),
    ("let a = 1 let b = 2", 1, 11, "Unexpected 'let'", None),
    ("const x;", 1, 7, "Missing initializer in const declaration", None),
    ("let x = 1;\nlet x = 2", 2, 5, "Identifier `x` has already been declared", None),
    ("function f() {}\nfunction f() {}", 2, 10, "Identifier `f` has already been declared", None),
    ("class A { #a; #a }", 1, 15, "Identifier `#a` has already been declared", None),
    ("export { nope }", 1, 10, "Export 'nope' is not defined in module", None),
    ("break", 1, 1, "Illegal break statement", None),
    ("1 = 2", 1, 1, "Cannot assign", None),
    ("arguments = 1", 1, 1, "Cannot assign to 'arguments' in strict mode", None),
    ("with (a) {}", 1, 1, "'with' statements are not allowed", None),
    ("let await = 1", 1, 5, "Cannot use `await` as an identifier", None),
    ("x = 0777", 1, 5, "'0'-prefixed octal literals", None),
    ("delete x", 1, 8, "Delete of an unqualified identifier", None),
    ("new.target", 1, 1, "Unexpected new.target", None),
    ("'😀'; let = 5", 1, 7, "", None),
    ("function f() { await x }", 1, 16, "`await` is only allowed", Some("marked `async`")),
    ("foo(1,", 1, 7, "Expected `)` but the program ends", Some("cut off")),
    ("if (a) {\n  b()\n", 3, 1, "Expected `}` but the program ends", Some("cut off")),
    ("let s = 'abc\nd'", 1, 9, "Unterminated string", Some("template literal")),
    ("let s = `abc", 1, 9, "Unterminated string", Some("backtick")),
    ("const a = “x”", 1, 11, "Invalid Character", Some("straight quotes")),
    ("const a = 1;\nconst b = <div>hi</div>;", 2, 11, "JSX cannot be run here", Some("template literal")),
    ("const b = <><b/></>;", 1, 11, "JSX cannot be run here", Some("template literal")),
    ("```ts\n1 + 1\n```", 1, 1, "The code is in a Markdown fence", Some("Markdown fence")),
    ("\n  ```\n1", 2, 3, "The code is in a Markdown fence", Some("Markdown fence")),
    ("1 + 1\n```", 2, 3, "", Some("Markdown fence")),
    ("<!DOCTYPE html>\n<p>", 1, 11, "", Some("HTML")),
    ("<html><body></body></html>", 1, 14, "", Some("HTML")),
    ("def f(x):\n  return x", 1, 5, "Unexpected 'f'", Some("Python")),
    ("x = 1\nfor i in range(3):\n  x", 2, 5, "", Some("Python")),
    ("from os import path", 1, 6, "", Some("Python")),
    ("# count\nx = 1", 1, 2, "", Some("Python")),
    ("if x > 1:\n  y()", 1, 4, "", Some("Python")),
    ("class A { m(@dec x) {} }", 1, 13, "parameter decorators cannot be run here", Some("legacy")),
    ("class A {\n  constructor(@dec private x: number) {} }", 2, 15, "parameter decorators", Some("legacy")),
    ("class A { @dec constructor() {} }", 1, 11, "a constructor cannot be decorated", Some("the class")),
    (
        "abstract class A { @dec abstract x }",
        1,
        20,
        "an abstract member cannot be decorated",
        Some("implements"),
    ),
    ("@dec function f() {}", 1, 6, "Unexpected token 'function'", Some("classes and their members")),
    ("@dec export @dec class A {}", 1, 13, "Decorators may not appear after 'export'", None),
    ("class A { @dec static {} }", 1, 11, "Decorators are not valid here", Some("classes and their members")),
    ("const o = { @dec m() {} }", 1, 13, "Unexpected token '@'", Some("classes and their members")),
    ("class A { public @dec x }", 1, 18, "Expected `;` but found `@`", Some("classes and their members")),
    ("@dec enum E {}", 1, 6, "Unexpected token 'enum'", Some("classes and their members")),
    ("import a = require('a')", 1, 1, "`import x = require", Some("import x from")),
    ("export = 5", 1, 1, "`export =` is CommonJS", Some("export default")),
    ("import defer * as a from 'a'; a", 1, 1, "`import defer`", Some("plain import")),
    ("{\"a\": 1, \"b\": }", 1, 15, "Unexpected token '}'", None),
    ("{ a: 1 b: 2 }", 1, 8, "Unexpected 'b'", None),
    ("\u{feff}let x = ;", 1, 9, "Unexpected token ';'", None),
    ("a\r\nb\u{2028}c d", 3, 3, "Unexpected 'd'", None),
    ("#!/usr/bin/env deno\nlet x = ;", 2, 9, "Unexpected token ';'", None),
];

fn refused(source: &str) -> SyntaxError {
    prepare(source).expect_err(source)
}

#[test]
fn errors_name_the_place_and_the_cure() {
    let mut wrong = String::new();
    for (source, line, column, message, hint) in CASES {
        let error = refused(source);
        let is_hinted = match (hint, &error.hint) {
            (None, None) => true,
            (Some(part), Some(hint)) => hint.contains(part),
            _ => false,
        };
        if (error.line, error.column) != (line, column) || !error.message.starts_with(message) || !is_hinted {
            let _ = writeln!(wrong, "{source:?}: {error} {:?}", error.hint);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// What TypeScript minds and JavaScript does not: Deno runs all of these.
#[test]
fn type_errors_are_let_through() {
    let programs = [
        "const x: number = 'text'",
        "enum E { A = Math.random(), B }",
        "class A { constructor(); }",
        "class A { x = 1; x = 2 }",
        "type A = 1; type A = 2",
        "interface A {} interface A {}",
        "function f(x?: number, y) {}",
        "class A { declare x = 1 }",
        "declare const x: number = 5",
        "let a!: number = 5",
        "abstract class A { abstract f() {} }",
        "import type A, { B } from 'x'",
        "function f(): void;",
    ];
    for source in programs {
        prepare(source).unwrap_or_else(|error| panic!("{source}: {error}"));
    }
}

#[test]
fn a_frame_shows_three_lines_and_a_caret() {
    let error = refused("const a = 1;\nconst b = a +* 2;\nconst c = 3;\n// more");
    assert_eq!(
        error.code_frame,
        "  1 | const a = 1;\n> 2 | const b = a +* 2;\n    |              ^\n  3 | const c = 3;\n"
    );
}

#[test]
fn a_frame_keeps_the_caret_under_its_character() {
    assert_eq!(code_frame("\tf('😀', x)", 1, 10), "> 1 |  f('😀', x)\n    |         ^\n");
    assert_eq!(code_frame("a\nb", 2, 1), "  1 | a\n> 2 | b\n    | ^\n");
    assert_eq!(code_frame("a", 1, 99), "> 1 | a\n    |  ^\n");
}

#[test]
fn a_frame_of_a_line_that_is_not_there_is_empty() {
    assert_eq!(code_frame("a", 5, 1), "");
    assert_eq!(code_frame("a", 0, 0), "");
    assert_eq!(code_frame("a", u32::MAX, u32::MAX), "");
}

#[test]
fn a_frame_of_a_long_line_shows_the_part_around_the_caret() {
    let source = format!("{}X{}", "a".repeat(5000), "b".repeat(5000));
    let frame = code_frame(&source, 1, 5001);
    let lines: Vec<_> = frame.lines().collect();
    let caret = lines[1].find('^').expect("a caret");
    assert_eq!(lines[0].as_bytes()[caret], b'X');
    assert!(lines[0].len() < 150);
}
