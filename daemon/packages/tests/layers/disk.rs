//! A disk that is full, at every point of a build.

use std::path::Path;
use std::process::{Command, Stdio};

use conductor_packages::LayerError;
use tokio::sync::watch;

use crate::registry::left_and_right;
use crate::support::{Bed, import, request};

const LEFT: &str = "npm:left@^1";

fn mount(options: &str, at: &Path) {
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(at).status().unwrap();
    assert!(mount.success());
}

/// The other half of the next test: it may mount.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the test after this one runs it where it may mount small disks"]
async fn build_on_small_disks() {
    let registry = left_and_right().await;
    let mut failed = 0;
    let sizes = (16..=256).step_by(16).chain([320, 384, 448, 512, 768, 1024, 16 * 1024]);
    for kib in sizes.clone() {
        let root = tempfile::tempdir().unwrap();
        mount(&format!("size={kib}k"), root.path());
        let bed = Bed::borrowing(root.path(), registry.environment());
        match bed.ensure(LEFT).await {
            Ok(layer) => assert_eq!(import(&layer, LEFT), "ok", "{kib}"),
            Err(error @ LayerError::DiskFull) => {
                failed += 1;
                assert!(error.hint().is_some_and(|hint| hint.contains("free some space")));
                // A layer that could be finished, and not entered in the index, may stay.
                bed.finished().await;
                mount("remount,size=16m", root.path());
                // The next call is told the same for a moment; an operator need not wait.
                let (layer, _) = bed.layers.update(request(LEFT), &watch::Sender::default()).await.unwrap();
                assert_eq!(import(&layer, LEFT), "ok", "{kib}, when there is room");
            }
            Err(error) => panic!("{kib} KiB: {error:?}"),
        }
        drop(bed);
        let unmount = Command::new("umount").arg("-l").arg(root.path()).status().unwrap();
        assert!(unmount.success());
    }
    // How much Deno writes meanwhile differs from run to run; the first three are too small for its databases alone.
    assert!((3..sizes.count()).contains(&failed), "{failed} disks were too small");
}

#[test]
fn a_full_disk_is_said_to_be_full_and_leaves_nothing_unfinished() {
    let test = std::env::current_exe().unwrap();
    // Before the namespace, in which the user may be another.
    let deno = crate::support::deno().path;
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount"])
        .arg(test)
        .args(["--exact", "disk::build_on_small_disks", "--ignored", "--nocapture"])
        .env("RUST_BACKTRACE", "0")
        .env("CONDUCTOR_DENO", deno)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
