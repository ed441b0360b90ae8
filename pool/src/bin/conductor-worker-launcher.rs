//! A launcher and nothing else, for tests of this crate: a test binary cannot be re-executed as one.

fn main() {
    conductor_pool::launcher::run_if_asked();
}
