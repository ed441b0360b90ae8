//! The rewrite: from the syntax tree of a TypeScript module to edits that make it the body of an async function.
//!
//! One walk over the tree, in source order. What belongs together is in one file: [`types`] erases type syntax,
//! [`modules`] deals with imports, exports and `import.meta`, [`classes`] with parameter properties and accessors,
//! [`decorators`] with decorators, [`enums`] and [`namespaces`] with the declarations that TypeScript turns into code. This file holds the walk itself and
//! the completion value.

mod classes;
mod decorators;
mod enums;
mod modules;
mod namespaces;
mod types;

use std::collections::HashMap;

use oxc_ast::ast::*;
use oxc_ast_visit::{Visit, walk};
use oxc_semantic::Scoping;
use oxc_span::{GetSpan, Span};
use oxc_syntax::scope::ScopeFlags;
use oxc_syntax::symbol::SymbolId;

use crate::completion::{self, Plan, Reset};
use crate::edits::{Edits, blank};
use crate::names::Names;
use decorators::DecoratedClass;

/// A literal module specifier, as a byte offset.
#[derive(Debug)]
pub(crate) struct ImportSite {
    pub(crate) specifier: String,
    pub(crate) offset: u32,
    pub(crate) dynamic: bool,
}

/// A program that parses but cannot be run here.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) offset: u32,
    pub(crate) message: String,
    pub(crate) hint: Option<&'static str>,
}

/// What the walk found.
#[derive(Debug)]
pub(crate) struct Rewritten {
    pub(crate) edits: Edits,
    pub(crate) names: Names,
    pub(crate) imports: Vec<ImportSite>,
    pub(crate) refusal: Option<Refusal>,
}

/// Walks `program` and collects the edits.
pub(crate) fn rewrite<'s, 'a>(source: &'a str, program: &'s Program<'a>, scoping: &'s Scoping) -> Rewritten {
    let mut rewriter = Rewriter {
        source,
        program,
        scoping,
        plan: completion::plan(program),
        out: Rewritten {
            edits: Edits::default(),
            names: Names::new(source),
            imports: Vec::new(),
            refusal: None,
        },
        variables: Vec::new(),
        replaced: HashMap::new(),
        function_depth: 0,
        namespace: None,
        constructor_assignments: None,
        assigned: 0,
        decorated: None,
        storages: HashMap::new(),
        runtime: None,
        class_names: None,
        erased_to: 0,
    };
    rewriter.program(program);
    rewriter.out
}

struct Rewriter<'s, 'a> {
    source: &'a str,
    program: &'s Program<'a>,
    scoping: &'s Scoping,
    plan: Plan,
    out: Rewritten,
    /// Variables of the made code, declared in its head.
    variables: Vec<String>,
    /// Bindings that the made code reaches through an object: imports, exported variables of namespaces, enum members.
    replaced: HashMap<SymbolId, String>,
    /// How many functions that have their own `arguments` the walk is in.
    function_depth: u32,
    /// The object of the namespace whose body the walk is in.
    namespace: Option<String>,
    /// What a derived constructor must run behind `super()`.
    constructor_assignments: Option<String>,
    /// The length of all copies of them that were inserted behind `super()`.
    assigned: usize,
    /// The class whose body the walk is in, when something of it is decorated.
    decorated: Option<DecoratedClass>,
    /// The private fields behind private accessors that are decorated, by the offset of the accessor.
    storages: HashMap<u32, String>,
    /// The constant that holds the runtime of decorators, once it is needed.
    runtime: Option<String>,
    /// The names of anonymous classes by offset, once they are needed.
    class_names: Option<HashMap<u32, String>>,
    /// Where the last erased end of an expression or declaration ends.
    erased_to: u32,
}

