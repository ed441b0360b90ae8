//! `enum E { A, B = "x" }` becomes `var E;(function(o){o[o["A"]=0]="A";o["B"]="x"})(E||(E={}));`.
//!
//! A `const enum` is an enum like any other here.

use oxc_ast::ast::{Expression, TSEnumDeclaration, TSEnumMember, TSEnumMemberName};
use oxc_ast_visit::Visit;
use oxc_semantic::SymbolId;
use oxc_span::{GetSpan, Span};
use oxc_syntax::constant_value::ConstantValue;
use oxc_syntax::scope::ScopeId;
use oxc_syntax::symbol::SymbolFlags;

use super::Rewriter;
use super::modules::{member, quote};

/// How a declaration is exported from the namespace around it.
#[derive(Clone, Copy)]
pub(super) struct Export {
    /// The whole statement, `export` included.
    pub(super) span: Span,
}

impl<'a> Rewriter<'_, 'a> {
    pub(super) fn enumeration(&mut self, it: &TSEnumDeclaration<'a>, export: Option<Export>) {
        let span = export.map_or(it.span, |export| export.span);
        if it.declare {
            return self.erase_whole(span);
        }
        let object = self.out.names.fresh();
        self.bind_members(it, &object);
        let head = self.object_head(&it.id.name, it.id.symbol_id.get(), it.id.span, &object);
        self.out.edits.replace(span.start, it.body.span.start + 1, head);
        let last = it.body.span.end - 1;
        for (index, enum_member) in it.body.members.iter().enumerate() {
            self.enum_member(enum_member, it.body.scope_id.get(), &object);
            let next = it.body.members.get(index + 1).map_or(last, |next| next.span.start);
            if let Some(comma) = self.token(",", enum_member.span.end, next) {
                self.out.edits.replace(comma.start, comma.end, ";");
            }
        }
        let tail = self.object_tail(&it.id.name, export);
        self.out.edits.replace(last, it.body.span.end, tail);
    }

    /// Members are in scope by their bare names in the initializers of the enum.
    fn bind_members(&mut self, it: &TSEnumDeclaration<'a>, object: &str) {
        let Some(scope) = it.body.scope_id.get() else { return };
        for (name, symbol) in self.scoping.get_bindings(scope) {
            self.replaced.insert(*symbol, member(object, name));
        }
    }

    fn enum_member(&mut self, it: &TSEnumMember<'a>, scope: Option<ScopeId>, object: &str) {
        let key = match &it.id {
            TSEnumMemberName::Identifier(name) => quote(&name.name),
            TSEnumMemberName::String(name) | TSEnumMemberName::ComputedString(name) => quote(&name.value),
            TSEnumMemberName::ComputedTemplateString(name) => self.text(name.span).to_owned(),
        };
        let value = self.constant(it, scope);
        let Some(initializer) = &it.initializer else {
            let number = match value {
                Some(ConstantValue::Number(number)) => number.to_string(),
                _ => "void 0".to_owned(),
            };
            let text = format!("{object}[{object}[{key}]={number}]={key}");
            return self.out.edits.replace(it.span.start, it.span.end, text);
        };
        let is_text = matches!(value, Some(ConstantValue::String(_)))
            || matches!(initializer, Expression::TemplateLiteral(_));
        let (open, close) = if is_text {
            (format!("{object}[{key}]="), String::new())
        } else {
            (format!("{object}[{object}[{key}]="), format!("]={key}"))
        };
        self.out.edits.replace(it.span.start, initializer.span().start, open);
        self.visit_expression(initializer);
        self.out.edits.close(initializer.span().end, close);
    }

    /// The value of a member that is known before the program runs.
    fn constant(&self, it: &TSEnumMember<'a>, scope: Option<ScopeId>) -> Option<&ConstantValue> {
        let name = match &it.id {
            TSEnumMemberName::Identifier(name) => name.name,
            TSEnumMemberName::String(name) | TSEnumMemberName::ComputedString(name) => name.value.into(),
            TSEnumMemberName::ComputedTemplateString(_) => return None,
        };
        self.scoping.get_enum_member_value(self.scoping.get_binding(scope?, name)?)
    }

    /// Begins the function that fills the object of an enum or namespace; declares its name unless something else does.
    pub(super) fn object_head(&self, name: &str, symbol: Option<SymbolId>, id: Span, object: &str) -> String {
        let declaration = match symbol {
            Some(symbol) if self.is_declared_elsewhere(symbol, id) => String::new(),
            Some(symbol) if self.scoping.symbol_scope_id(symbol) != self.scoping.root_scope_id() => {
                format!("let {name}")
            }
            _ => format!("var {name}"),
        };
        format!("{declaration};(function({object}){{")
    }

    pub(super) fn object_tail(&self, name: &str, export: Option<Export>) -> String {
        match (&self.namespace, export) {
            (Some(outer), Some(_)) => {
                let exported = member(outer, name);
                format!("}})({name}={exported}||({exported}={{}}));")
            }
            _ => format!("}})({name}||({name}={{}}));"),
        }
    }

    fn is_declared_elsewhere(&self, symbol: SymbolId, id: Span) -> bool {
        self.scoping.symbol_redeclarations(symbol).iter().any(|other| {
            let objects = SymbolFlags::Enum | SymbolFlags::ValueModule;
            let code = SymbolFlags::Function | SymbolFlags::Class;
            other.span != id
                && (other.flags.intersects(code)
                    || other.flags.intersects(objects) && other.span.start < id.start)
        })
    }
}
