//! Completions and manual pages, from the parser's own definitions and those of the configuration's keys.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::Path,
};

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{args::Cli, manual};

/// The completion script for a shell.
pub fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "route-guardian", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Writes a page for the program, for each of its commands, and for the configuration.
pub fn man(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), dir)?;
    for name in ["route-guardian", "route-guardian-run", "route-guardian-config"] {
        let mut page = OpenOptions::new().append(true).open(dir.join(format!("{name}.1")))?;
        page.write_all(b".SH \"SEE ALSO\"\n\\fBroute\\-guardian\\-config\\fR(5)\n")?;
    }
    fs::write(dir.join("route-guardian-config.5"), manual::config_page())
}
