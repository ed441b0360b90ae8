//! The jail's self-test as a program of its own, for tests of this crate: run as the user to test, it prints the result of
//! a jail with the layers named as arguments, and with `forks` in a copy of a process that may make some.

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use conductor_jail::{Layer, probe};

    probe::run_if_asked();
    let names: Vec<String> = std::env::args().skip(1).collect();
    let layers = Layer::ALL.into_iter().filter(|layer| names.iter().any(|name| name == layer.name()));
    let test = std::env::current_exe()?;
    let result = match names.iter().any(|name| name == "forks") {
        true => probe::self_test_of_fork(&test, layers)?,
        false => probe::self_test(&test, layers)?,
    };
    serde_json::to_writer(std::io::stdout(), &result)?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn main() {}
