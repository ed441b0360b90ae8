//! Imports, exports, `import.meta` and the bindings that a module has and a function body has not.
//!
//! Static imports become awaited dynamic ones in the head of the program, in order, so all of them are evaluated before
//! the body. A name imported from a module is then read from its namespace object wherever it is used, which keeps the
//! binding live. As in Deno, an import of which no name is used as a value is dropped; `import "m"` and `import {} from
//! "m"` are kept.

use std::collections::HashSet;

use oxc_ast::ast::*;
use oxc_ast_visit::Visit;
use oxc_semantic::SymbolId;
use oxc_span::{GetSpan, Span};
use oxc_syntax::scope::ScopeFlags;

use super::enums::Export;
use super::{ImportSite, Refusal, Rewriter};

impl<'a> Rewriter<'_, 'a> {
    /// Adds the imports to the head of the program and learns which names they bind.
    pub(super) fn hoist_imports(&mut self, program: &Program<'a>) {
        for statement in &program.body {
            match statement {
                Statement::ImportDeclaration(it) => self.hoist_import(it),
                Statement::ExportAllDeclaration(it) if it.export_kind.is_value() => {
                    self.import_for_effects(&it.source, it.with_clause.as_deref());
                }
                Statement::ExportFromDeclaration(it) if it.export_kind.is_value() => {
                    self.import_for_effects(&it.source, it.with_clause.as_deref());
                }
                _ => {}
            }
        }
    }

    fn hoist_import(&mut self, it: &ImportDeclaration<'a>) {
        if it.import_kind.is_type() {
            return;
        }
        if it.phase.is_some() {
            return self.refuse_phase(it.span.start);
        }
        let with = it.with_clause.as_deref();
        let Some(specifiers) = it.specifiers.as_ref().filter(|specifiers| !specifiers.is_empty()) else {
            return self.import_for_effects(&it.source, with);
        };
        let used: Vec<_> = specifiers.iter().filter(|specifier| self.is_used_as_value(specifier)).collect();
        if used.is_empty() {
            return;
        }
        let module = used.iter().find_map(|specifier| match specifier {
            ImportDeclarationSpecifier::ImportNamespaceSpecifier(it) => Some(it.local.name.to_string()),
            _ => None,
        });
        let module = module.unwrap_or_else(|| self.out.names.fresh());
        let import = self.import_call(&it.source, with);
        self.out.edits.head(format!("const {module}={import};"), it.source.span.start);
        for specifier in used {
            self.bind(specifier, &module, &it.source.value);
        }
    }

    fn bind(&mut self, specifier: &ImportDeclarationSpecifier<'a>, module: &str, source: &str) {
        let (local, name) = match specifier {
            ImportDeclarationSpecifier::ImportSpecifier(it) => (&it.local, it.imported.name().to_string()),
            ImportDeclarationSpecifier::ImportDefaultSpecifier(it) => (&it.local, "default".to_owned()),
            ImportDeclarationSpecifier::ImportNamespaceSpecifier(_) => return,
        };
        let message = format!("The requested module '{source}' does not provide an export named '{name}'");
        let check = format!("if(!({} in {module}))throw new SyntaxError({});", quote(&name), quote(&message));
        self.out.edits.head(check, specifier.span().start);
        if let Some(symbol) = local.symbol_id.get() {
            self.replaced.insert(symbol, member(module, &name));
        }
    }

    fn import_for_effects(&mut self, source: &StringLiteral<'a>, with: Option<&WithClause<'a>>) {
        let import = self.import_call(source, with);
        self.out.edits.head(format!("{import};"), source.span.start);
    }

    fn import_call(&mut self, source: &StringLiteral<'a>, with: Option<&WithClause<'a>>) -> String {
        self.out.imports.push(ImportSite {
            specifier: source.value.to_string(),
            offset: source.span.start,
            dynamic: false,
        });
        let attributes = with.map(|clause| {
            let entries = clause.with_entries.iter().map(|entry| {
                let key = match &entry.key {
                    ImportAttributeKey::Identifier(it) => it.name.as_str(),
                    ImportAttributeKey::StringLiteral(it) => it.value.as_str(),
                };
                format!("{}:{}", quote(key), quote(&entry.value.value))
            });
            format!(",{{with:{{{}}}}}", entries.collect::<Vec<_>>().join(","))
        });
        format!(
            "await {}.import({}{})",
            self.out.names.api(),
            quote(&source.value),
            attributes.unwrap_or_default()
        )
    }

    fn is_used_as_value(&self, specifier: &ImportDeclarationSpecifier<'a>) -> bool {
        let local = match specifier {
            ImportDeclarationSpecifier::ImportSpecifier(it) if it.import_kind.is_type() => return false,
            ImportDeclarationSpecifier::ImportSpecifier(it) => &it.local,
            ImportDeclarationSpecifier::ImportDefaultSpecifier(it) => &it.local,
            ImportDeclarationSpecifier::ImportNamespaceSpecifier(it) => &it.local,
        };
        local.symbol_id.get().is_some_and(|symbol| self.has_value_references(symbol))
    }

    pub(super) fn has_value_references(&self, symbol: SymbolId) -> bool {
        self.scoping.get_resolved_references(symbol).any(|reference| {
            let flags = reference.flags();
            flags.is_value() && !flags.is_value_as_type()
        })
    }

    pub(super) fn dynamic_import(&mut self, it: &ImportExpression<'a>) {
        if it.phase.is_some() {
            return self.refuse_phase(it.span.start);
        }
        let specifier = match &it.source {
            Expression::StringLiteral(literal) => Some(literal.value.to_string()),
            Expression::TemplateLiteral(literal) => literal.single_quasi().map(|quasi| quasi.to_string()),
            _ => None,
        };
        if let Some(specifier) = specifier {
            self.out.imports.push(ImportSite { specifier, offset: it.source.span().start, dynamic: true });
        }
        if let Some(keyword) = self.token("import", it.span.start, it.source.span().start) {
            let text = format!("{}.import", self.out.names.api());
            self.out.edits.replace(keyword.start, keyword.end, text);
        }
    }

    fn refuse_phase(&mut self, offset: u32) {
        self.unsupported(
            offset,
            "`import defer` and `import source` cannot be run here",
            "use a plain import",
        );
    }

    /// What a reference becomes; `None` when it stays as it is.
    pub(super) fn replacement(&self, it: &IdentifierReference<'a>) -> Option<String> {
        if self.is_module_arguments(it) {
            return Some("(()=>{throw new ReferenceError(\"arguments is not defined\")})()".to_owned());
        }
        let symbol = self.scoping.get_reference(it.reference_id.get()?).symbol_id()?;
        self.replaced.get(&symbol).cloned()
    }

    /// A module has no `arguments`, but the function that runs it has.
    pub(super) fn is_module_arguments(&self, it: &IdentifierReference<'a>) -> bool {
        self.function_depth == 0 && it.name == "arguments"
    }

    /// What is called must not get the object it is read from as `this`.
    pub(super) fn callee(&mut self, callee: &Expression<'a>) {
        match callee {
            Expression::Identifier(name) => {
                if let Some(text) = self.replacement(name) {
                    self.out.edits.replace(name.span.start, name.span.end, format!("(0,{text})"));
                }
            }
            Expression::ParenthesizedExpression(it) => self.callee(&it.expression),
            Expression::TSNonNullExpression(it) => {
                self.callee(&it.expression);
                self.erase(Span::new(it.expression.span().end, it.span.end));
            }
            Expression::TSAsExpression(it) => {
                self.callee(&it.expression);
                self.erase(Span::new(it.expression.span().end, it.span.end));
            }
            Expression::TSSatisfiesExpression(it) => {
                self.callee(&it.expression);
                self.erase(Span::new(it.expression.span().end, it.span.end));
            }
            _ => self.visit_expression(callee),
        }
    }

    pub(super) fn export_declaration(&mut self, it: &ExportDeclaration<'a>) {
        if self.namespace.is_some() {
            return self.namespace_export(it);
        }
        match &it.declaration {
            Declaration::TSImportEqualsDeclaration(import) => {
                self.import_equals(import, Some(Export { span: it.span }))
            }
            Declaration::TSTypeAliasDeclaration(_)
            | Declaration::TSInterfaceDeclaration(_)
            | Declaration::TSExternalModuleDeclaration(_)
            | Declaration::TSGlobalDeclaration(_) => self.erase_whole(it.span),
            other => {
                self.erase_export(it);
                self.visit_declaration(other);
                if matches!(other, Declaration::VariableDeclaration(_)) {
                    self.end_erased(it.span);
                }
            }
        }
    }

    /// Erases `export`; decorators may stand before or behind it.
    pub(super) fn erase_export(&mut self, it: &ExportDeclaration<'a>) {
        let declaration = it.declaration.span();
        let from = match &it.declaration {
            Declaration::ClassDeclaration(class) => behind_decorators(it.span.start, class),
            _ => it.span.start,
        };
        self.erase(Span::new(from, declaration.start));
    }

    /// `export {a, b as c}` is only checked.
    pub(super) fn export_names(&mut self, it: &ExportNamedDeclaration<'a>) {
        let values = it.specifiers.iter().filter(|it| it.export_kind.is_value());
        for specifier in values.filter(|_| it.export_kind.is_value()) {
            let ModuleExportName::IdentifierReference(name) = &specifier.local else { continue };
            let symbol = name.reference_id.get().and_then(|id| self.scoping.get_reference(id).symbol_id());
            if symbol.is_none() {
                let message = format!("Export '{}' is not defined in module", name.name);
                self.refuse(Refusal { offset: name.span.start, message, hint: None });
            }
        }
        self.erase_whole(it.span);
    }

    /// A module declares a function once; the body of a function may do so twice.
    pub(super) fn refuse_repeated_functions(&mut self, program: &Program<'a>) {
        let mut names = HashSet::new();
        for statement in &program.body {
            let function = match statement {
                Statement::FunctionDeclaration(it) => Some(it),
                Statement::ExportDeclaration(it) => match &it.declaration {
                    Declaration::FunctionDeclaration(it) => Some(it),
                    _ => None,
                },
                Statement::ExportDefaultDeclaration(it) => match &it.declaration {
                    ExportDefaultDeclarationKind::FunctionDeclaration(it) => Some(it),
                    _ => None,
                },
                _ => None,
            };
            let Some(id) = function.filter(|it| it.body.is_some()).and_then(|it| it.id.as_ref()) else {
                continue;
            };
            if !names.insert(id.name) {
                let message = format!("Identifier `{}` has already been declared", id.name);
                self.refuse(Refusal { offset: id.span.start, message, hint: None });
            }
        }
    }

    pub(super) fn export_default(&mut self, it: &ExportDefaultDeclaration<'a>) {
        let declaration = it.declaration.span();
        let keywords = Span::new(it.span.start, declaration.start);
        match &it.declaration {
            ExportDefaultDeclarationKind::TSInterfaceDeclaration(_) => self.erase_whole(it.span),
            ExportDefaultDeclarationKind::FunctionDeclaration(function) if function.body.is_none() => {
                self.erase_whole(it.span);
            }
            ExportDefaultDeclarationKind::FunctionDeclaration(function) if function.id.is_some() => {
                self.erase(keywords);
                self.visit_function(function, ScopeFlags::Function);
            }
            ExportDefaultDeclarationKind::ClassDeclaration(class)
                if class.id.is_some() || !class.decorators.is_empty() =>
            {
                self.erase(Span::new(behind_decorators(it.span.start, class), declaration.start));
                self.visit_class(class);
            }
            // A function or class without a name is evaluated in place, as in a module, and is no value.
            ExportDefaultDeclarationKind::FunctionDeclaration(function) => {
                self.out.edits.replace(keywords.start, keywords.end, ";(");
                self.visit_function(function, ScopeFlags::Function);
                self.out.edits.close(declaration.end, ");");
            }
            ExportDefaultDeclarationKind::ClassDeclaration(class) => {
                self.out.edits.replace(keywords.start, keywords.end, ";(");
                self.visit_class(class);
                self.out.edits.close(declaration.end, ");");
            }
            expression => {
                // In parentheses, or `{a: 1}` would be a block.
                self.out.edits.replace(keywords.start, keywords.end, ";(");
                if let Some(expression) = expression.as_expression() {
                    self.visit_expression(expression);
                }
                self.out.edits.close(declaration.end, ")");
                self.value_of(it.span, declaration);
            }
        }
    }
}

/// Where the keywords in front of an exported class begin.
fn behind_decorators(export: u32, class: &Class<'_>) -> u32 {
    match class.decorators.last() {
        Some(last) if last.span.end <= class.span.start => last.span.end,
        _ => export,
    }
}

/// `object.name`, or `object["name"]` where `name` is no identifier.
pub(super) fn member(object: &str, name: &str) -> String {
    if oxc_syntax::identifier::is_identifier_name(name) {
        format!("{object}.{name}")
    } else {
        format!("{object}[{}]", quote(name))
    }
}

/// `text` as a string literal.
pub(super) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\u{2028}' | '\u{2029}' => quoted.extend(c.escape_unicode()),
            _ => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
