//! Properties of the rewrite, for programs that nobody wrote.

use std::fmt::Write as _;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::json;

use crate::runner::{rewritten, run};
use crate::table::{Program, decorated_programs, programs};

/// How many programs run in the one Deno process of a test.
const BATCH: usize = 600;

/// What a generated program may use: a loop ends when the fuel is used up.
const PRELUDE: &str = "var fuel = 40, v0 = 1, v1 = 'a', log = (x) => (console.log(x), x);\n";

/// A part of the runtime of decorators, which stands in the first line and comes from no place of the program.
const RUNTIME: &str = "const placeholders = new WeakMap();";

/// Turns a stream of bytes into a program; shorter streams make simpler programs.
struct Generator<'b> {
    bytes: std::slice::Iter<'b, u8>,
    names: usize,
}

/// What may be left from where a statement stands.
#[derive(Clone, Default)]
struct Around {
    depth: usize,
    is_in_loop: bool,
    is_in_switch: bool,
    labels: Vec<(String, bool)>,
}

impl Around {
    fn deeper(&self) -> Self {
        Self { depth: self.depth + 1, ..self.clone() }
    }

    fn in_loop(&self) -> Self {
        Self { is_in_loop: true, ..self.deeper() }
    }
}

impl Generator<'_> {
    fn program(bytes: &[u8]) -> String {
        let mut generator = Generator { bytes: bytes.iter(), names: 0 };
        format!("{PRELUDE}{}", generator.list(&Around::default(), "\n"))
    }

    fn pick(&mut self, choices: u8) -> u8 {
        self.bytes.next().map_or(0, |byte| byte % choices)
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("n{}", self.names)
    }

    fn list(&mut self, around: &Around, separator: &str) -> String {
        let count = 1 + self.pick(3);
        (0..count).map(|_| self.statement(around, true)).collect::<Vec<_>>().join(separator)
    }

    fn block(&mut self, around: &Around) -> String {
        if self.pick(6) == 5 {
            "{}".to_owned()
        } else {
            format!("{{ {} }}", self.list(&around.deeper(), " "))
        }
    }

    /// The body of an `if` or loop.
    fn body(&mut self, around: &Around) -> String {
        if self.pick(2) == 0 { self.block(around) } else { self.statement(&around.deeper(), false) }
    }

    fn statement(&mut self, around: &Around, in_list: bool) -> String {
        let choices = if around.depth > 4 || self.bytes.len() == 0 { 6 } else { 20 };
        match self.pick(choices) {
            0..=2 => format!("{};", self.expression(0)),
            3 => self.leave(around),
            4 if in_list => self.declaration(),
            4 | 5 => ";".to_owned(),
            6 => self.block(around),
            7 => format!("if ({}) {}", self.condition(), self.body(around)),
            // A block, or an `else` could belong to an `if` inside.
            8 | 9 => format!("if ({}) {} else {}", self.condition(), self.block(around), self.body(around)),
            10 => format!("for (let i = 0; i < 3 && fuel-- > 0; i++) {}", self.body(&around.in_loop())),
            11 => format!("for (const x of [1, 2]) {}", self.body(&around.in_loop())),
            12 => format!("for (const k in {{ p: 1, q: 2 }}) {}", self.body(&around.in_loop())),
            13 => format!("while (fuel-- > 0 && {}) {}", self.condition(), self.body(&around.in_loop())),
            14 => format!("do {} while (fuel-- > 0 && {});", self.body(&around.in_loop()), self.condition()),
            15 => self.switch(around),
            16 | 17 => self.attempt(around),
            _ => self.labelled(around),
        }
    }

    fn leave(&mut self, around: &Around) -> String {
        let label = around.labels.get(usize::from(self.pick(4)));
        match (self.pick(3), label) {
            (0, Some((label, true))) => format!("continue {label};"),
            (0 | 1, Some((label, _))) => format!("break {label};"),
            (0, None) if around.is_in_loop => "continue;".to_owned(),
            _ if around.is_in_loop || around.is_in_switch => "break;".to_owned(),
            _ => format!("{};", self.expression(0)),
        }
    }

    fn declaration(&mut self) -> String {
        let name = self.name();
        match self.pick(4) {
            0 => format!("let {name} = {};", self.expression(0)),
            1 => format!("var {name} = {};", self.expression(0)),
            2 => format!("function {name}() {{ {}; }}", self.expression(0)),
            _ => format!("class {name} {{ static s = {}; }}", self.expression(0)),
        }
    }

    fn switch(&mut self, around: &Around) -> String {
        let inside = Around { is_in_switch: true, ..around.deeper() };
        let mut text = format!("switch ({}) {{", self.expression(0));
        for case in 0..=self.pick(3) {
            let _ = write!(text, " case {case}: {}", self.list(&inside, " "));
        }
        if self.pick(2) == 1 {
            let _ = write!(text, " default: {}", self.list(&inside, " "));
        }
        text + " }"
    }

    fn attempt(&mut self, around: &Around) -> String {
        let throws = if self.pick(2) == 1 { "throw log('thrown');" } else { "" };
        let block = format!("try {{ {} {throws} }}", self.list(&around.deeper(), " "));
        match self.pick(3) {
            0 => format!("{block} catch {}", self.block(around)),
            1 => format!("{block} catch (e) {} finally {}", self.block(around), self.block(around)),
            _ => format!("try {} finally {}", self.block(around), self.block(around)),
        }
    }

    fn labelled(&mut self, around: &Around) -> String {
        let label = self.name();
        let is_loop = self.pick(2) == 1;
        let mut inside = around.deeper();
        inside.labels.insert(0, (label.clone(), is_loop));
        if is_loop {
            format!("{label}: for (const y of [1, 2, 3]) {}", self.body(&inside.in_loop()))
        } else {
            format!("{label}: {}", self.block(&inside))
        }
    }

    fn condition(&mut self) -> String {
        let conditions = ["true", "false", "v0 > 2", "v0++ % 2", "log(v1)", "fuel > 30"];
        conditions[usize::from(self.pick(6))].to_owned()
    }

    fn expression(&mut self, depth: u8) -> String {
        if depth > 2 {
            return "v0".to_owned();
        }
        match self.pick(16) {
            0 => format!("{}", self.pick(5)),
            1 => "log('x')".to_owned(),
            2 => format!("v0 = (v0 + ({})) % 97", self.expression(depth + 1)),
            3 => format!("v1 = `${{{}}}b`.slice(0, 9)", self.expression(depth + 1)),
            4 => format!("[{}, {}]", self.expression(depth + 1), self.expression(depth + 1)),
            5 => format!("({{ a: {} }})", self.expression(depth + 1)),
            6 => "() => { v0 }".to_owned(),
            7 => "(function () { return log(this) })()".to_owned(),
            8 => format!("({}, {})", self.expression(depth + 1), self.expression(depth + 1)),
            9 => "v0++".to_owned(),
            10 => "undefined".to_owned(),
            11 => "(class {})".to_owned(),
            12 => format!("v0 > 3 ? {} : 'no'", self.expression(depth + 1)),
            13 => "'use strict'".to_owned(),
            14 => format!("log({})", self.expression(depth + 1)),
            _ => "/a/.test(v1)".to_owned(),
        }
    }
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..120)
}

