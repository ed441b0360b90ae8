//! From a spec to the jail of its worker.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use conductor_jail::{Jail, Layer, Limits, Net};

use crate::spec::{Grant, Grants, WorkerSpec};

/// Descriptors of a worker that opens no connections. Deno holds about twenty; the rest is for the code's own files.
const MAX_DESCRIPTORS: u64 = 128;

/// Descriptors of a worker that may use the network or start programs.
const MAX_DESCRIPTORS_CONNECTED: u64 = 1024;

/// Size to which a worker may make a file that it may write: far above what code produces, so that a mistake ends before
/// the disk is full.
const MAX_FILE_BYTES: u64 = 4 << 30;

/// CPU time of a boot with its packages, at the very most, and what clocks may differ by.
const BOOT_CPU_SECONDS: u64 = 60;

/// What `Deno.permissions`' system descriptors read.
const SYSTEM_FACTS: [&str; 7] = [
    "/proc/meminfo",
    "/proc/cpuinfo",
    "/proc/stat",
    "/proc/loadavg",
    "/proc/uptime",
    "/etc/passwd",
    "/sys/devices/system/cpu",
];

/// Conductor's own files that a worker uses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Own<'a> {
    pub(crate) harness: &'a Path,
    pub(crate) deno_dir: &'a Path,
    /// The worker fills `deno_dir`: a rehearsal, never a worker that runs code.
    pub(crate) fills_deno_dir: bool,
    /// It is a template, and this the library that it loads.
    pub(crate) fork_library: Option<&'a Path>,
}

/// The jail that lets a worker do what `spec` grants. `layers` are those to apply.
pub(crate) fn jail(spec: &WorkerSpec, own: Own<'_>, layers: &BTreeSet<Layer>) -> Jail {
    let grants = &spec.grants;
    let (run, ffi) = (grants.starts_programs(), grants.all || grants.ffi != Grant::None);
    let mut jail = Jail::new(spec.deno.clone());
    jail.needs = vec![own.harness.to_owned(), own.deno_dir.to_owned()];
    jail.needs.extend(spec.packages.iter().filter_map(|packages| Some(packages.lock.parent()?.to_owned())));
    let writable = paths(grants, &grants.write);
    if let Some(library) = own.fork_library {
        jail.needs.push(library.to_owned());
        jail.forks = true;
    }
    jail.read = resolve(paths(grants, &grants.read).iter().chain(&programs(grants)), &writable);
    if grants.all || grants.sys != Grant::None {
        jail.read.extend(SYSTEM_FACTS.map(PathBuf::from));
    }
    jail.write = resolve(writable.iter(), &writable);
    if own.fills_deno_dir {
        jail.write.extend(own.deno_dir.canonicalize());
    }
    jail.protected = spec.protected.iter().map(|path| path.canonicalize().unwrap_or(path.clone())).collect();
    jail.net = net(grants);
    (jail.run, jail.ffi) = (run, ffi);
    jail.limits = limits(spec, own.fills_deno_dir, !layers.contains(&Layer::NoNewCode));
    jail.layers = layers.clone();
    jail
}

fn limits(spec: &WorkerSpec, fills_deno_dir: bool, compiles: bool) -> Limits {
    let grants = &spec.grants;
    let file_size = if grants.is_unsandboxed() {
        // Programs and libraries write with the worker's limits, and what they need is not known here.
        None
    } else if fills_deno_dir || grants.write != Grant::None {
        Some(MAX_FILE_BYTES)
    } else {
        Some(0)
    };
    let connected = grants.net != Grant::None || grants.is_unsandboxed();
    // Longer than a run can compute that the daemon ends in time: this is for when it does not.
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let cpu_seconds = (spec.max_wall.as_secs() + 1).saturating_mul(cores).saturating_add(BOOT_CPU_SECONDS);
    Limits {
        data: Some(Limits::data_for(spec.max_memory_mib, compiles)),
        file_size,
        descriptors: if connected { MAX_DESCRIPTORS_CONNECTED } else { MAX_DESCRIPTORS },
        cpu_seconds: Some(cpu_seconds),
    }
}

