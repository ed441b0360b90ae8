//! Reading a file that decides what code may do: only one that nobody but the user and root can have written.
//!
//! The file, and each directory on its way, must belong to the user or to root and be writable by nobody else; otherwise
//! another user could write it, or put another in its place. Symbolic links are followed where that holds for both ends, so
//! that a configuration may be kept with other dotfiles. Nobody else can change a way that was found right, which is why it
//! may be looked at first and opened after.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::{Gid, Group, Uid, User, geteuid};

use super::ConfigError;

/// More than this is no configuration but a mistake.
const MAX_BYTES: u64 = 1024 * 1024;

/// As many links as the kernel follows (`ELOOP`, path_resolution(7)).
const MAX_LINKS: usize = 40;

const STICKY: u32 = 0o1000;
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;

/// The text of a file that can be trusted.
///
/// # Errors
/// A file that is not there or cannot be read, that others could have written, or that is no text.
pub(crate) fn read_trusted(path: &Path) -> Result<String, ConfigError> {
    let read_error = |source| ConfigError::Read { path: path.to_owned(), source };
    let real = Way { asked: path, links: 0 }.walk(path)?;
    // A link or a pipe that came there in the meantime is not followed or waited for.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(&real).map_err(read_error)?;
    check_file(path, &real, &file.metadata().map_err(read_error)?)?;
    text_of(file, path)
}

fn text_of(file: File, path: &Path) -> Result<String, ConfigError> {
    let mut bytes = Vec::new();
    let read = file.take(MAX_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(untrusted(path, path, "is larger than 1 MiB", "name a configuration file".into()));
    }
    String::from_utf8(bytes).map_err(|_| untrusted(path, path, "is no UTF-8 text", "save it as UTF-8".into()))
}

/// The way to a file, component by component.
struct Way<'a> {
    /// As it was named.
    asked: &'a Path,
    links: usize,
}

impl Way<'_> {
    /// Looks at each directory, follows links, and gives the path in which there are none.
    fn walk(&mut self, path: &Path) -> Result<PathBuf, ConfigError> {
        let absolute = std::path::absolute(path).map_err(|source| self.read_error(source))?;
        let mut real = PathBuf::from("/");
        self.check_directory(&real)?;
        let mut rest = absolute.components().skip(1).peekable();
        while let Some(part) = rest.next() {
            if part == Component::ParentDir {
                real.pop();
                continue;
            }
            let next = real.join(part);
            let meta = fs::symlink_metadata(&next).map_err(|source| self.read_error(source))?;
            if meta.is_symlink() {
                self.check_owner(&next, &meta)?;
                let target = fs::read_link(&next).map_err(|source| self.read_error(source))?;
                let more: PathBuf = rest.collect();
                self.links += 1;
                if self.links > MAX_LINKS {
                    return Err(self.read_error(nix::errno::Errno::ELOOP.into()));
                }
                return self.walk(&real.join(target).join(more));
            }
            real = next;
            if rest.peek().is_some() {
                self.check_directory(&real)?;
            }
        }
        Ok(real)
    }

    fn check_directory(&self, directory: &Path) -> Result<(), ConfigError> {
        let meta = fs::metadata(directory).map_err(|source| self.read_error(source))?;
        self.check_owner(directory, &meta)?;
        // In a sticky directory others make files, but replace none that are not theirs.
        if writable_by_others(&meta) && meta.mode() & STICKY == 0 {
            let hint = format!("chmod go-w {}", directory.display());
            return Err(untrusted(self.asked, directory, "can be written by others", hint));
        }
        Ok(())
    }

    fn check_owner(&self, at: &Path, meta: &Metadata) -> Result<(), ConfigError> {
        if is_own(meta) {
            return Ok(());
        }
        let hint = format!("chown it, or keep the file elsewhere: chown \"$USER\" {}", at.display());
        Err(untrusted(self.asked, at, "belongs to another user", hint))
    }

    fn read_error(&self, source: io::Error) -> ConfigError {
        ConfigError::Read { path: self.asked.to_owned(), source }
    }
}

fn check_file(path: &Path, real: &Path, meta: &Metadata) -> Result<(), ConfigError> {
    let wrong = |why, hint| Err(untrusted(path, real, why, hint));
    if !meta.is_file() {
        return wrong("is not a regular file", "name a file".into());
    }
    if !is_own(meta) {
        return wrong("belongs to another user", format!("chown it: chown \"$USER\" {}", real.display()));
    }
    if writable_by_others(meta) {
        return wrong("can be written by others", format!("chmod go-w {}", real.display()));
    }
    Ok(())
}

