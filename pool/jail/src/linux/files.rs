//! Landlock: which files, programs and ports remain.
//!
//! Rules are made from open descriptors, so a rule holds for what was opened, whatever is renamed or linked later. Two
//! kinds of path become rules: *system* paths, which root alone can change and which may lead through links (`/lib` does),
//! and *granted* paths, which code may be able to change and which therefore may not.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, PathBeneath, Ruleset,
    RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, Scope, make_bitflags,
};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::elf;
use crate::{Jail, Net, State};

/// The newest interface whose rights are used; older kernels enforce those they have.
const ABI_USED: ABI = ABI::V9;
/// Files can be restricted in full from here on (truncation).
const ABI_FILES: u32 = 3;
const ABI_PORTS: u32 = 4;
/// Signals and abstract sockets. Seccomp forbids both already unless processes are granted, or the process copies itself.
const ABI_SCOPES: u32 = 6;

const READ_FILE: BitFlags<AccessFs> = make_bitflags!(AccessFs::ReadFile);
const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});
const EXECUTE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir | Execute});
/// Not device nodes, sockets and FIFOs: nothing a grant of files is meant for needs to make one.
const WRITE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
    WriteFile | Truncate | MakeReg | MakeDir | MakeSym | RemoveFile | RemoveDir | Refer
});
/// The rights that a rule about something other than a directory can carry.
const OF_FILES: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | WriteFile | Truncate | Execute});

/// Where libraries live. Those of a multiarch system are few; without them the whole directories are needed.
#[cfg(target_arch = "x86_64")]
const MULTIARCH: [&str; 2] = ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu"];
#[cfg(target_arch = "aarch64")]
const MULTIARCH: [&str; 2] = ["/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu"];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const MULTIARCH: [&str; 0] = [];
const LIBRARIES: [&str; 4] = ["/lib", "/lib64", "/usr/lib", "/usr/lib64"];
/// Systems that keep each package in a directory of its own; a program from there finds its libraries there.
const STORES: [&str; 2] = ["/nix/store", "/gnu/store"];
const LOADER_CACHE: &str = "/etc/ld.so.cache";

/// What resolving a host name reads. TLS roots are built into Deno.
const NAMES: [&str; 5] =
    ["/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf"];

/// What programs need besides themselves, if starting some was granted. Not the user's home.
const SYSTEM: [&str; 8] = ["/bin", "/sbin", "/usr", "/lib", "/lib64", "/opt", "/nix/store", "/gnu/store"];
const SYSTEM_READ: [&str; 5] = ["/etc", "/proc", "/dev/zero", "/dev/urandom", "/dev/random"];
const SINK: &str = "/dev/null";

struct Rules {
    ruleset: RulesetCreated,
}

/// Restricts this thread; tells the state and the interface's version (0 without Landlock).
pub(super) fn restrict(jail: &Jail) -> io::Result<(State, u32)> {
    let mut rules = Rules::new(&jail.net)?;
    rules.add_program(&jail.program)?;
    for path in &jail.needs {
        rules.add(open(path, Links::Followed)?, READ)?;
    }
    if jail.net != Net::None {
        rules.add_system(&NAMES, READ_FILE)?;
    }
    if jail.run {
        rules.add_system(&SYSTEM, EXECUTE)?;
        rules.add_system(&SYSTEM_READ, READ)?;
        rules.add_system(&[SINK], READ | AccessFs::WriteFile)?;
    }
    let granted = if jail.run { EXECUTE } else { READ };
    for path in &jail.read {
        rules.add_granted(path, granted, &jail.protected)?;
    }
    for path in &jail.write {
        rules.add_granted(path, WRITE, &jail.protected)?;
    }
    let status = rules.ruleset.restrict_self().map_err(io::Error::other)?;
    Ok(state(status.landlock, jail))
}

fn state(status: LandlockStatus, jail: &Jail) -> (State, u32) {
    let abi = match status {
        LandlockStatus::NotImplemented => {
            return (State::Missing("this kernel has no Landlock (Linux 5.13)".to_owned()), 0);
        }
        LandlockStatus::NotEnabled => {
            return (State::Missing("Landlock is switched off in this kernel".to_owned()), 0);
        }
        LandlockStatus::Available { effective_abi, .. } => effective_abi as u32,
    };
    let lack = |what: &str, since: &str| {
        State::Partial(format!("this kernel's Landlock (ABI {abi}) cannot restrict {what} ({since})"))
    };
    let state = if abi < ABI_FILES {
        lack("the truncation of files", "Linux 6.2")
    } else if abi < ABI_PORTS && matches!(jail.net, Net::Ports(_)) {
        lack("ports", "Linux 6.7")
    } else if abi < ABI_SCOPES && (jail.run || jail.forks) {
        lack("signals", "Linux 6.12")
    } else {
        State::Active
    };
    (state, abi)
}

