use std::os::unix::fs::symlink;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;

use super::*;

fn dir() -> TempDir {
    tempfile::tempdir().expect("directory")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("is there").mode() & 0o7777
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
        .collect();
    names.sort();
    names
}

#[test]
fn a_file_that_is_not_there_is_made_with_its_directories() {
    let dir = dir();
    let path = dir.path().join("a/b/c.json");
    let file = ConfigFile::read(&path).expect("reads");
    assert_eq!((file.exists(), file.bytes()), (false, &b""[..]));
    assert_eq!(file.replace(b"new", Access::New).expect("writes"), None);
    assert_eq!(fs::read(&path).expect("reads"), b"new");
    assert_eq!((mode(&path), mode(path.parent().expect("a parent"))), (0o600, 0o700));
    assert_eq!(names(path.parent().expect("a parent")), ["c.json"]);
}

#[test]
fn mode_and_links_stay_and_the_old_contents_are_kept() {
    let dir = dir();
    let (real, link) = (dir.path().join("real.json"), dir.path().join("link.json"));
    fs::write(&real, "old").expect("writes");
    fs::set_permissions(&real, Permissions::from_mode(0o644)).expect("is ours");
    symlink("real.json", &link).expect("links");
    let file = ConfigFile::read(&link).expect("reads");
    let backup = file.replace(b"new", Access::New).expect("writes").expect("a backup");
    assert!(fs::symlink_metadata(&link).expect("is there").is_symlink());
    assert_eq!((fs::read(&real).expect("reads"), mode(&real)), (b"new".to_vec(), 0o644));
    assert_eq!((fs::read(&backup).expect("reads"), mode(&backup)), (b"old".to_vec(), 0o600));
    let name = backup.file_name().expect("a name").to_str().expect("text");
    assert!(name.starts_with("link.json.conductor-backup-2") && name.ends_with('Z'), "{name}");

    let file = ConfigFile::read(&link).expect("reads");
    assert_eq!(file.backups().collect::<Vec<_>>(), [b"old".to_vec()]);
    let second = file.replace(b"newer", Access::Private).expect("writes").expect("a backup");
    assert_ne!(second, backup);
    assert_eq!(mode(&real), 0o600);
    assert_eq!(file.backups().collect::<Vec<_>>(), [b"new".to_vec(), b"old".to_vec()], "newest first");
    assert_eq!(names(dir.path()).len(), 4, "nothing else is left");
}

#[test]
fn a_file_that_another_program_has_written_since_stays() {
    let dir = dir();
    let path = dir.path().join("x.json");
    let absent = ConfigFile::read(&path).expect("reads");
    fs::write(&path, "theirs").expect("writes");
    assert!(matches!(absent.replace(b"ours", Access::New), Err(FileError::Changed { .. })));
    let present = ConfigFile::read(&path).expect("reads");
    fs::write(&path, "theirs again").expect("writes");
    assert!(matches!(present.replace(b"ours", Access::New), Err(FileError::Changed { .. })));
    assert_eq!(fs::read(&path).expect("reads"), b"theirs again");
    assert_eq!(names(dir.path()), ["x.json"], "and nothing is left beside it");
}

#[test]
fn what_is_no_file_is_refused() {
    let dir = dir();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir(path("dir")).expect("makes");
    mkfifo(&path("pipe"), Mode::S_IRWXU).expect("makes");
    symlink("nowhere", path("dangling")).expect("links");
    symlink("loop", path("loop")).expect("links");
    fs::write(path("file"), "").expect("writes");
    File::create(path("huge")).and_then(|file| file.set_len(MAX_BYTES + 1)).expect("makes");
    let refused = |name: &str| ConfigFile::read(&path(name)).expect_err(name);
    assert!(matches!(refused("dir"), FileError::NotFile { what: "a directory", .. }));
    assert!(matches!(refused("pipe"), FileError::NotFile { what: "a device or pipe", .. }));
    assert!(matches!(refused("dangling"), FileError::Dangling { .. }));
    assert!(matches!(refused("loop"), FileError::Read { .. }));
    assert!(matches!(refused("file/x.json"), FileError::Read { .. }));
    assert!(matches!(refused("huge"), FileError::TooLarge { .. }));
}

#[test]
fn what_this_user_may_not_write_is_refused_before_anything_is_done() {
    // Root may write everywhere; files of others are refused to root too.
    let dir = dir();
    let path = dir.path().join("x.json");
    fs::write(&path, "old").expect("writes");
    if geteuid().is_root() {
        std::os::unix::fs::chown(&path, Some(65534), None).expect("root may");
        let file = ConfigFile::read(&path).expect("reads");
        assert!(matches!(file.check_writable(), Err(FileError::Foreign { uid: 65534, .. })));
        return;
    }
    let system = ConfigFile::read(Path::new("/etc/passwd")).expect("reads");
    assert!(matches!(system.check_writable(), Err(FileError::Foreign { uid: 0, .. })));
    fs::set_permissions(&path, Permissions::from_mode(0o400)).expect("is ours");
    let file = ConfigFile::read(&path).expect("reads");
    assert!(matches!(file.replace(b"new", Access::New), Err(FileError::ReadOnly { path: at }) if at == path));
    fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("is ours");
    fs::set_permissions(dir.path(), Permissions::from_mode(0o500)).expect("is ours");
    assert!(matches!(file.check_writable(), Err(FileError::ReadOnly { path: at }) if at == dir.path()));
    let absent = ConfigFile::read(&dir.path().join("a/y.json")).expect("reads");
    assert!(matches!(absent.check_writable(), Err(FileError::ReadOnly { .. })));
    fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).expect("is ours");
}