fn untrusted(path: &Path, at: &Path, why: &'static str, hint: String) -> ConfigError {
    ConfigError::Untrusted { path: path.to_owned(), at: at.to_owned(), why, hint }
}

fn is_own(meta: &Metadata) -> bool {
    meta.uid() == geteuid().as_raw() || meta.uid() == 0
}

/// A group of one is nobody else: some systems make files that the user's own group may write.
fn writable_by_others(meta: &Metadata) -> bool {
    let mode = meta.mode();
    mode & OTHERS_WRITE != 0 || mode & GROUP_WRITES != 0 && !is_private_group(meta.gid())
}

/// Whether a group is the one that was made for this user alone: it has the user's name, is the user's first group, and has no
/// other member.
fn is_private_group(gid: u32) -> bool {
    // Where the tables of users cannot be read, nobody is known to be alone.
    let user = User::from_uid(Uid::effective()).ok().flatten();
    let group = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
    let (Some(user), Some(group)) = (user, group) else { return false };
    gid != 0
        && user.gid.as_raw() == gid
        && user.name == group.name
        && group.mem.iter().all(|member| *member == user.name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("sets the mode");
    }

    fn refusal(path: &Path) -> String {
        read_trusted(path).expect_err("is not trusted").to_string()
    }

    fn directory() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().canonicalize().expect("is there");
        (dir, root)
    }

    #[test]
    fn a_file_that_others_can_write_is_refused() {
        let (_dir, root) = directory();
        let path = root.join("c.toml");
        fs::write(&path, "x").expect("writes");
        for bits in [0o666, 0o602, 0o622] {
            mode(&path, bits);
            let told = refusal(&path);
            assert!(told.contains("can be written by others") && told.contains("hint: chmod go-w"), "{told}");
        }
        mode(&path, 0o644);
        assert_eq!(read_trusted(&path).expect("is right"), "x");
    }

    #[test]
    fn a_directory_that_others_can_write_is_refused_unless_it_is_sticky() {
        let (_dir, root) = directory();
        let (above, below) = (root.join("a"), root.join("a/b"));
        fs::create_dir_all(&below).expect("makes");
        let path = below.join("c.toml");
        fs::write(&path, "x").expect("writes");
        for directory in [&above, &below] {
            mode(directory, 0o777);
            let told = refusal(&path);
            assert!(told.contains(&format!("{} can be written by others", directory.display())), "{told}");
            mode(directory, 0o1777);
            assert_eq!(read_trusted(&path).expect("is sticky"), "x");
            mode(directory, 0o755);
        }
    }

    #[test]
    fn links_are_followed_where_both_ends_are_safe() {
        let (_dir, root) = directory();
        let dotfiles = root.join("dotfiles");
        fs::create_dir(&dotfiles).expect("makes");
        fs::write(dotfiles.join("c.toml"), "x").expect("writes");
        let link = root.join("c.toml");
        symlink("dotfiles/../dotfiles/c.toml", &link).expect("links");
        assert_eq!(read_trusted(&link).expect("is safe"), "x");
        mode(&dotfiles, 0o777);
        assert!(refusal(&link).contains("dotfiles can be written by others"));
        mode(&dotfiles, 0o755);
        fs::remove_file(&link).expect("removes");
        symlink(&link, &link).expect("links");
        assert!(matches!(read_trusted(&link), Err(ConfigError::Read { .. })));
    }

    #[test]
    fn what_is_no_file_is_refused_and_not_waited_for() {
        let (_dir, root) = directory();
        let pipe = root.join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).expect("makes a pipe");
        assert!(refusal(&pipe).contains("is not a regular file"));
        assert!(refusal(&root).contains("is not a regular file"));
        let path = root.join("c.toml");
        fs::write(&path, [0xff]).expect("writes");
        assert!(refusal(&path).contains("no UTF-8"));
        fs::write(&path, " ".repeat(1 << 20) + " ").expect("writes");
        assert!(refusal(&path).contains("larger than 1 MiB"));
    }

    #[test]
    fn a_file_of_another_user_is_refused() {
        let (_dir, root) = directory();
        let path = root.join("c.toml");
        fs::write(&path, "x").expect("writes");
        // Only root can give a file away; others see the same rule in the mode tests.
        if !geteuid().is_root() {
            return;
        }
        std::os::unix::fs::chown(&path, Some(12_345), None).expect("gives it away");
        assert!(refusal(&path).contains("belongs to another user"));
        std::os::unix::fs::chown(&path, Some(0), None).expect("takes it back");
        std::os::unix::fs::chown(&root, Some(12_345), None).expect("gives it away");
        assert!(refusal(&path).contains("belongs to another user"));
    }
}
