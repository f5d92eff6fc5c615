//! The command line.

pub mod args;
mod ask;
mod doctor;
mod events;
mod generate;
mod history;
mod incidents;
mod logger;
mod manual;
mod output;
mod privileges;
mod when;

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Parser as _;
use log::LevelFilter;

use crate::{
    config::{Config, Overrides},
    daemon::{self, RunOptions},
    surface::client::ClientError,
};
use args::{Cli, Command, Common, ConfigCommand, RunArgs};
use output::Output;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// All is well.
    Well,
    /// It did its work, and the answer is no: degraded, different, not everything restored.
    Not,
}

/// The exit status where there is no daemon to ask.
const NOT_RUNNING: u8 = 3;

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let usual = if matches!(cli.command, Command::Run(_)) { LevelFilter::Info } else { LevelFilter::Warn };
    logger::start(usual, cli.common.quiet, cli.common.verbose);
    // Where 1 is an answer, trouble is 2.
    let answers = matches!(
        cli.command,
        Command::Status(_) | Command::Diff(_) | Command::Release(_) | Command::Doctor(_)
    );
    let trouble = if answers { 2 } else { 1 };
    match dispatch(cli.command, &cli.common) {
        Ok(Ended::Well) => ExitCode::SUCCESS,
        Ok(Ended::Not) => ExitCode::from(1),
        // Whoever read the output has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // A standard error that is gone is nobody's fault.
            let mut stderr = io::stderr();
            for line in format!("{error:#}").lines() {
                let _ = writeln!(stderr, "route-guardian: {line}");
            }
            match error.downcast_ref() {
                Some(ClientError::NotRunning(_)) => ExitCode::from(NOT_RUNNING),
                _ => ExitCode::from(trouble),
            }
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn dispatch(command: Command, common: &Common) -> anyhow::Result<Ended> {
    let output = Output::new(common);
    match command {
        Command::Run(args) => run(&args, common),
        Command::Status(args) => ask::status(args.output, &places(common)?, &output),
        Command::Events(args) => events::events(&args, &places(common)?, &output),
        Command::Incidents(args) => incidents::incidents(&args, &places(common)?, &output),
        Command::Explain(args) => {
            // What is set on the node is told where the configuration says what is guarded; not without.
            let config = Config::load(common.config.as_deref(), &overrides(common)).ok();
            incidents::explain(&args, config.as_ref(), &places(common)?, &output)
        }
        Command::Doctor(args) => {
            let config = Config::load(common.config.as_deref(), &overrides(common))?;
            doctor::doctor(&args, &config, &output)
        }
        Command::Snapshot(args) => ask::snapshot(args, &places(common)?, &output),
        Command::Diff(args) => ask::diff(&args, &places(common)?, &output),
        Command::Restore(args) => ask::restore(args, &places(common)?, &output),
        Command::Release(args) => ask::release(&args, &places(common)?, &output),
        Command::Config(ConfigCommand::Check { file }) => {
            let named = file.or_else(|| common.config.clone());
            let config = Config::load(named.as_deref(), &Overrides::default())?;
            if let Some(beyond) = config.beyond_this_build() {
                log::warn!("{beyond}");
            }
            if common.quiet == 0 {
                let name = named.unwrap_or_else(|| crate::config::DEFAULT_PATH.into());
                output::print_now(&format!("{}: fine\n", name.display()))?;
            }
            Ok(Ended::Well)
        }
        Command::Config(ConfigCommand::Show { explain }) => {
            let config = Config::load(common.config.as_deref(), &overrides(common))?;
            output.print(&if explain { config.to_explained_toml() } else { config.to_toml() })?;
            Ok(Ended::Well)
        }
        Command::Completions { shell } => {
            output::print_now(&generate::completions(shell))?;
            Ok(Ended::Well)
        }
        Command::Man { dir } => {
            generate::man(&dir)
                .with_context(|| format!("cannot write manual pages into {}", dir.display()))?;
            Ok(Ended::Well)
        }
    }
}

fn overrides(common: &Common) -> Overrides {
    // Relative to where one stands, as on every command line.
    let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
    Overrides {
        socket: common.socket.as_ref().map(absolute),
        state_dir: common.state_dir.as_ref().map(absolute),
        ..Overrides::default()
    }
}

fn run(args: &RunArgs, common: &Common) -> anyhow::Result<Ended> {
    let overrides = Overrides {
        profile: args
            .profile
            .as_ref()
            .map(|name| if name.contains('/') { absolute(name) } else { name.clone() }),
        mode: args.mode(),
        listen: args.listen.clone(),
        ..overrides(common)
    };
    let config = Config::load(common.config.as_deref(), &overrides)?;
    match privileges::Capabilities::effective() {
        Some(held) => {
            for warning in privileges::check(held, config.mode, args.no_bpf)? {
                log::warn!("{warning}");
            }
        }
        None => log::warn!("cannot read the capabilities from /proc/self/status; going on without the check"),
    }
    let options = RunOptions {
        config_path: common.config.as_ref().and_then(|path| std::path::absolute(path).ok()),
        overrides,
        no_bpf: args.no_bpf,
        debug_bpf: args.debug_bpf,
    };
    daemon::run(config, options)?;
    Ok(Ended::Well)
}

fn absolute(path: &str) -> String {
    std::path::absolute(path).map_or_else(|_| path.to_owned(), |path| path.to_string_lossy().into_owned())
}

/// Where the daemon is to be found.
struct Places {
    socket: PathBuf,
    state_dir: PathBuf,
}

/// The configuration is read only for what the options do not say.
fn places(common: &Common) -> anyhow::Result<Places> {
    let overrides = overrides(common);
    if let (Some(socket), Some(state_dir)) = (&overrides.socket, &overrides.state_dir) {
        return Ok(Places { socket: socket.clone(), state_dir: state_dir.clone() });
    }
    let config = Config::load(common.config.as_deref(), &overrides)?;
    Ok(Places { socket: config.control.socket, state_dir: config.state.dir })
}

#[cfg(test)]
mod tests;
