//! Tools as TypeScript: a signature on one line for lists, a declaration with docs for the tool that will be called.
//!
//! In: a [`ToolEntry`], whose schemas are hostile input. Out: text that parses as TypeScript, of bounded length. What does
//! not fit is widened (`unknown`, `string`, an index signature) with a comment that says what is missing, so that a call
//! the schema allows always type-checks. Nothing here reads a reference outside its own schema.

mod doc;
mod lower;
mod print;
mod ty;

use std::collections::BTreeSet;

use serde_json::Value;

use crate::entry::ToolEntry;
use crate::names::{access, is_identifier, quoted};
use crate::text::{clipped, comment_safe, one_line};
use lower::{Lowering, Named, pascal};
use print::{Detail, Printer};
use ty::Type;

/// Longest signature, without the tool's name. A list of ten costs about a thousand tokens at worst.
const MAX_SIGNATURE_BYTES: usize = 480;
/// Longest declaration of one tool, types and docs included.
const MAX_DECLARATION_BYTES: usize = 12_000;
/// Longest type in an error message.
const MAX_EXPECTED_BYTES: usize = 160;

/// A tool's name is at most 128 characters by the MCP specification; longer ones cannot be called through a declaration.
pub const MAX_TOOL_NAME_CHARS: usize = 200;

/// The declaration of one tool.
#[derive(Clone, Debug, PartialEq)]
pub struct Declaration {
    /// The named types that the method uses: `(name, declaration)`.
    pub types: Vec<(String, String)>,
    /// The method with its doc comment, as it stands in an interface, ending with `;`.
    pub method: String,
    /// Whether something was left out; the text says where.
    pub is_cut: bool,
}

/// What is known of the tool's answer.
enum Output {
    Declared(Type),
    Observed(Type),
    Unknown,
}

/// A tool with its schemas made types.
struct Lowered {
    args: Type,
    output: Output,
    named: Vec<Named>,
}

/// One line: `list_issues(args: { owner: string; state?: "open" | "closed" }): Promise<{ id: number }[]>`.
///
/// It is a method signature: it parses inside an interface. At most about 500 bytes and the name.
pub fn signature(tool: &ToolEntry) -> String {
    format!("{}{}", method_name(&tool.name), parameters_and_result(tool))
}

/// The same as it is called: `mcp.github.list_issues(args: …): Promise<…>`.
pub(crate) fn call_signature(tool: &ToolEntry) -> String {
    format!(
        "{}{}",
        access(&tool.server, &clipped(&tool.name, MAX_TOOL_NAME_CHARS)),
        parameters_and_result(tool)
    )
}

fn parameters_and_result(tool: &ToolEntry) -> String {
    let lowered = lowered(tool, "");
    let fits = |(max_depth, max_fields, max_members)| {
        let max_bytes = MAX_SIGNATURE_BYTES;
        let detail =
            Detail { max_depth, max_fields, max_members, max_doc_lines: 0, inlines: true, max_bytes };
        let mut printer = Printer::new(detail, &lowered.named);
        // What is asked for matters more than what comes back: the answer is shown one level less deep.
        lowered.print(&mut printer, usize::from(max_depth > 1), 0);
        printer.finish()
    };
    let ladder = [(4, 40, 12), (3, 20, 8), (2, 16, 6), (2, 10, 4), (1, 10, 4), (1, 5, 3), (0, 0, 2)];
    let fitting = ladder.into_iter().find_map(fits);
    fitting.map_or_else(|| "(args: object): Promise<unknown>".to_owned(), |printed| printed.text)
}

/// The tool with its docs, types and everything else that fits.
///
/// `type_prefix` is put before the names of types, so that two tools can have their own `Entry`; it must be empty or an
/// identifier.
pub fn declare(tool: &ToolEntry, type_prefix: &str) -> Declaration {
    let lowered = lowered(tool, type_prefix);
    let detail = |max_depth, max_fields, max_members, max_doc_lines| Detail {
        max_depth,
        max_fields,
        max_members,
        max_doc_lines,
        inlines: false,
        max_bytes: MAX_DECLARATION_BYTES,
    };
    let ladder = [detail(24, 200, 101, 16), detail(8, 100, 40, 2), detail(5, 60, 12, 1), detail(3, 40, 8, 0)];
    for (step, detail) in ladder.into_iter().enumerate() {
        if let Some(mut declaration) = lowered.declare(tool, detail) {
            declaration.is_cut |= step > 0;
            return declaration;
        }
    }
    Declaration { types: Vec::new(), method: format!("{};", signature(tool)), is_cut: true }
}

