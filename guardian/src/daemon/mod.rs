//! daemon

use std::path::PathBuf;

use crate::config::{Config, Overrides};

/// What the command line decides beyond the configuration.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// The configuration file that was named, to be read again on SIGHUP; `None`: the default one.
    pub config_path: Option<PathBuf>,
    /// What goes over the file, also when it is read again.
    pub overrides: Overrides,
    /// Do without BPF.
    pub no_bpf: bool,
    /// Let the BPF programs log.
    pub debug_bpf: bool,
}

/// Runs the daemon until it is told to end.
pub fn run(_config: Config, _options: RunOptions) -> anyhow::Result<()> {
    anyhow::bail!("the daemon is not built yet")
}
