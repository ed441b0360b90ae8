//! Compiles the native part of templates (`fork/`) into a shared library, which becomes part of the program: one file to
//! install, and no library to look for.
//!
//! With the compiler alone: Cargo has no stable way for a crate to contain another's shared library, and these sources have
//! no dependencies. Where Deno does not run on glibc there is nothing to load it, and the library is empty.

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=fork/src");
    let library = PathBuf::from(env::var("OUT_DIR")?).join("libconductor_fork.so");
    let of_target = |what: &str| env::var(format!("CARGO_CFG_TARGET_{what}"));
    let target = [of_target("OS")?, of_target("ENV")?, of_target("POINTER_WIDTH")?];
    if target != ["linux", "gnu", "64"] {
        return Ok(std::fs::write(library, [])?);
    }
    let mut compiler = Command::new(env::var("RUSTC")?);
    compiler.args([
        "--edition=2024",
        "--crate-type=cdylib",
        "--crate-name=conductor_fork",
        "fork/src/lib.rs",
    ]);
    compiler.args(["-Copt-level=2", "-Cpanic=abort", "-Cstrip=symbols", "--target", &env::var("TARGET")?]);
    // The harness closes the library before it imports packages, and calls it afterwards.
    compiler.arg("-Clink-arg=-Wl,-z,nodelete");
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        compiler.arg(format!("-Clinker={linker}"));
    }
    let status = compiler.arg("-o").arg(library).status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("the library of templates was not built: {status}").into())
    }
}
