//! From a spec to Deno's command line and environment. Pure.
//!
//! A grant comes from configuration that a user wrote and must stay one value of one flag: every value follows `=`
//! directly, so a leading dash means nothing, and a comma, which Deno would split at and gives no way to escape, is
//! refused.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::spec::{Grant, WorkerSpec};

/// Descriptors that the harness opens by path; see [`Revoke`].
const COMMANDS: &str = "/dev/fd/3";
const REPLIES: &str = "/dev/fd/4";

/// Arguments for every worker, whatever its grants.
const FIXED: [&str; 6] =
    ["--no-prompt", "--no-config", "--cached-only", "--node-modules-dir=none", "--no-check", "--quiet"];

/// For V8 in a template. Without threads of its own the optimising compiler never gets at a loop that is running already
/// and that the compiler before it has taken: such loops would take three times as long.
const ONE_THREAD: &str = "--v8-flags=--single-threaded,--no-maglev-osr";

/// Arguments of a worker that has no packages.
const WITHOUT_PACKAGES: [&str; 3] = ["--no-lock", "--no-remote", "--no-npm"];

/// Environment of every worker: nothing of the daemon's, and no reason for Deno to look anywhere.
const FIXED_ENV: [(&str, &str); 4] = [
    ("HOME", "/nonexistent"),
    ("NO_COLOR", "1"),
    ("DENO_NO_UPDATE_CHECK", "1"),
    ("DENO_WEBGPU_BACKEND", "none"),
];

/// Which permissions were added for the harness alone, and end before any user code runs.
///
/// | grant | flag added | revoked |
/// |---|---|---|
/// | none, or paths elsewhere | yes | yes |
/// | a path that covers `/dev/fd/N` | no | no: revoking would take the whole grant |
/// | everything | no: a list would narrow it | no |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Revoke {
    pub(crate) read: bool,
    pub(crate) write: bool,
}