impl<'a> Rewriter<'_, 'a> {
    fn program(&mut self, program: &Program<'a>) {
        if let Some(hashbang) = &program.hashbang {
            self.erase(hashbang.span);
        }
        let value = self.out.names.value();
        if !self.plan.values.is_empty() {
            self.variables.push(value.clone());
        }
        self.out.edits.head("\"use strict\";", 0);
        self.refuse_repeated_functions(program);
        self.hoist_imports(program);
        for directive in &program.directives {
            self.value_of(directive.span, directive.expression.span);
        }
        self.visit_statements(&program.body);
        self.hoist_decorator_runtime();
        if !self.variables.is_empty() {
            self.out.edits.head(format!("let {};", self.variables.join(",")), 0);
        }
        if !self.plan.values.is_empty() {
            self.out.edits.close(self.source_end(), format!("\nreturn {value};"));
        }
    }

    /// Makes the expression of a statement the value of the program when the plan says so, and ends the statement
    /// where its own end may have been erased.
    fn value_of(&mut self, statement: Span, expression: Span) {
        let open = self.source.as_bytes()[statement.end as usize - 1] != b';';
        let planned = self.plan.values.contains(&statement.start);
        if planned {
            // As a member of a sequence an anonymous function is not named after the variable.
            let text = format!("{}=(0,", self.out.names.value());
            self.out.edits.open_statement(expression.start, text);
            self.out.edits.close(expression.end, ")");
        }
        if open && (planned || self.erased_to == statement.end) {
            self.out.edits.close(statement.end, ";");
        }
    }

    /// Ends a statement or class element whose last characters were erased: the next line could continue it otherwise.
    fn end_erased(&mut self, span: Span) {
        if self.erased_to == span.end && !self.text(span).ends_with(';') {
            self.out.edits.close(span.end, ";");
        }
    }

    fn text(&self, span: Span) -> &'a str {
        &self.source[span.start as usize..span.end as usize]
    }

    fn source_end(&self) -> u32 {
        u32::try_from(self.source.len()).expect("the parser refuses sources near 4 GiB")
    }

    /// Replaces a range by spaces; lines and columns stay.
    fn erase(&mut self, span: Span) {
        if !span.is_empty() {
            self.out.edits.replace(span.start, span.end, blank(self.text(span)));
            self.erased_to = span.end;
        }
    }

    /// Replaces a range by spaces without line ends, where a line end would change the meaning.
    fn erase_in_line(&mut self, span: Span) {
        if !span.is_empty() {
            self.out.edits.replace(span.start, span.end, " ");
            self.erased_to = span.end;
        }
    }

    /// Replaces a statement or class element by an empty one, so that its neighbours stay apart.
    fn erase_whole(&mut self, span: Span) {
        let text = format!(";{}", &blank(self.text(span))[1..]);
        self.out.edits.replace(span.start, span.end, text);
    }

    /// The first occurrence of `token` in a gap between two nodes, outside comments.
    fn token(&self, token: &str, from: u32, to: u32) -> Option<Span> {
        self.tokens(from, to).find(|&(_, word)| word == token).map(|(span, _)| span)
    }

    /// The words and single punctuators in a gap between two nodes, outside comments.
    fn tokens(&self, from: u32, to: u32) -> impl Iterator<Item = (Span, &'a str)> + use<'a> {
        let (source, mut at, to) = (self.source, from as usize, to as usize);
        std::iter::from_fn(move || {
            let start = skip_blank(&source[..to], at);
            let rest = &source[start..to];
            let first = rest.chars().next()?;
            let word = |c: char| c.is_alphanumeric() || c == '$' || c == '_';
            let len =
                if word(first) { rest.find(|c| !word(c)).unwrap_or(rest.len()) } else { first.len_utf8() };
            at = start + len;
            let offset = |at: usize| u32::try_from(at).expect("the parser refuses sources near 4 GiB");
            Some((Span::new(offset(start), offset(at)), &rest[..len]))
        })
    }

    fn unsupported(&mut self, offset: u32, message: &str, hint: &'static str) {
        self.refuse(Refusal { offset, message: message.to_owned(), hint: Some(hint) });
    }

    fn refuse(&mut self, refused: Refusal) {
        self.out.refusal.get_or_insert(refused);
    }
}

/// The first offset from `at` on that is neither white space nor in a comment.
pub(crate) fn skip_blank(source: &str, mut at: usize) -> usize {
    loop {
        let rest = &source[at..];
        let trimmed = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
        at += rest.len() - trimmed.len();
        at += match trimmed {
            t if t.starts_with("//") => t.find(crate::edits::is_line_end).unwrap_or(t.len()),
            t if t.starts_with("/*") => t.find("*/").map_or(t.len(), |end| end + 2),
            _ => return at,
        };
    }
}

impl<'a> Visit<'a> for Rewriter<'_, 'a> {
    fn visit_statements(&mut self, statements: &oxc_allocator::Vec<'a, Statement<'a>>) {
        for statement in statements {
            self.visit_statement(statement);
            let start = statement.span().start;
            let is_expression = matches!(statement, Statement::ExpressionStatement(_));
            if is_expression
                && !self.plan.values.contains(&start)
                && self.out.edits.opens_parenthesis_at(start)
            {
                // The line before it may end without a semicolon.
                self.out.edits.open_statement(start, ";");
            }
        }
    }

    fn visit_statement(&mut self, it: &Statement<'a>) {
        let span = it.span();
        let reset = self.plan.resets.get(&span.start).copied();
        if let Some(reset) = reset {
            let block = if reset == Reset::InBlock { "{" } else { "" };
            let text = format!("{block}{}=void 0;", self.out.names.value());
            self.out.edits.open_statement(span.start, text);
        }
        walk::walk_statement(self, it);
        if matches!(
            it,
            Statement::VariableDeclaration(_) | Statement::ReturnStatement(_) | Statement::ThrowStatement(_)
        ) {
            self.end_erased(span);
        }
        if reset == Some(Reset::InBlock) {
            self.out.edits.close(span.end, "}");
        }
    }

