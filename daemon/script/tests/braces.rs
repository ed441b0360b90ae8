//! A program that begins with a brace is read in parentheses, which its own text must not close.

use conductor_script::prepare;

#[test]
fn text_that_closes_the_parenthesis_around_it_is_a_syntax_error() {
    for source in ["{}) ; (1", "{a: 1}), ({b: 2}", "{} )\n(", "{}); f(1); ({}", "{}) + ({}"] {
        let error = prepare(source).expect_err(source);
        assert!(error.message.contains("Unexpected"), "{source}: {}", error.message);
        assert_eq!(error.line, 1, "{source}");
    }
}

#[test]
fn parentheses_that_match_are_let_through() {
    for source in ["{ a: (1), b: [(2)] }", "{}\n(1)", "{ f() { return (1) } }"] {
        prepare(source).expect(source);
    }
}