fn deterministic_runner() -> TestRunner {
    TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha))
}

/// The same programs on every run: a failure is found again by running the test.
fn batch() -> Vec<String> {
    let mut runner =
        TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let mut program = || bytes().new_tree(&mut runner).map(|tree| Generator::program(&tree.current()));
    (0..BATCH).map(|_| program().expect("nothing is rejected")).collect()
}

/// V8's own completion value comes from `eval`, which knows neither `await` nor modules; these programs use none.
#[test]
fn the_rewrite_changes_neither_what_is_printed_nor_the_value() {
    let sources = batch();
    let runs: Vec<_> = sources
        .iter()
        .flat_map(|source| {
            [json!({ "script": format!("\"use strict\";void 0;{source}") }), rewritten(source)]
        })
        .collect();
    let outcomes = run(&runs);
    for (source, pair) in sources.iter().zip(outcomes.chunks(2)) {
        let [script, ours] = pair else { panic!("outcomes come in pairs") };
        let [script, ours] = [script.clone().without_stack(), ours.clone().without_stack()];
        let code = conductor_script::prepare(source).expect("it ran").code;
        assert_eq!(script, ours, "\n{source}\n--- rewritten\n{code}");
    }
    let values = outcomes.iter().filter(|it| it.value.as_deref().is_some_and(|value| value != "undefined"));
    assert!(values.count() > BATCH, "the generator makes programs without values");
}

fn lines_and_columns(text: &str) -> Vec<u32> {
    let ends = |c: char| matches!(c, '\n' | '\r' | '\u{2028}' | '\u{2029}');
    text.replace("\r\n", "\n")
        .split(ends)
        .map(|line| u32::try_from(line.encode_utf16().count()).expect("small"))
        .collect()
}