    fn visit_expression_statement(&mut self, it: &ExpressionStatement<'a>) {
        self.visit_expression(&it.expression);
        self.value_of(it.span, it.expression.span());
    }

    fn visit_try_statement(&mut self, it: &TryStatement<'a>) {
        let kept =
            it.finalizer.as_ref().map(|block| block.span).filter(|span| self.plan.kept.contains(&span.start));
        if let Some(block) = kept {
            let (value, backup) = (self.out.names.value(), self.out.names.fresh());
            self.out.edits.open_statement(block.start + 1, format!("{backup}={value};{value}=void 0;"));
            self.out.edits.close(block.end - 1, format!(";{value}={backup};"));
            self.variables.push(backup);
        }
        walk::walk_try_statement(self, it);
    }

    fn visit_function(&mut self, it: &Function<'a>, flags: ScopeFlags) {
        if it.body.is_none() {
            return self.erase_whole(it.span);
        }
        self.function_depth += 1;
        walk::walk_function(self, it, flags);
        self.function_depth -= 1;
    }

    fn visit_identifier_reference(&mut self, it: &IdentifierReference<'a>) {
        if let Some(text) = self.replacement(it) {
            self.out.edits.replace(it.span.start, it.span.end, text);
        }
    }

    fn visit_object_property(&mut self, it: &ObjectProperty<'a>) {
        if !it.shorthand {
            return walk::walk_object_property(self, it);
        }
        if let Expression::Identifier(value) = &it.value
            && let Some(text) = self.replacement(value)
        {
            self.out.edits.close(it.span.end, format!(": {text}"));
        }
    }

    fn visit_assignment_target_property_identifier(&mut self, it: &AssignmentTargetPropertyIdentifier<'a>) {
        if let Some(text) = self.replacement(&it.binding) {
            self.out.edits.close(it.binding.span.end, format!(": {text}"));
        }
        if let Some(init) = &it.init {
            self.visit_expression(init);
        }
    }

    fn visit_unary_expression(&mut self, it: &UnaryExpression<'a>) {
        match &it.argument {
            Expression::Identifier(name)
                if it.operator == UnaryOperator::Typeof && self.is_module_arguments(name) =>
            {
                self.out.edits.replace(name.span.start, name.span.end, "void 0");
            }
            _ => walk::walk_unary_expression(self, it),
        }
    }

    fn visit_call_expression(&mut self, it: &CallExpression<'a>) {
        self.callee(&it.callee);
        if let Some(types) = &it.type_arguments {
            self.visit_ts_type_parameter_instantiation(types);
        }
        self.visit_arguments(&it.arguments);
        if it.callee.is_super() {
            self.super_call(it);
        }
    }

    fn visit_tagged_template_expression(&mut self, it: &TaggedTemplateExpression<'a>) {
        self.callee(&it.tag);
        if let Some(types) = &it.type_arguments {
            self.visit_ts_type_parameter_instantiation(types);
        }
        self.visit_template_literal(&it.quasi);
    }

    fn visit_import_expression(&mut self, it: &ImportExpression<'a>) {
        self.dynamic_import(it);
        walk::walk_import_expression(self, it);
    }

    fn visit_import_meta(&mut self, it: &ImportMeta) {
        let text = format!("{}.meta", self.out.names.api());
        self.out.edits.replace(it.span.start, it.span.end, text);
    }

    fn visit_import_declaration(&mut self, it: &ImportDeclaration<'a>) {
        self.erase_whole(it.span);
    }

    fn visit_export_all_declaration(&mut self, it: &ExportAllDeclaration<'a>) {
        self.erase_whole(it.span);
    }

    fn visit_export_from_declaration(&mut self, it: &ExportFromDeclaration<'a>) {
        self.erase_whole(it.span);
    }

    fn visit_export_named_declaration(&mut self, it: &ExportNamedDeclaration<'a>) {
        self.export_names(it);
    }

    fn visit_ts_namespace_export_declaration(&mut self, it: &TSNamespaceExportDeclaration<'a>) {
        self.erase_whole(it.span);
    }

    fn visit_ts_export_assignment(&mut self, it: &TSExportAssignment<'a>) {
        self.unsupported(
            it.span.start,
            "`export =` is CommonJS syntax",
            "this code runs as an ES module: use `export default`",
        );
    }

    fn visit_export_declaration(&mut self, it: &ExportDeclaration<'a>) {
        self.export_declaration(it);
    }

    fn visit_export_default_declaration(&mut self, it: &ExportDefaultDeclaration<'a>) {
        self.export_default(it);
    }

