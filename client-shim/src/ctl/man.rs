//! `conductorctl man`: the manual pages, made from the command line's own definition, for whoever builds a package.

use std::path::Path;

use clap::Command;

use super::exit_code;
use super::failure::Failure;

/// Writes a page for the program and one for each command into `directory`.
pub(super) fn write(program: Command, directory: &Path) -> Result<u8, Failure> {
    clap_mangen::generate_to(program.disable_help_subcommand(true), directory)?;
    Ok(exit_code::OK)
}
