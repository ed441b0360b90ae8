//! What a prepared program tells about itself.

use conductor_script::{Import, Script, prepare};

fn script(source: &str) -> Script {
    prepare(source).unwrap_or_else(|error| panic!("{source}: {error}"))
}

#[test]
fn every_literal_specifier_is_listed_with_its_place() {
    let source = "await import('d')\nimport a from 'a'\nimport 'b'; export * from \"c\"\nimport(`e`); import(a); import type T from 't'\nimport unused from 'u'";
    let found: Vec<_> = script(source)
        .imports
        .into_iter()
        .map(|Import { specifier, line, column, dynamic }| (specifier, line, column, dynamic))
        .collect();
    let expected =
        [("a", 2, 15, false), ("b", 3, 8, false), ("c", 3, 27, false), ("d", 1, 14, true), ("e", 4, 8, true)];
    assert_eq!(found, expected.map(|(name, line, column, dynamic)| (name.to_owned(), line, column, dynamic)));
}

#[test]
fn the_parameter_is_a_name_that_the_program_does_not_contain() {
    for source in ["1", "$c", "$c + $c0_ + '$c1_'"] {
        let script = script(source);
        assert!(!source.contains(&script.api_name), "{source}: {}", script.api_name);
        assert!(script.code.contains("\"use strict\";"));
    }
}

#[test]
fn a_program_without_types_keeps_its_text() {
    let source = "// a\nconst f = (a, b) => a + b; /* c */\n\n  f(1,\n 2) // d\n";
    let expected = "\"use strict\";let $cv;// a\nconst f = (a, b) => a + b; /* c */\n\n  $cv=(0,f(1,\n 2)); // d\n\nreturn $cv;";
    assert_eq!(script(source).code, expected);
}

#[test]
fn types_leave_lines_and_columns_alone() {
    let source = "type A = {\n  x: number\n}\nfunction f<T>(a: A, b?: string): T | null {\n  return a!.x as unknown as T\n}";
    let code = script(source).code;
    let code = code.strip_prefix("\"use strict\";").expect("strict");
    for (written, left) in source.lines().zip(code.lines()) {
        for (index, c) in left.char_indices().filter(|(_, c)| !matches!(c, ' ' | ';')) {
            assert_eq!(written[index..].chars().next(), Some(c), "{written}\n{left}");
        }
    }
    assert_eq!(source.lines().count(), code.lines().count());
}

#[test]
fn positions_of_made_code_are_those_of_what_it_was_made_from() {
    let script = script("let a\nimport b from 'm'\nb()");
    let import = script.code.find("await").expect("the import is awaited");
    let column = u32::try_from(import).expect("small") + 1;
    assert_eq!(script.original_position(1, column), Some((2, 15)));
    assert_eq!(script.original_position(3, 1), Some((3, 1)));
    assert_eq!(script.original_position(0, 1), None);
    assert_eq!(script.original_position(1, 0), None);
    assert_eq!(script.original_position(99, 1), None);
}

#[test]
fn columns_count_utf16_units() {
    let script = script("const s: string = '😀', t: string = s; t");
    let before = script.code.split("t)").next().expect("the value is last in its line");
    let column = u32::try_from(before.encode_utf16().count()).expect("small") + 1;
    assert_eq!(script.original_position(1, column), Some((1, 40)));
}

#[test]
fn made_names_do_not_clash() {
    let script = script("import { a } from 'm'; const $c1 = a, $cv = 1; enum E { X } $cv");
    assert!(!script.code.contains("const $c1=await"), "{}", script.code);
}