impl Rules {
    fn new(net: &Net) -> io::Result<Self> {
        let mut ruleset = Ruleset::default()
            .handle_access(AccessFs::from_all(ABI_USED))
            .and_then(|ruleset| ruleset.scope(Scope::from_all(ABI_USED)))
            .map_err(io::Error::other)?;
        if *net != Net::Any {
            ruleset = ruleset.handle_access(AccessNet::from_all(ABI_USED)).map_err(io::Error::other)?;
        }
        let mut ruleset = ruleset.create().map_err(io::Error::other)?;
        if let Net::Ports(ports) = net {
            for port in ports {
                let rule = NetPort::new(*port, AccessNet::from_all(ABI_USED));
                ruleset = ruleset.add_rule(rule).map_err(io::Error::other)?;
            }
        }
        Ok(Self { ruleset })
    }

    /// The program itself, its loader, and the libraries that the loader opens.
    fn add_program(&mut self, program: &Path) -> io::Result<()> {
        let loader = elf::loader(program)?;
        for path in std::iter::once(program).chain(loader.as_deref()) {
            self.add(open(path, Links::Followed)?, READ_FILE | AccessFs::Execute)?;
        }
        let multiarch = MULTIARCH.iter().any(|directory| Path::new(directory).is_dir());
        let libraries: &[&str] = if multiarch { &MULTIARCH } else { &LIBRARIES };
        self.add_system(libraries, READ)?;
        let mut stores: Vec<&str> = STORES.into_iter().filter(|store| Path::new(store).is_dir()).collect();
        if !stores.is_empty() {
            let real = program.canonicalize()?;
            stores.retain(|store| real.starts_with(store));
            self.add_system(&stores, READ)?;
        }
        self.add_system(&[LOADER_CACHE], READ_FILE)
    }

    /// Paths that not every system has.
    fn add_system(&mut self, paths: &[&str], access: BitFlags<AccessFs>) -> io::Result<()> {
        for path in paths {
            match open(Path::new(path), Links::Followed) {
                Ok(fd) => self.add(fd, access)?,
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A granted path. Where it lies above a protected one, everything beside that: its neighbours, and the names in the
    /// directories above it.
    fn add_granted(
        &mut self,
        path: &Path,
        access: BitFlags<AccessFs>,
        protected: &[PathBuf],
    ) -> io::Result<()> {
        if protected.iter().any(|protected| path.starts_with(protected)) {
            return Ok(());
        }
        let fd = match open(path, Links::Refused) {
            Ok(fd) => fd,
            Err(error) if is_absent(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        if !protected.iter().any(|protected| protected.starts_with(path)) {
            return self.add(fd, access);
        }
        if access.contains(AccessFs::ReadDir) {
            self.add(fd, make_bitflags!(AccessFs::ReadDir))?;
        }
        // What cannot be listed could not be granted to the worker, either.
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            self.add_granted(&entry.path(), access, protected)?;
        }
        Ok(())
    }

    fn add(&mut self, fd: OwnedFd, access: BitFlags<AccessFs>) -> io::Result<()> {
        let directory = FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) == FileType::Directory;
        let access = if directory { access } else { access & OF_FILES };
        if !access.is_empty() {
            let rule = PathBeneath::new(fd, access);
            (&mut self.ruleset).add_rule(rule).map_err(io::Error::other)?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Links {
    Followed,
    /// Anywhere in the path.
    Refused,
}

fn open(path: &Path, links: Links) -> io::Result<OwnedFd> {
    let resolve = match links {
        Links::Followed => ResolveFlags::empty(),
        Links::Refused => ResolveFlags::NO_SYMLINKS,
    };
    rustix::fs::openat2(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
        .map_err(|error| io::Error::new(error.kind(), PathError { path: path.to_owned(), error }))
}

/// Nothing there that could be granted: no such file, a link where none may be, or out of the user's own reach.
fn is_absent(error: &io::Error) -> bool {
    let errno = error.get_ref().and_then(|inner| inner.downcast_ref::<PathError>()).map(|inner| inner.error);
    matches!(
        errno,
        Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS | Errno::PERM | Errno::NAMETOOLONG)
    )
}

#[derive(Debug, thiserror::Error)]
#[error("{}: {}", path.display(), io::Error::from(*error))]
struct PathError {
    path: PathBuf,
    error: Errno,
}
