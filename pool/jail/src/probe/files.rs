//! Attempts on files.

use std::ffi::CString;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use nix::libc::{self, *};

use super::attempt::{Errno, call_with, open, raw, word};
use super::{Attempt, Probe, Scene};
use crate::Layer::{Capabilities, Landlock, Limits, Seccomp};

const CLOSED: &[(crate::Layer, Errno)] = &[(Landlock, EACCES)];
/// Changing a file is refused as a call, and then by path.
const CHANGE: &[(crate::Layer, Errno)] = &[(Seccomp, EPERM), (Landlock, EACCES)];
/// Landlock has no rule for modes, owners, times and attributes.
const ATTRIBUTE: &[(crate::Layer, Errno)] = &[(Seccomp, EPERM)];

macro_rules! probe {
    ($name:literal, $stopped_by:expr, $attempt:expr) => {
        Probe { name: $name, stopped_by: $stopped_by, attempt: Attempt::Do($attempt) }
    };
}

pub(super) const PROBES: &[Probe] = &[
    // Controls.
    probe!("read a granted file", &[], |scene, _| open(&scene.path("granted/file"), O_RDONLY)),
    probe!("list a granted directory", &[], |scene, _| list(&scene.path("granted"))),
    probe!("list a directory below a granted one", &[], |scene, _| list(&scene.path("granted/sub"))),
    // Reading.
    probe!("read /etc/passwd", CLOSED, |_, _| open(Path::new("/etc/passwd"), O_RDONLY)),
    probe!("read a file beside the granted ones", CLOSED, |scene, _| open(
        &scene.path("closed/file"),
        O_RDONLY
    )),
    probe!("read through a link in a granted directory", CLOSED, |scene, _| {
        open(&scene.path("granted/link"), O_RDONLY)
    }),
    probe!("read through .. in a granted directory", CLOSED, |scene, _| {
        open(&scene.path("granted/../closed/file"), O_RDONLY)
    }),
    probe!("read a file that only root may", &[(Capabilities, EACCES)], |scene, _| {
        open(&scene.path("granted/locked"), O_RDONLY)
    }),
    probe!("list a directory beside the granted ones", CLOSED, |scene, _| list(&scene.path("closed"))),
    probe!("list /", CLOSED, |_, _| list(Path::new("/"))),
    probe!("list the own descriptors", CLOSED, |_, _| list(Path::new("/proc/self/fd"))),
    probe!("read the own environment", CLOSED, |_, _| open(Path::new("/proc/self/environ"), O_RDONLY)),
    probe!("read the own memory map", CLOSED, |_, _| open(Path::new("/proc/self/maps"), O_RDONLY)),
    probe!("write the own memory by file", CLOSED, |_, _| open(Path::new("/proc/self/mem"), O_RDWR)),
    probe!("read the parent's environment", CLOSED, |_, _| of_parent("environ", O_RDONLY)),
    probe!("read the parent's command line", CLOSED, |_, _| of_parent("cmdline", O_RDONLY)),
    probe!("write the parent's memory by file", CLOSED, |_, _| of_parent("mem", O_RDWR)),
    probe!("read the kernel's version", CLOSED, |_, _| open(Path::new("/proc/version"), O_RDONLY)),
    probe!("read a device", CLOSED, |_, _| open(Path::new("/dev/zero"), O_RDONLY)),
    // Writing.
    probe!("open a granted file to write", CLOSED, |scene, _| open(&scene.path("granted/file"), O_WRONLY)),
    probe!("open a granted file to read and write", CLOSED, |scene, _| open(
        &scene.path("granted/file"),
        O_RDWR
    )),
    probe!("open a granted file to append", CLOSED, |scene, _| {
        open(&scene.path("granted/file"), O_WRONLY | O_APPEND)
    }),
    probe!("truncate a granted file by opening it", CLOSED, |scene, _| {
        open(&scene.path("granted/file"), O_WRONLY | O_TRUNC)
    }),
    probe!("open a closed file to write", CLOSED, |scene, _| open(&scene.path("closed/file"), O_WRONLY)),
    probe!("create a file in a granted directory", CLOSED, |scene, _| {
        open(&scene.path("granted/created"), O_WRONLY | O_CREAT)
    }),
    probe!("create a file in a closed directory", CLOSED, |scene, _| {
        open(&scene.path("closed/created"), O_WRONLY | O_CREAT)
    }),
    probe!("create a file without a name", CLOSED, |scene, _| open(
        &scene.path("closed"),
        O_WRONLY | O_TMPFILE
    )),
    probe!("open a device to write", CLOSED, |_, _| open(Path::new("/dev/null"), O_WRONLY)),
    probe!("change the out-of-memory score", CLOSED, |_, _| {
        open(Path::new("/proc/self/oom_score_adj"), O_WRONLY)
    }),
    probe!("grow a file that was open before", &[(Limits, EFBIG)], |_, handles| {
        (&handles.sink).write_all(b"more").map_err(|error| raw(&error))
    }),
    // Changing names.
    probe!("make a directory", CHANGE, |scene, _| {
        std::fs::create_dir(scene.path("granted/made")).map_err(|error| raw(&error))
    }),
    probe!("rename a file", CHANGE, |scene, _| {
        std::fs::rename(scene.path("granted/rename"), scene.path("granted/renamed"))
            .map_err(|error| raw(&error))
    }),
    probe!("link a file", CHANGE, |scene, _| {
        std::fs::hard_link(scene.path("granted/file"), scene.path("closed/linked"))
            .map_err(|error| raw(&error))
    }),
    probe!("make a symbolic link", CHANGE, |scene, _| {
        std::os::unix::fs::symlink("/", scene.path("granted/symbolic")).map_err(|error| raw(&error))
    }),
    probe!("remove a file", CHANGE, |scene, _| {
        std::fs::remove_file(scene.path("granted/remove")).map_err(|error| raw(&error))
    }),
    probe!("remove a directory", CHANGE, |scene, _| {
        std::fs::remove_dir(scene.path("granted/empty")).map_err(|error| raw(&error))
    }),
    probe!("make a FIFO", CHANGE, |scene, _| by_path(SYS_mknodat, scene, "granted/fifo", [0o010_600, 0])),
    probe!("truncate a file", CHANGE, |scene, _| {
        let path = c_path(scene, "granted/file");
        call_with(SYS_truncate, [path.as_ptr() as usize, 0]).map(drop)
    }),
    // Changing attributes.
    probe!("change a file's mode", ATTRIBUTE, |scene, _| {
        let mode = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(scene.path("granted/file"), mode).map_err(|error| raw(&error))
    }),
    probe!("change a file's owner", ATTRIBUTE, |scene, _| {
        let path = scene.path("granted/file");
        let owner = std::fs::metadata(&path).map_err(|error| raw(&error))?;
        std::os::unix::fs::lchown(&path, Some(owner.uid()), None).map_err(|error| raw(&error))
    }),
    probe!("change a file's times", ATTRIBUTE, |scene, _| by_path(
        SYS_utimensat,
        scene,
        "granted/file",
        [0, 0]
    )),
    probe!("change an open file's mode", ATTRIBUTE, |_, handles| {
        handles.sink.set_permissions(std::fs::Permissions::from_mode(0o600)).map_err(|error| raw(&error))
    }),
    probe!("truncate an open file", ATTRIBUTE, |_, handles| handles
        .sink
        .set_len(0)
        .map_err(|error| raw(&error))),
    probe!("set an open file's attribute", ATTRIBUTE, |_, handles| {
        let fd = super::attempt::number(&handles.sink);
        call_with(SYS_fsetxattr, [fd, c"user.probe".as_ptr() as usize, c"1".as_ptr() as usize, 1, 0])
            .map(drop)
    }),
    // Executing.
    probe!("execute a granted file", CHANGE, |scene, _| {
        // It holds no program: a kernel that would run it says so.
        let path = c_path(scene, "granted/program");
        let none = [std::ptr::null::<u8>()];
        let none = none.as_ptr() as usize;
        call_with(SYS_execve, [path.as_ptr() as usize, none, none]).map(drop)
    }),
    probe!("execute a descriptor", ATTRIBUTE, |scene, _| {
        let path = c_path(scene, "granted/program");
        let none = [std::ptr::null::<u8>()];
        let none = none.as_ptr() as usize;
        call_with(SYS_execveat, [word(AT_FDCWD), path.as_ptr() as usize, none, none, 0]).map(drop)
    }),
];

fn list(path: &Path) -> Result<(), Errno> {
    std::fs::read_dir(path).map(drop).map_err(|error| raw(&error))
}

fn of_parent(file: &str, flags: libc::c_int) -> Result<(), Errno> {
    open(Path::new(&format!("/proc/{}/{file}", nix::unistd::getppid())), flags)
}

fn c_path(scene: &Scene, name: &str) -> CString {
    CString::new(scene.path(name).as_os_str().as_bytes()).expect("a path that came as an argument has no NUL")
}

/// A call on a path relative to a directory, with two more arguments.
fn by_path(number: i64, scene: &Scene, name: &str, rest: [usize; 2]) -> Result<(), Errno> {
    let path = c_path(scene, name);
    call_with(number, [word(AT_FDCWD), path.as_ptr() as usize, rest[0], rest[1]]).map(drop)
}