    fn visit_variable_declaration(&mut self, it: &VariableDeclaration<'a>) {
        if it.declare {
            return self.erase_whole(it.span);
        }
        walk::walk_variable_declaration(self, it);
    }

    fn visit_variable_declarator(&mut self, it: &VariableDeclarator<'a>) {
        self.visit_binding_pattern(&it.id);
        if it.definite {
            self.erase_marker("!", it.id.span().end, it.span.end);
        }
        if let Some(annotation) = &it.type_annotation {
            self.visit_ts_type_annotation(annotation);
        }
        if let Some(init) = &it.init {
            self.visit_expression(init);
        }
    }

    fn visit_binding_identifier(&mut self, it: &BindingIdentifier<'a>) {
        // Only the exported variables of a namespace have a binding that is not a name of its own.
        if let Some(text) = it.symbol_id.get().and_then(|symbol| self.replaced.get(&symbol)) {
            self.out.edits.replace(it.span.start, it.span.end, text.clone());
        }
    }

    fn visit_binding_property(&mut self, it: &BindingProperty<'a>) {
        if it.shorthand {
            let name = match &it.value {
                BindingPattern::BindingIdentifier(name) => Some(name),
                BindingPattern::AssignmentPattern(pattern) => match &pattern.left {
                    BindingPattern::BindingIdentifier(name) => Some(name),
                    _ => None,
                },
                _ => None,
            };
            if let Some(name) = name
                && name.symbol_id.get().is_some_and(|symbol| self.replaced.contains_key(&symbol))
            {
                self.out.edits.open(name.span.start, format!("{}: ", name.name));
            }
            return self.visit_binding_pattern(&it.value);
        }
        walk::walk_binding_property(self, it);
    }

    fn visit_formal_parameter(&mut self, it: &FormalParameter<'a>) {
        self.formal_parameter(it);
    }

    fn visit_class(&mut self, it: &Class<'a>) {
        self.class(it);
    }

    fn visit_ts_enum_declaration(&mut self, it: &TSEnumDeclaration<'a>) {
        self.enumeration(it, None);
    }

    fn visit_ts_namespace_declaration(&mut self, it: &TSNamespaceDeclaration<'a>) {
        self.namespace_declaration(it, None);
    }

    fn visit_ts_import_equals_declaration(&mut self, it: &TSImportEqualsDeclaration<'a>) {
        self.import_equals(it, None);
    }

    fn visit_ts_external_module_declaration(&mut self, it: &TSExternalModuleDeclaration<'a>) {
        self.erase_whole(it.span);
    }

    fn visit_ts_global_declaration(&mut self, it: &TSGlobalDeclaration<'a>) {
        self.erase_whole(it.span);
    }

    fn visit_ts_interface_declaration(&mut self, it: &TSInterfaceDeclaration<'a>) {
        self.erase_whole(it.span);
    }

    fn visit_ts_type_alias_declaration(&mut self, it: &TSTypeAliasDeclaration<'a>) {
        self.erase_whole(it.span);
    }

    fn visit_ts_type_annotation(&mut self, it: &TSTypeAnnotation<'a>) {
        self.erase(it.span);
    }

    fn visit_ts_type_parameter_declaration(&mut self, it: &TSTypeParameterDeclaration<'a>) {
        self.erase(it.span);
    }

    fn visit_ts_type_parameter_instantiation(&mut self, it: &TSTypeParameterInstantiation<'a>) {
        self.erase(it.span);
    }

    fn visit_ts_this_parameter(&mut self, it: &TSThisParameter<'a>) {
        self.this_parameter(it);
    }

    fn visit_arrow_function_expression(&mut self, it: &ArrowFunctionExpression<'a>) {
        self.arrow_function(it);
    }

    fn visit_ts_as_expression(&mut self, it: &TSAsExpression<'a>) {
        self.visit_expression(&it.expression);
        self.erase(Span::new(it.expression.span().end, it.span.end));
    }

    fn visit_ts_satisfies_expression(&mut self, it: &TSSatisfiesExpression<'a>) {
        self.visit_expression(&it.expression);
        self.erase(Span::new(it.expression.span().end, it.span.end));
    }

    fn visit_ts_non_null_expression(&mut self, it: &TSNonNullExpression<'a>) {
        self.visit_expression(&it.expression);
        self.erase(Span::new(it.expression.span().end, it.span.end));
    }

    fn visit_ts_instantiation_expression(&mut self, it: &TSInstantiationExpression<'a>) {
        self.visit_expression(&it.expression);
        self.erase(Span::new(it.expression.span().end, it.span.end));
    }

    fn visit_ts_type_assertion(&mut self, it: &TSTypeAssertion<'a>) {
        self.type_assertion(it);
    }
}
