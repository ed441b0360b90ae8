//! The daemon's executable, and the launcher of its workers.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(conductor_daemon::main_impl())
}
