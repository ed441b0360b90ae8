//! What a call's code imports: judged by the session's rules before a worker is asked for, and spelled as its layer has it.
//! Pure.

use std::collections::BTreeMap;

use conductor_packages::{Allowlist, Asked, Layer, LayerError, Refusal, is_builtin};
use conductor_script::Import;

use super::result::{ErrorReport, ErrorType};

/// What code asks for.
#[derive(Debug, Default)]
pub(crate) struct Imports {
    /// Each with the specifier that code uses.
    packages: Vec<(String, Asked)>,
    /// Modules of Node that are written without `node:`.
    builtins: Vec<String>,
}

impl Imports {
    /// Judges every specifier that is written as a literal, and the call's `dependencies`.
    ///
    /// # Errors
    /// The first that is refused, with its place in the code.
    pub(crate) fn judge(
        allowed: &Allowlist,
        imports: &[Import],
        dependencies: &[String],
    ) -> Result<Self, Box<ErrorReport>> {
        let mut judged = Self::default();
        for specifier in dependencies {
            let asked = allowed.judge(specifier).map_err(|refusal| Box::new(refused(&refusal)))?;
            judged.packages.push((specifier.clone(), asked));
        }
        for import in imports {
            let specifier = &import.specifier;
            if is_own_module(specifier) {
                continue;
            }
            match allowed.judge(specifier) {
                Ok(asked) => judged.packages.push((specifier.clone(), asked)),
                Err(_) if is_builtin(name_of(specifier)) => judged.builtins.push(specifier.clone()),
                Err(refusal) => {
                    let place = (Some(import.line), Some(import.column));
                    return Err(Box::new(ErrorReport {
                        line: place.0,
                        column: place.1,
                        ..refused(&refusal)
                    }));
                }
            }
        }
        Ok(judged)
    }

    /// The packages, each once.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        let mut asked: Vec<Asked> = Vec::new();
        for (_, package) in &self.packages {
            if !asked.contains(package) {
                asked.push(package.clone());
            }
        }
        asked
    }

    /// What is to be imported in place of each specifier.
    ///
    /// # Errors
    /// A package needs native code or has no such file.
    pub(crate) fn spelled(
        &self,
        layer: Option<&Layer>,
    ) -> Result<BTreeMap<String, String>, Box<ErrorReport>> {
        let builtins = self.builtins.iter().map(|name| (name.clone(), format!("node:{name}")));
        let mut spelled = BTreeMap::from_iter(builtins);
        let Some(layer) = layer else { return Ok(spelled) };
        for (specifier, asked) in &self.packages {
            let spelling = layer.spell(asked).map_err(|refusal| Box::new(refused(&refusal)))?;
            spelled.insert(specifier.clone(), spelling);
        }
        Ok(spelled)
    }
}

/// Files of the workspace, and modules that need nobody's leave.
fn is_own_module(specifier: &str) -> bool {
    ["./", "../", "/", "node:", "data:", "blob:"].iter().any(|start| specifier.starts_with(start))
}

/// `fs` of `fs/promises`.
fn name_of(specifier: &str) -> &str {
    specifier.split('/').next().unwrap_or(specifier)
}

fn refused(refusal: &Refusal) -> ErrorReport {
    let error = ErrorReport::new(ErrorType::Dependency, refusal.message.clone());
    match &refusal.hint {
        Some(hint) => error.hint(hint.clone()),
        None => error,
    }
}

/// Why a call does not get its packages.
pub(crate) fn no_layer(error: &LayerError) -> ErrorReport {
    let report = ErrorReport::new(ErrorType::Dependency, crate::error_chain(error));
    match error.hint() {
        Some(hint) => report.hint(hint),
        None => report,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(list: &str, imports: &[&str], dependencies: &[&str]) -> Result<Imports, Box<ErrorReport>> {
        let import = |(index, specifier): (usize, &&str)| Import {
            specifier: (*specifier).to_owned(),
            line: u32::try_from(index).expect("few") + 1,
            column: 8,
            dynamic: false,
        };
        let imports: Vec<Import> = imports.iter().enumerate().map(import).collect();
        let dependencies: Vec<String> = dependencies.iter().map(|&text| text.to_owned()).collect();
        Imports::judge(&Allowlist::parse(list).expect("is right"), &imports, &dependencies)
    }

    #[test]
    fn packages_are_asked_for_once_and_own_modules_not_at_all() {
        let imports =
            ["./a.ts", "npm:axios@1.6", "axios", "node:fs", "fs", "fs/promises", "data:text/javascript,1"];
        let judged = judge("npm:axios@^1,npm:zod", &imports, &["npm:zod"]).expect("is allowed");
        let asked: Vec<String> = judged.asked().iter().map(Asked::specifier).collect();
        assert_eq!(asked, ["npm:zod", "npm:axios@^1"]);
        let spelled = judged.spelled(None).expect("no layer");
        let expected = [("fs", "node:fs"), ("fs/promises", "node:fs/promises")];
        assert_eq!(spelled, expected.map(|(from, to)| (from.to_owned(), to.to_owned())).into());
    }

    #[test]
    fn a_refusal_has_its_place_and_its_cure() {
        let error = judge("npm:axios", &["node:fs", "npm:axois"], &[]).expect_err("is not allowed");
        assert_eq!((error.kind, error.line, error.column), (ErrorType::Dependency, Some(2), Some(8)));
        assert!(error.hint.is_some_and(|hint| hint.contains("npm:axios")));
        let error = judge("npm:axios", &[], &["https://esm.sh/x"]).expect_err("is not allowed");
        assert_eq!((error.kind, error.line), (ErrorType::Dependency, None));
    }

    #[test]
    fn a_listed_package_goes_before_a_module_of_node_of_its_name() {
        let judged = judge("npm:buffer", &["buffer", "events"], &[]).expect("is allowed");
        assert_eq!(judged.asked().len(), 1);
        assert_eq!(judged.spelled(None).expect("no layer").len(), 1);
    }
}
