//! Measures what entering the jail costs, by layer: `cargo run -p conductor-jail --example apply_cost [ROUNDS]`.
//!
//! Each measurement is a process of its own, since a jail cannot be left. Figures of an unoptimised build are several times
//! those of a release.

#![expect(clippy::print_stdout, reason = "its output is its purpose")]

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use std::time::Instant;

    use conductor_jail::{Jail, Layer, Level};

    let program = std::env::current_exe()?;
    let mut args = std::env::args().skip(1);
    let first = args.next();
    if first.as_deref() == Some("once") {
        let layers = args.filter_map(|name| Layer::ALL.into_iter().find(|layer| layer.name() == name));
        let jail = Jail { layers: layers.collect(), ..Jail::new(program) };
        let started = Instant::now();
        jail.apply(Level::Strict, None)?;
        println!("{}", started.elapsed().as_nanos());
        return Ok(());
    }
    let rounds = first.map_or(Ok(200), |rounds| rounds.parse())?;
    let mut sets: Vec<Vec<&str>> = Layer::DEFAULT.map(|layer| vec![layer.name()]).into();
    sets.push(Layer::DEFAULT.map(Layer::name).into());
    for layers in sets {
        let mut micros = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            let output = std::process::Command::new(&program).arg("once").args(&layers).output()?;
            micros.push(String::from_utf8(output.stdout)?.trim().parse::<u64>()? / 1000);
        }
        micros.sort_unstable();
        println!("{:45} p50 {:5}  min {:5} us", layers.join(" "), micros[rounds / 2], micros[0]);
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("there is no jail on this system");
}
