#!/usr/bin/env bash
# The tests that need a real systemd user manager: `conductorctl service` from install to uninstall, restarts under load, the
# watchdog. They start a manager of their own, in namespaces and a control group of their own, so that no session and no
# service of this machine is touched. Needs root, cgroup v2 (beside v1 will do), and the packages systemd and dbus.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo test --package conductor-tests --test e2e --no-run
mounted=$(findmnt --noheadings --types cgroup2 --output TARGET --first-only)
group=$mounted/conductor-tests-$$
mkdir "$group"
clean_up() {
  # Only what was started here is in it.
  echo 1 >"$group/cgroup.kill"
  while grep -q 'populated 1' "$group/cgroup.events"; do sleep 0.1; done
  find "$group" -depth -type d -exec rmdir {} \;
}
trap clean_up EXIT
# A user manager takes over its whole control group, so it must not be the one that everything else is in.
bash -c 'echo $$ >"$1/cgroup.procs" && exec unshare --mount --cgroup --pid --fork --kill-child --mount-proc bash -c "
  set -euo pipefail
  umount --recursive /sys/fs/cgroup
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
  mkdir -p /run/systemd && mount -t tmpfs tmpfs /run/systemd && mkdir /run/systemd/system
  CONDUCTOR_TEST_SYSTEMD=1 cargo test --package conductor-tests --test e2e -- --ignored --test-threads 1 systemd::
"' bash "$group"
