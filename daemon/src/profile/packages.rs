//! Which packages a session's code may import: the list, the lock it is bound to, and what is imported ahead of time. Pure.
//!
//! `MCP_CONDUCTOR_ALLOWED_PACKAGES` goes before the profile's `packages`, and neither being there means the default list.
//! `[policy] packages` bounds what the variable may ask for, and is the default list of a session that asks for nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;

use conductor_packages::Allowlist;

use super::ProfileError;
use super::origin::{Notes, Origin};
use crate::config::{Excess, PolicySection, ProfileSection};

pub(super) const ALLOWED_PACKAGES: &str = "MCP_CONDUCTOR_ALLOWED_PACKAGES";

/// A session's rules for packages.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PackageRules {
    pub allowed: Allowlist,
    /// A `deno.lock` that says every version; nothing outside it is ever fetched.
    pub lock: Option<PathBuf>,
    /// Packages that are imported while workers boot, whatever the use of others; `None` to learn them from use.
    pub preload: Option<Vec<String>>,
}

impl PackageRules {
    pub(super) fn resolve(
        section: &ProfileSection,
        env: &BTreeMap<String, String>,
        policy: &PolicySection,
        notes: &mut Notes,
    ) -> Result<Self, ProfileError> {
        let offered =
            policy.packages.as_ref().map(|list| parse("[policy] packages", &list.join(" "))).transpose()?;
        let (allowed, origin) = match (env.get(ALLOWED_PACKAGES), &section.packages) {
            (Some(text), _) => {
                let asked = parse(ALLOWED_PACKAGES, text)?;
                let origin = Origin::Environment(ALLOWED_PACKAGES);
                match within(&asked, offered.as_ref()) {
                    Ok(()) => (asked, origin),
                    Err(refusal) if policy.excess == Excess::Refuse => return Err(refusal),
                    Err(refusal) => {
                        notes.warnings.push(format!("what is not offered is cut: {refusal}"));
                        let cut = Origin::Cut {
                            by: "policy.packages",
                            asked: text.as_str().into(),
                            from: Box::new(origin),
                        };
                        (cut_down(&asked, offered.as_ref())?, cut)
                    }
                }
            }
            (None, Some(list)) => (parse("packages", &list.join(" "))?, Origin::File),
            (None, None) => match offered {
                Some(offered) => (offered, Origin::Policy("packages")),
                None => {
                    (parse("the default packages", conductor_packages::DEFAULT_PACKAGES)?, Origin::Default)
                }
            },
        };
        notes.origin("packages", origin);
        for (key, is_set) in
            [("packages-lock", section.packages_lock.is_some()), ("preload", section.preload.is_some())]
        {
            notes.origin(key, if is_set { Origin::File } else { Origin::Default });
        }
        let preload = section.preload.clone();
        for specifier in preload.iter().flatten() {
            allowed.judge(specifier).map_err(|refusal| wrong("preload", &refusal))?;
        }
        let lock = section.packages_lock.clone();
        if let Some(lock) = lock.as_ref().filter(|lock| !lock.is_absolute()) {
            let why = format!("`{}` must be an absolute path", lock.display());
            return Err(ProfileError::Value { variable: "packages-lock", why });
        }
        Ok(Self { allowed, lock, preload })
    }

    /// What an administrator should know of these rules.
    pub(super) fn warning(&self) -> Option<String> {
        let any = self.allowed.allows_any() && self.lock.is_none();
        any.then(|| "any package: code chooses what is fetched from the registries, and may import it".into())
    }
}

fn parse(variable: &'static str, text: &str) -> Result<Allowlist, ProfileError> {
    Allowlist::parse(text).map_err(|error| wrong(variable, &error))
}

fn wrong(variable: &'static str, error: &dyn std::error::Error) -> ProfileError {
    ProfileError::Value { variable, why: error.to_string() }
}