/// A prefix for the names of a tool's types: `list_issues` → `ListIssues`.
pub fn type_prefix(name: &str) -> String {
    let name = pascal(name);
    if is_identifier(&name) { name } else { format!("T{name}") }
}

/// A schema, which is `root` or a part of it, as a short TypeScript type, for messages.
pub(crate) fn expected(root: &Value, schema: &Value) -> String {
    let mut lowering = Lowering::new("");
    let ty = lowering.lower(root, schema);
    let named = lowering.into_named();
    let print = |(max_depth, max_fields, max_members)| {
        let detail = Detail {
            max_depth,
            max_fields,
            max_members,
            max_doc_lines: 0,
            inlines: true,
            max_bytes: MAX_EXPECTED_BYTES,
        };
        let mut printer = Printer::new(detail, &named);
        printer.ty(&ty, 0, 0);
        printer.finish()
    };
    let text = [(2, 12, 24), (1, 8, 8), (1, 4, 4), (0, 0, 2)].into_iter().find_map(print);
    text.map_or_else(|| "another type".to_owned(), |printed| printed.text)
}

fn lowered(tool: &ToolEntry, type_prefix: &str) -> Lowered {
    let mut lowering = Lowering::new(type_prefix);
    let args = lowering.lower(&tool.input_schema, &tool.input_schema);
    let output = match (&tool.output_schema, &tool.observed) {
        (Some(schema), _) => Output::Declared(lowering.lower(schema, schema)),
        (None, Some(observed)) => {
            let schema = observed.to_schema();
            Output::Observed(lowering.lower(&schema, &schema))
        }
        (None, None) => Output::Unknown,
    };
    Lowered { args, output, named: lowering.into_named() }
}

impl Lowered {
    /// `(args: …): Promise<…>`
    fn print<'t>(&'t self, printer: &mut Printer<'t>, output_depth: usize, indent: usize) {
        printer.push(if self.needs_arguments() { "(args: " } else { "(args?: " });
        match &self.args {
            // Arguments are an object in MCP, whatever the schema says.
            Type::Unknown => printer.push("Record<string, unknown>"),
            args => printer.ty(args, 0, indent),
        }
        printer.push("): Promise<");
        match &self.output {
            Output::Unknown => printer.push("unknown"),
            Output::Declared(ty) => printer.ty(ty, output_depth, indent),
            Output::Observed(ty) => {
                printer.push("/** observed */ ");
                printer.ty(ty, output_depth, indent);
            }
        }
        printer.push(">");
    }

    fn needs_arguments(&self) -> bool {
        let args = match &self.args {
            Type::Named(index) => &self.named[*index].ty,
            args => args,
        };
        match args {
            Type::Object(object) => object.fields.iter().any(|field| !field.optional),
            Type::Unknown => false,
            _ => true,
        }
    }

    /// The declaration in this detail, or `None` if it is too long.
    fn declare(&self, tool: &ToolEntry, detail: Detail) -> Option<Declaration> {
        let mut printer = Printer::new(detail, &self.named);
        printer.doc(&tool_doc(tool), 1);
        printer.push(&method_name(&tool.name));
        self.print(&mut printer, 0, 1);
        printer.push(";");
        let method = printer.finish()?;
        let mut left = MAX_DECLARATION_BYTES.checked_sub(method.text.len())?;
        let mut n_cuts = method.n_cuts;
        let mut types = Vec::new();
        let mut wanted = method.wanted;
        let mut done = BTreeSet::new();
        while let Some(index) = wanted.pop_first() {
            if !done.insert(index) {
                continue;
            }
            let mut printer = Printer::new(detail, &self.named);
            printer.declaration(&self.named[index]);
            let printed = printer.finish()?;
            left = left.checked_sub(printed.text.len())?;
            n_cuts += printed.n_cuts;
            wanted.extend(printed.wanted.difference(&done));
            types.push((self.named[index].name.clone(), printed.text));
        }
        Some(Declaration { types, method: method.text, is_cut: n_cuts > 0 })
    }
}

fn tool_doc(tool: &ToolEntry) -> Vec<String> {
    match tool.description.as_deref().map(str::trim).filter(|text| !text.is_empty()) {
        Some(text) => doc::description(text),
        None => tool.title.iter().map(|title| clipped(&comment_safe(&one_line(title)), 200)).collect(),
    }
}

/// The name of a method in an interface. `new` without quotes would declare a constructor.
fn method_name(name: &str) -> String {
    let name = clipped(name, MAX_TOOL_NAME_CHARS);
    if is_identifier(&name) && name != "new" { name } else { quoted(&name) }
}

#[cfg(test)]
mod tests;