/// Every position of the code maps into the source, and one past the end of the code to nothing.
fn check_positions(source: &str) {
    let script = match conductor_script::prepare(source) {
        Ok(script) => script,
        Err(error) => return assert!(!error.message.contains("parser failed"), "{source:?}"),
    };
    let user = lines_and_columns(source.strip_prefix('\u{feff}').unwrap_or(source));
    let code = lines_and_columns(&script.code);
    for (index, &length) in code.iter().enumerate() {
        let line = u32::try_from(index).expect("small") + 1;
        for column in (1..=length + 1).step_by(1 + length as usize / 50) {
            let Some((to_line, to_column)) = script.original_position(line, column) else {
                assert!(
                    line == 1 && script.code.contains(RUNTIME),
                    "no place for {line}:{column} of {source:?}"
                );
                continue;
            };
            let user_length = user.get(to_line as usize - 1);
            prop_assert_in_range(source, to_line, to_column, user_length.copied());
        }
    }
    let past = u32::try_from(code.len()).expect("small") + 1;
    assert_eq!(script.original_position(past, 1), None);
}

fn prop_assert_in_range(source: &str, line: u32, column: u32, length: Option<u32>) {
    assert!(length.is_some_and(|length| column <= length + 1), "{line}:{column} is outside of {source:?}");
}

/// Pieces that make trouble next to each other.
const PIECES: [&str; 40] = [
    "(",
    ")",
    "{",
    "}",
    "[",
    "]",
    "<",
    ">",
    "=>",
    "/",
    "`",
    "${",
    "\"",
    "'",
    "//",
    "/*",
    "*/",
    "\n",
    "\r\n",
    "\u{2028}",
    ";",
    ":",
    "?",
    "!",
    "@a ",
    "import x from 'y';",
    "export ",
    "enum E {A}",
    "namespace N {",
    " as T",
    "declare ",
    "abstract ",
    "accessor x;",
    "super()",
    "this",
    "arguments",
    "import.meta",
    "😀",
    "\u{feff}",
    "#!",
];

proptest! {
    #![proptest_config(Config { cases: 400, failure_persistence: None, ..Config::default() })]

    #[test]
    fn arbitrary_text_never_panics(source in any::<String>()) {
        check_positions(&source);
    }

    #[test]
    fn pieces_of_programs_never_panic(pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..30)) {
        check_positions(&pieces.concat());
    }

    #[test]
    fn generated_programs_keep_their_positions(bytes in bytes()) {
        check_positions(&Generator::program(&bytes));
    }

    #[test]
    fn mutations_of_real_programs_never_panic(mutation in mutation()) {
        check_positions(&mutation.apply(&all_programs()));
    }
}

/// A program of the table with some of its text replaced.
#[derive(Clone, Debug)]
struct Mutation {
    program: Index,
    /// Where, how much, by what.
    places: Vec<(Index, Index, &'static str)>,
}

fn all_programs() -> Vec<Program> {
    programs().into_iter().chain(decorated_programs()).collect()
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let place = (any::<Index>(), any::<Index>(), prop::sample::select(&PIECES[..]));
    (any::<Index>(), prop::collection::vec(place, 1..4))
        .prop_map(|(program, places)| Mutation { program, places })
}

impl Mutation {
    fn apply(&self, programs: &[Program]) -> String {
        let mut source = self.program.get(programs).source.clone();
        for (from, length, piece) in &self.places {
            let boundaries: Vec<_> = (0..=source.len()).filter(|&at| source.is_char_boundary(at)).collect();
            let start = from.index(boundaries.len());
            let end = (start + length.index(4)).min(boundaries.len() - 1);
            source.replace_range(boundaries[start]..boundaries[end], piece);
        }
        source
    }
}

/// V8 refuses nothing that was let through, except regular expressions, which it alone checks.
#[test]
fn what_is_let_through_compiles() {
    let programs = all_programs();
    let mut runner = deterministic_runner();
    let mut mutant = || mutation().new_tree(&mut runner).map(|tree| tree.current().apply(&programs));
    let sources: Vec<_> = (0..10 * BATCH).map(|_| mutant().expect("nothing is rejected")).collect();
    let scripts: Vec<_> =
        sources.iter().filter_map(|source| Some((source, conductor_script::prepare(source).ok()?))).collect();
    assert!(scripts.len() > BATCH / 2, "only {} mutants are programs", scripts.len());
    let compiled: Vec<_> =
        scripts.iter().map(|(_, script)| json!({ "compile": script.code, "api": script.api_name })).collect();
    for ((source, script), outcome) in scripts.iter().zip(run(&compiled)) {
        let refused = outcome.throws.filter(|error| !error.contains("regular expression"));
        assert_eq!(refused, None, "\n{source}\n--- rewritten\n{}", script.code);
    }
}
