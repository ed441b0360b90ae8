//! No program overflows the stack, and large ones are fine.

use conductor_script::prepare;

/// Ways to nest: before, inside, after. The first and last are repeated.
const FORMS: [(&str, &str, &str); 70] = [
    ("(", "1", ")"),
    ("(", "", ""),
    ("[", "1", "]"),
    ("[", "", ""),
    ("{", "1", "}"),
    ("{", "", ""),
    ("{a:", "1", "}"),
    ("[...", "1", "]"),
    ("!", "1", ""),
    ("!\n", "1", ""),
    ("-- ", "a", ""),
    ("typeof ", "a", ""),
    ("typeof\n", "a", ""),
    ("await ", "a", ""),
    ("new ", "a", ""),
    ("a=>", "1", ""),
    ("a=>\n", "1", ""),
    ("(a)=>", "1", ""),
    ("async a=>", "1", ""),
    ("(a=", "1", ")=>1"),
    ("(a:", "b", ")=>1"),
    ("(a):b=>", "1", ""),
    ("async(", "1", ")"),
    ("if(a)", "1", ""),
    ("if(a)\n", "1", ""),
    ("if(a);else ", "1", ""),
    ("if(a)b>c,d>e;else ", "1", ""),
    ("if(a){}else ", "1", ""),
    ("if(a)b\nelse ", "1", ""),
    ("while(a)", "1", ""),
    ("for(;;)", "1", ""),
    ("for(a of b)", "1", ""),
    ("do ", "1;", "while(0);"),
    ("do x; while(", "1", ")"),
    ("try{", "1", "}finally{}"),
    ("switch(a){case 1:", "1", "}"),
    ("a:b:c:x,(", "1", ")"),
    ("a=", "1", ""),
    ("a=\n", "1", ""),
    ("a?1:", "1", ""),
    ("a?", "1", ":1"),
    ("a?(b):c=>", "1", ":b"),
    ("a**", "1", ""),
    ("a+", "1", ""),
    ("a&&", "1", ""),
    ("f(", "1", ")"),
    ("f<A>(", "1", ")"),
    ("import(", "1", ")"),
    ("`${", "1", "}`"),
    ("(function(){return ", "1", "})"),
    ("(class{a=", "1", "})"),
    ("(class extends class implements X,Y{}{a=", "1", "})"),
    ("class A{static{", "1", "}}"),
    ("namespace a{", "let x=1", "}"),
    ("<a>", "1", ""),
    ("<a>", "1", "</a>"),
    ("let x:A<", "b", ">"),
    ("{}/))))/;((((", "1", ""),
    ("if(a)/\"/;(", "1", ""),
    ("'\\\r\n';(", "1", ")"),
    ("x as void / (", "1", ""),
    ("@a class extends ", "b", "{}"),
    ("(@a\nclass extends ", "b", "{})"),
    ("@a @b\nclass{x=", "b", "}"),
    ("@a\n@b()\nclass extends ", "b", "{}"),
    ("@a<{}>()\nclass extends ", "b", "{}"),
    ("@{}\nclass extends ", "b", "{}"),
    ("@class{} class extends ", "b", "{}"),
    ("@(class{m(){", "b", "}})class{}"),
    ("a<", "1", ""),
];

/// Chains that repeat behind a first part.
const CHAINS: [(&str, &str); 14] = [
    ("a", ".b"),
    ("a", "?.b"),
    ("a", "()"),
    ("a", "[0]"),
    ("a", "``"),
    ("a", "!"),
    ("a", " as b"),
    ("a", ",b"),
    ("let x: a", "[]"),
    ("let x: a", ".b"),
    ("let x: a", "|b"),
    ("let x: ", "keyof\n"),
    ("let x: ", "()=>"),
    ("let x: import('a')", ".b"),
];

#[test]
fn two_hundred_thousand_levels_are_an_error_or_a_program() {
    for (before, inside, after) in FORMS {
        let (before, after) = (before.repeat(200_000), after.repeat(200_000));
        let deep = prepare(&format!("{before}{inside}{after}"));
        assert!(deep.is_err(), "{}", &before[..20]);
    }
    for (first, link) in CHAINS {
        // A long comma or union is no deep one, so both answers are right.
        let _either = prepare(&format!("{first}{}", link.repeat(200_000)));
    }
}

