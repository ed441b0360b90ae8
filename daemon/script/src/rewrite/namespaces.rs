//! `namespace N { export const a = 1 }` becomes `var N;(function(o){o.a = 1})(N||(N={}));`.
//!
//! Exported variables live on the object alone, so that assignments from outside are seen inside; exported functions,
//! classes and enums have a name of their own and are copied to it. A namespace that holds only types is erased.

use oxc_ast::ast::*;
use oxc_ast_visit::Visit;
use oxc_span::Span;

use super::Rewriter;
use super::enums::Export;
use super::modules::member;

impl<'a> Rewriter<'_, 'a> {
    pub(super) fn namespace_declaration(&mut self, it: &TSNamespaceDeclaration<'a>, export: Option<Export>) {
        let span = export.map_or(it.span, |export| export.span);
        if it.declare || !has_code(&it.body) {
            return self.erase_whole(span);
        }
        self.namespace_body(it, span.start, export);
    }

    /// `start` is where the text of this namespace begins: for `B` of `namespace A.B {}` behind the dot.
    fn namespace_body(&mut self, it: &TSNamespaceDeclaration<'a>, start: u32, export: Option<Export>) {
        let object = self.out.names.fresh();
        let head = self.object_head(&it.id.name, it.id.symbol_id.get(), it.id.span, &object);
        let tail = self.object_tail(&it.id.name, export);
        let outer = self.namespace.replace(object.clone());
        self.function_depth += 1;
        match &it.body {
            TSNamespaceDeclarationBody::TSModuleBlock(block) => {
                self.out.edits.replace(start, block.span.start + 1, head);
                self.bind_exported_variables(block, &object);
                self.visit_statements(&block.body);
                self.out.edits.replace(block.span.end - 1, block.span.end, format!(";{tail}"));
            }
            TSNamespaceDeclarationBody::TSNamespaceDeclaration(inner) => {
                self.out.edits.replace(start, inner.id.span.start, head);
                self.namespace_body(inner, inner.id.span.start, Some(Export { span: inner.span }));
                self.out.edits.close(it.span.end, tail);
            }
        }
        self.function_depth -= 1;
        self.namespace = outer;
    }

    fn bind_exported_variables(&mut self, block: &TSModuleBlock<'a>, object: &str) {
        for statement in &block.body {
            let Statement::ExportDeclaration(export) = statement else { continue };
            let mut names = Vec::new();
            match &export.declaration {
                Declaration::VariableDeclaration(it) if !it.declare => {
                    names.extend(it.declarations.iter().flat_map(|it| it.id.get_binding_identifiers()));
                }
                Declaration::TSImportEqualsDeclaration(it) => names.push(&it.id),
                _ => {}
            }
            for name in names {
                if let Some(symbol) = name.symbol_id.get() {
                    self.replaced.insert(symbol, member(object, &name.name));
                }
            }
        }
    }

    pub(super) fn namespace_export(&mut self, it: &ExportDeclaration<'a>) {
        let export = Some(Export { span: it.span });
        match &it.declaration {
            Declaration::VariableDeclaration(variables) if !variables.declare => {
                self.exported_variables(it.span, variables);
            }
            Declaration::FunctionDeclaration(function) if function.body.is_some() && !function.declare => {
                self.copied_export(it, function.id.as_ref());
            }
            Declaration::ClassDeclaration(class) if !class.declare => {
                self.copied_export(it, class.id.as_ref())
            }
            Declaration::TSEnumDeclaration(inner) => self.enumeration(inner, export),
            Declaration::TSNamespaceDeclaration(inner) => self.namespace_declaration(inner, export),
            Declaration::TSImportEqualsDeclaration(import) => self.import_equals(import, export),
            _ => self.erase_whole(it.span),
        }
    }

    /// `export const a = 1, {b} = c` becomes `o.a = 1, ({b: o.b} = c)`.
    fn exported_variables(&mut self, export: Span, it: &VariableDeclaration<'a>) {
        self.out.edits.replace(export.start, it.declarations[0].span.start, ";");
        for declarator in &it.declarations {
            if declarator.init.is_none() {
                self.out.edits.replace(declarator.span.start, declarator.span.end, "0");
                continue;
            }
            self.out.edits.open(declarator.span.start, "(");
            self.visit_variable_declarator(declarator);
            self.out.edits.close(declarator.span.end, ")");
        }
        self.out.edits.close(export.end, ";");
    }

    fn copied_export(&mut self, it: &ExportDeclaration<'a>, id: Option<&BindingIdentifier<'a>>) {
        self.erase_export(it);
        self.visit_declaration(&it.declaration);
        if let (Some(outer), Some(id)) = (&self.namespace, id) {
            self.out.edits.close(it.span.end, format!(";{}={};", member(outer, &id.name), id.name));
        }
    }

    /// `import a = N.b` becomes `const a = N.b` when it is used as a value.
    pub(super) fn import_equals(&mut self, it: &TSImportEqualsDeclaration<'a>, export: Option<Export>) {
        let span = export.map_or(it.span, |export| export.span);
        match &it.module_reference {
            TSModuleReference::ExternalModuleReference(_) => self.unsupported(
                it.span.start,
                "`import x = require(\"m\")` is CommonJS syntax",
                "use `import x from \"m\"`",
            ),
            _ => self.import_alias(it, span, export),
        }
    }

    fn import_alias(&mut self, it: &TSImportEqualsDeclaration<'a>, span: Span, export: Option<Export>) {
        let symbol = it.id.symbol_id.get();
        let used = export.is_some() || symbol.is_some_and(|symbol| self.has_value_references(symbol));
        if it.import_kind.is_type() || !used {
            return self.erase_whole(span);
        }
        let name = match symbol.and_then(|symbol| self.replaced.get(&symbol)) {
            Some(exported) => exported.clone(),
            None => format!("const {}", it.id.name),
        };
        self.out.edits.replace(span.start, it.id.span.end, name);
        self.qualified_name(&it.module_reference);
    }

    fn qualified_name(&mut self, it: &TSModuleReference<'a>) {
        let mut left = match it {
            TSModuleReference::QualifiedName(name) => &name.left,
            TSModuleReference::IdentifierReference(name) => return self.visit_identifier_reference(name),
            TSModuleReference::ExternalModuleReference(_) => return,
        };
        loop {
            match left {
                TSTypeName::QualifiedName(name) => left = &name.left,
                TSTypeName::IdentifierReference(name) => return self.visit_identifier_reference(name),
                TSTypeName::ThisExpression(_) => return,
            }
        }
    }
}

/// False when a namespace holds nothing but types.
fn has_code(body: &TSNamespaceDeclarationBody<'_>) -> bool {
    match body {
        TSNamespaceDeclarationBody::TSNamespaceDeclaration(inner) => has_code(&inner.body),
        TSNamespaceDeclarationBody::TSModuleBlock(block) => {
            block.body.iter().any(|statement| match statement {
                Statement::ExportDeclaration(export) => is_code(&export.declaration),
                other => other.as_declaration().is_none_or(is_code),
            })
        }
    }
}

fn is_code(declaration: &Declaration<'_>) -> bool {
    match declaration {
        Declaration::TSTypeAliasDeclaration(_) | Declaration::TSInterfaceDeclaration(_) => false,
        Declaration::TSNamespaceDeclaration(it) => !it.declare && has_code(&it.body),
        other => !other.declare(),
    }
}
