//! Where this process's own control group is.

use std::fs;
use std::path::{Path, PathBuf};

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Own {
    pub(super) path: PathBuf,
    /// The topmost group that can be seen from here.
    pub(super) top: PathBuf,
}

/// `None` without a cgroup v2 tree that can be seen.
pub(super) fn group() -> Option<Own> {
    let read = |path| fs::read_to_string(path).ok();
    find(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?)
}

/// The cgroup v2 group named in `/proc/self/cgroup`, by `/proc/self/mountinfo`.
fn find(mounts: &str, membership: &str) -> Option<Own> {
    let group = membership.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        if kind.split(' ').next() != Some("cgroup2") {
            return None;
        }
        // In a container only a part of the tree is mounted, and the group may lie outside it.
        let below = Path::new(group).strip_prefix(root).ok()?;
        let top = PathBuf::from(point);
        // Joining nothing would leave a slash at the end.
        Some(Own { path: if below.as_os_str().is_empty() { top.clone() } else { top.join(below) }, top })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "24 1 0:22 / /sys rw - sysfs sysfs rw\n\
        39 31 0:36 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";

    #[test]
    fn the_own_group_is_found_among_the_mounts() {
        let service = "1:cpu:/\n0::/user.slice/app.slice/conductor.service\n";
        let container = "30 1 0:26 /docker/7 /sys/fs/cgroup ro - cgroup2 cgroup ro\n";
        let table = [
            (HYBRID, "1:cpu:/\n0::/\n", Some(["/sys/fs/cgroup/unified"; 2])),
            (
                HYBRID,
                service,
                Some([
                    "/sys/fs/cgroup/unified/user.slice/app.slice/conductor.service",
                    "/sys/fs/cgroup/unified",
                ]),
            ),
            (container, "0::/docker/7/a\n", Some(["/sys/fs/cgroup/a", "/sys/fs/cgroup"])),
            (container, "0::/\n", None),
            (HYBRID, "1:cpu:/\n", None),
            ("24 1 0:22 / /sys rw - sysfs sysfs rw\n", "0::/\n", None),
            ("garbage\n\n", "0::/\n", None),
        ];
        for (mounts, membership, expected) in table {
            let expected = expected.map(|[path, top]| Own { path: path.into(), top: top.into() });
            assert_eq!(find(mounts, membership), expected, "{membership:?}");
        }
    }
}
