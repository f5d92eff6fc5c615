//! Completions and manual pages, from the parser's own definitions.

use std::{fs, io, path::Path};

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::args::Cli;

/// The completion script for a shell.
pub fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "route-guardian", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Writes a page for the program and each of its commands.
pub fn man(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), dir)
}