fn paths(grants: &Grants, grant: &Grant) -> Vec<PathBuf> {
    match grant {
        _ if grants.all => vec!["/".into()],
        Grant::None => Vec::new(),
        Grant::Only(paths) => paths.iter().map(PathBuf::from).collect(),
        Grant::All => vec!["/".into()],
    }
}

/// Programs and libraries that are granted by path. Those granted by name are found in the system's directories.
fn programs(grants: &Grants) -> Vec<PathBuf> {
    [&grants.run, &grants.ffi]
        .into_iter()
        .filter_map(|grant| match grant {
            Grant::Only(names) => Some(names.iter().map(PathBuf::from).filter(|path| path.is_absolute())),
            _ => None,
        })
        .flatten()
        .collect()
}

/// The real paths of grants. Below a directory that code may write only that directory is resolved: code could have put a
/// link there, and the jail refuses to follow one.
fn resolve<'a>(paths: impl Iterator<Item = &'a PathBuf>, writable: &[PathBuf]) -> Vec<PathBuf> {
    paths
        .filter_map(|path| {
            let outermost = writable
                .iter()
                .filter(|above| path.starts_with(above))
                .min_by_key(|above| above.as_os_str().len());
            let base = outermost.map_or(path.as_path(), PathBuf::as_path);
            let rest = path.strip_prefix(base).ok()?;
            let base = base.canonicalize().ok()?;
            Some(if rest.as_os_str().is_empty() { base } else { base.join(rest) })
        })
        .collect()
}

/// Ports if every granted host names one; a host without one is any port.
fn net(grants: &Grants) -> Net {
    match &grants.net {
        _ if grants.all => Net::Any,
        Grant::None => Net::None,
        Grant::All => Net::Any,
        Grant::Only(hosts) if hosts.is_empty() => Net::None,
        Grant::Only(hosts) => {
            hosts.iter().map(|host| port(host)).collect::<Option<_>>().map_or(Net::Any, Net::Ports)
        }
    }
}

/// The port of `host:port` or `[address]:port`. The last colon of a bare IPv6 address is none of one.
fn port(host: &str) -> Option<u16> {
    let (name, port) = host.rsplit_once(':')?;
    if name.contains(':') && !name.ends_with(']') { None } else { port.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(values: &[&str]) -> Grant {
        Grant::Only(values.iter().map(|value| (*value).to_owned()).collect())
    }

    #[test]
    fn ports_are_restricted_only_if_every_host_has_one() {
        let of = |net_grant: Grant| net(&Grants { net: net_grant, ..Grants::default() });
        assert_eq!(of(Grant::None), Net::None);
        assert_eq!(of(only(&[])), Net::None);
        assert_eq!(of(Grant::All), Net::Any);
        assert_eq!(of(only(&["a.example:443", "[::1]:80", "10.0.0.1:443"])), Net::Ports([80, 443].into()));
        for any in ["a.example", "::1", "[::1]", "fe80::1:80", "a.example:"] {
            assert_eq!(of(only(&["b.example:443", any])), Net::Any, "{any}");
        }
        assert_eq!(net(&Grants { all: true, ..Grants::default() }), Net::Any);
    }

    #[test]
    fn a_link_below_a_writable_directory_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let (real, link, outside) = (root.join("real"), root.join("link"), root.join("outside"));
        std::fs::create_dir_all(real.join("sub")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        std::os::unix::fs::symlink(&outside, real.join("trap")).unwrap();
        let granted = [link.join("sub"), link.join("trap"), root.join("gone"), link.clone()];
        let read_only = resolve(granted.iter(), &[]);
        assert_eq!(
            read_only,
            [real.join("sub"), outside, real.clone()],
            "an administrator's link is followed"
        );
        let writable = resolve(granted.iter(), std::slice::from_ref(&link));
        assert_eq!(
            writable,
            [real.join("sub"), real.join("trap"), real],
            "code's is left for the jail to refuse"
        );
    }
}