#[test]
fn what_is_let_through_has_stack_enough() {
    for levels in [500, 1_000, 2_000, 3_900] {
        for (before, inside, after) in FORMS.iter().filter(|(before, ..)| *before != "a<") {
            let _either = prepare(&format!("{}{inside}{}", before.repeat(levels), after.repeat(levels)));
        }
        for (first, link) in CHAINS {
            let _either = prepare(&format!("{first}{}", link.repeat(levels)));
        }
    }
}

#[test]
fn many_decorators_are_no_nesting() {
    let members =
        ["@a @b(1) m() {}\n", "@a\n@b.c({})\nstatic x = {}\n", "@a accessor y = function () {}\n"].concat();
    prepare(&format!("class A {{\n{}}}", members.repeat(1_500))).expect("4500 decorated members");
    let classes: String =
        (0..3_000).map(|n| format!("@a\nclass A{n} {{\n @c m() {{}}\n}}\nf.g.h()\n")).collect();
    prepare(&classes).expect("3000 decorated classes");
}

#[test]
fn nesting_that_people_write_is_fine() {
    for (before, inside, after) in
        [("(", "1", ")"), ("[", "1", "]"), ("f(", "1", ")"), ("if(a){", "1", "}"), ("{", "1", "}")]
    {
        prepare(&format!("{}{inside}{}", before.repeat(300), after.repeat(300))).expect("300 levels");
    }
    prepare(&vec!["'text'"; 1_000].join(" + ")).expect("1000 terms");
    prepare(&format!("{}c", "if (a) { b() } else ".repeat(300))).expect("300 branches");
}

/// Sources that took the checks minutes.
#[test]
fn what_takes_quadratic_time_is_refused() {
    let many = |text: fn(usize) -> String| (0..20_000).map(text).collect::<String>();
    let deep = |text: &str| format!("for(;;){}{text}{}", "{".repeat(3_500), "}".repeat(3_500));
    let labels: String = (0..1_900).map(|n| format!("l{n}:{{")).collect();
    let doubled: String = (0..60).map(|n| format!("a{}=a{n}+a{n},", n + 1)).collect();
    let sources = [
        deep(&many(|n| format!("var x{n};"))),
        deep(&many(|_| "x;y;z;".to_owned())),
        deep(&many(|_| "await x;".to_owned())),
        deep(&many(|_| "continue;continue;continue;".to_owned())),
        format!("{labels}{}{}", "break l0;".repeat(20_000), "}".repeat(1_900)),
        format!("class A{{{}}}", many(|n| format!("#a{n};m{n}(){{this.#a{n}}}"))),
        format!("class A{{{}m(){{{}}}}}", many(|n| format!("#aa{n};")), many(|n| format!("this.#ab{n};"))),
        many(|n| format!("enum E{{a{n}=a0}}")),
        format!("enum E{{a0='text',{doubled}}}"),
        format!("class A{{{}}}", many(|n| format!("@a b{n};@c d{n};"))),
    ];
    for source in sources {
        let Err(error) = prepare(&source) else { panic!("{} is let through", &source[..40]) };
        assert!(error.message.contains("too costly"), "{}: {}", &source[..40], error.message);
        assert!(error.hint.is_some());
    }
    let parameters: String = (0..10_000).map(|n| format!("public a{n},")).collect();
    let supers = format!("class A extends B{{constructor({parameters}){{{}}}}}", "super();".repeat(10_000));
    assert!(prepare(&supers).expect_err("copies").message.contains("parameter properties"));
}

#[test]
fn many_names_of_the_kind_that_is_made_cost_nothing() {
    let names: String = (0..100_000).map(|n| format!("$c{n}_;")).collect();
    let script = prepare(&names).expect("names");
    assert_eq!(script.api_name, "$c100000_");
}

#[test]
fn five_megabytes_are_fine() {
    const BYTES: usize = 5 << 20;
    let flat = [
        "const x = { a: [1.5, -2, 'three'], b: `${4} five` };\n",
        "y = await f(1, (a) => a < 2)\n",
        "if (a) { b(c[0] / 2) } else if (d) e()\n",
        "/* don't ` */ y = /[(\"'`]/.test('it(\"s') // `\n",
    ];
    let mut source = String::with_capacity(BYTES + 200);
    source.push_str("var x, y, f, a, b, c, d, e;\n{\n");
    while source.len() < BYTES {
        source.push_str("{\n");
        source.extend(flat);
        source.push_str("}\n");
    }
    source.push_str("}\n");
    let script = prepare(&source).expect("a large program");
    assert_eq!(script.original_position(4, 5), Some((4, 5)));
    let data = format!("[{}]", "[1, 'two', { three: 4 }],\n".repeat(BYTES / 26));
    prepare(&data).expect("large data");
}