fn within(asked: &Allowlist, offered: Option<&Allowlist>) -> Result<(), ProfileError> {
    let Some(offered) = offered.filter(|offered| !offered.allows_any()) else { return Ok(()) };
    if asked.allows_any() {
        let why = "`all` is more than [policy] offers\nhint: list the packages that are needed".to_owned();
        return Err(ProfileError::Value { variable: ALLOWED_PACKAGES, why });
    }
    for package in asked.packages() {
        offered.judge(&package.to_string()).map_err(|refusal| ProfileError::Value {
            variable: ALLOWED_PACKAGES,
            why: format!("[policy] does not offer it: {refusal}"),
        })?;
    }
    Ok(())
}

/// What of the list is offered.
fn cut_down(asked: &Allowlist, offered: Option<&Allowlist>) -> Result<Allowlist, ProfileError> {
    let Some(offered) = offered else { return Ok(asked.clone()) };
    if asked.allows_any() {
        return Ok(offered.clone());
    }
    let packages = asked.packages().map(ToString::to_string);
    let left: Vec<_> = packages.filter(|package| offered.judge(package).is_ok()).collect();
    parse(ALLOWED_PACKAGES, &left.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(
        env: Option<&str>,
        packages: Option<&[&str]>,
        policy: Option<&[&str]>,
    ) -> Result<PackageRules, String> {
        let list = |list: &[&str]| list.iter().map(|&entry| entry.to_owned()).collect::<Vec<_>>();
        let section = ProfileSection { packages: packages.map(list), ..ProfileSection::default() };
        let policy = PolicySection { packages: policy.map(list), ..PolicySection::default() };
        let env = env.map(|text| (ALLOWED_PACKAGES.to_owned(), text.to_owned()));
        PackageRules::resolve(&section, &env.into_iter().collect(), &policy, &mut Notes::default())
            .map_err(|error| error.to_string())
    }

    fn keys(rules: &PackageRules) -> Vec<String> {
        rules.allowed.packages().map(conductor_packages::Package::key).collect()
    }

    #[test]
    fn the_variable_goes_before_the_profile_and_both_before_the_default() {
        let by_env = resolve(Some("npm:zod@^3"), Some(&["npm:ms"]), None).expect("is right");
        assert_eq!(keys(&by_env), ["npm:zod"]);
        assert_eq!(
            keys(&resolve(None, Some(&["npm:ms", "npm:yaml"]), None).expect("is right")),
            ["npm:ms", "npm:yaml"]
        );
        assert!(keys(&resolve(None, None, None).expect("is right")).contains(&"npm:axios".to_owned()));
        assert!(resolve(Some(""), None, None).expect("is right").allowed.is_empty());
        assert!(resolve(None, Some(&[]), None).expect("is right").allowed.is_empty());
    }

    #[test]
    fn a_policy_bounds_what_a_session_asks_for_and_not_a_profile() {
        let offered: Option<&[&str]> = Some(&["npm:axios@^1", "npm:zod"]);
        assert_eq!(keys(&resolve(Some("npm:axios@1.6"), None, offered).expect("is offered")), ["npm:axios"]);
        assert_eq!(keys(&resolve(None, Some(&["npm:ms"]), offered).expect("is the file's")), ["npm:ms"]);
        assert_eq!(keys(&resolve(None, None, offered).expect("is offered")), ["npm:axios", "npm:zod"]);
        for (asked, says) in [
            ("npm:ms", "[policy] does not offer it"),
            ("all", "more than [policy] offers"),
            ("npm:axios@^2", "allowed is"),
        ] {
            let error = resolve(Some(asked), None, offered).expect_err(asked);
            assert!(error.contains(says) && error.starts_with(ALLOWED_PACKAGES), "{asked}: {error}");
        }
        assert!(resolve(Some("all"), None, Some(&["all"])).expect("is offered").warning().is_some());
    }

    #[test]
    fn a_wrong_list_is_named() {
        let error = resolve(Some("axios"), None, None).expect_err("has no registry");
        assert!(
            error.starts_with("MCP_CONDUCTOR_ALLOWED_PACKAGES: ") && error.contains("npm:axios"),
            "{error}"
        );
    }
}