/// Why a spec cannot be put on a command line.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum CommandLineError {
    #[error("the {flag} grant {value:?} contains a comma, which Deno would read as a separator")]
    Comma { flag: &'static str, value: String },
    #[error("the {flag} grant has an empty value")]
    Empty { flag: &'static str },
    #[error("the {flag} grant {value:?} is not an absolute path")]
    NotAbsolute { flag: &'static str, value: String },
    #[error("the {flag} grant {value:?} lies in a protected directory")]
    Protected { flag: &'static str, value: String },
}

/// What Deno is started with, and what the harness gives back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CommandLine {
    pub(crate) args: Vec<OsString>,
    pub(crate) revoke: Revoke,
}

impl CommandLine {
    pub(crate) fn new(spec: &WorkerSpec, harness: &Path) -> Result<Self, CommandLineError> {
        let grants = &spec.grants;
        let mut args: Vec<OsString> = vec!["run".into()];
        args.extend(FIXED.map(OsString::from));
        match &spec.packages {
            None => args.extend(WITHOUT_PACKAGES.map(OsString::from)),
            Some(packages) => {
                // `--cached-only` alone would let code import by name what a package merely depends on.
                let mut lock = OsString::from("--lock=");
                lock.push(&packages.lock);
                args.extend([lock, "--frozen".into()]);
            }
        }
        args.push(format!("--v8-flags=--max-old-space-size={}", spec.heap_mib).into());
        let mut revoke = Revoke { read: false, write: false };
        if grants.all {
            args.push("--allow-all".into());
            deny_protected(&mut args, spec, ["deny-read", "deny-write"])?;
        } else {
            // Refused together with --allow-all; there --no-remote and --no-npm do the same.
            let host = spec.packages.as_ref().and_then(|packages| packages.allow_import.as_deref());
            allow(
                &mut args,
                "allow-import",
                &Grant::Only([host.unwrap_or("none.invalid").to_owned()].into()),
            )?;
            revoke.read = allow_paths(&mut args, spec, &grants.read, ["allow-read", "deny-read"], COMMANDS)?;
            revoke.write =
                allow_paths(&mut args, spec, &grants.write, ["allow-write", "deny-write"], REPLIES)?;
            allow(&mut args, "allow-net", &grants.net)?;
            allow(&mut args, "allow-env", &grants.env)?;
            allow(&mut args, "allow-run", &grants.run)?;
            allow(&mut args, "allow-ffi", &grants.ffi)?;
            allow(&mut args, "allow-sys", &grants.sys)?;
            if is_nothing(&grants.env) {
                // Packages that merely look at the environment find it empty instead of dying.
                args.push("--ignore-env".into());
            }
        }
        args.push(harness.into());
        Ok(Self { args, revoke })
    }
}

impl CommandLine {
    /// Makes it that of a template: one that may load `library`, until its harness gives that up, and whose V8 starts no
    /// thread that a fork would lose.
    pub(crate) fn load_library(&mut self, library: &Path) -> Result<(), CommandLineError> {
        check_value("allow-ffi", library.as_os_str().as_bytes())?;
        let mut allow = OsString::from("--allow-ffi=");
        allow.push(library);
        self.args.splice(1..1, [allow, ONE_THREAD.into()]);
        Ok(())
    }
}

/// The whole environment of a worker, as `NAME=value`.
pub(crate) fn environment(deno_dir: &Path, spec: &WorkerSpec) -> Vec<OsString> {
    let none = BTreeMap::new();
    let of_packages = spec.packages.as_ref().map_or(&none, |packages| &packages.env);
    let entry = |name: &str, value: &std::ffi::OsStr| {
        let mut entry = OsString::from(name);
        entry.push("=");
        entry.push(value);
        entry
    };
    let is_ours = |name: &str| name == "DENO_DIR" || FIXED_ENV.iter().any(|(fixed, _)| *fixed == name);
    let granted = spec.env.iter().filter(|(name, _)| !is_ours(name) && !of_packages.contains_key(*name));
    let fixed = FIXED_ENV.iter().filter(|(name, _)| !of_packages.contains_key(*name));
    std::iter::once(entry("DENO_DIR", deno_dir.as_os_str()))
        .chain(fixed.map(|(name, value)| entry(name, value.as_ref())))
        .chain(of_packages.iter().chain(granted).map(|(name, value)| entry(name, value.as_ref())))
        .collect()
}

/// True when code under this spec may read `path`.
pub(crate) fn reads(spec: &WorkerSpec, path: &Path) -> bool {
    spec.grants.all
        || match &spec.grants.read {
            Grant::None => false,
            Grant::Only(paths) => covers(paths, path),
            Grant::All => true,
        }
}

/// Adds one path permission; true when the harness must revoke what was added for it.
fn allow_paths(
    args: &mut Vec<OsString>,
    spec: &WorkerSpec,
    grant: &Grant,
    [flag, deny]: [&'static str; 2],
    channel: &str,
) -> Result<bool, CommandLineError> {
    if let Grant::Only(paths) = grant {
        for path in paths {
            if !Path::new(path).is_absolute() {
                return Err(CommandLineError::NotAbsolute { flag, value: path.clone() });
            }
            // Deno lets the longer of two paths win, so this grant would undo the protection.
            if spec.protected.iter().any(|protected| Path::new(path).starts_with(protected)) {
                return Err(CommandLineError::Protected { flag, value: path.clone() });
            }
        }
    }
    allow(args, flag, grant)?;
    if !is_nothing(grant) {
        deny_protected(args, spec, [deny])?;
    }
    let own = match grant {
        Grant::None => true,
        Grant::Only(paths) => !covers(paths, Path::new(channel)),
        Grant::All => false,
    };
    if own {
        args.push(format!("--{flag}={channel}").into());
    }
    Ok(own)
}

fn allow(args: &mut Vec<OsString>, flag: &'static str, grant: &Grant) -> Result<(), CommandLineError> {
    match grant {
        Grant::None => {}
        Grant::All => args.push(format!("--{flag}").into()),
        Grant::Only(values) => {
            for value in values {
                check_value(flag, value.as_bytes())?;
                args.push(format!("--{flag}={value}").into());
            }
        }
    }
    Ok(())
}

fn deny_protected<const N: usize>(
    args: &mut Vec<OsString>,
    spec: &WorkerSpec,
    flags: [&'static str; N],
) -> Result<(), CommandLineError> {
    for flag in flags {
        for directory in &spec.protected {
            check_value(flag, directory.as_os_str().as_bytes())?;
            let mut arg = OsString::from(format!("--{flag}="));
            arg.push(directory);
            args.push(arg);
        }
    }
    Ok(())
}

fn check_value(flag: &'static str, value: &[u8]) -> Result<(), CommandLineError> {
    if value.is_empty() {
        return Err(CommandLineError::Empty { flag });
    }
    if value.contains(&b',') {
        return Err(CommandLineError::Comma { flag, value: String::from_utf8_lossy(value).into_owned() });
    }
    Ok(())
}

/// An empty list grants nothing. It must never become a bare flag, which grants everything.
fn is_nothing(grant: &Grant) -> bool {
    match grant {
        Grant::None => true,
        Grant::Only(values) => values.is_empty(),
        Grant::All => false,
    }
}

fn covers(paths: &BTreeSet<String>, path: &Path) -> bool {
    paths.iter().any(|granted| path.starts_with(granted))
}

#[cfg(test)]
mod tests;
