//! Measurements against other programs, side by side in one run.

mod figures;
mod flush;
mod outage;
mod rivals;

pub use rivals::floor;

use std::{fs, path::Path};

use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::program::is_watched;

/// What is measured.
#[derive(Subcommand)]
pub enum What {
    /// How long one deleted route is away, as the deleting process sees it
    Outage {
        /// Deletions for each program
        #[arg(long, default_value_t = 300)]
        rounds: usize,
        /// How to print the result
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// How long 10,000 routes deleted at once take to come back
    Flush {
        /// Routes
        #[arg(long, default_value_t = 10_000)]
        routes: u32,
        /// Deletions by each way, turn about
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// How to print the result
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
}

/// How to print a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A table for people
    #[default]
    Table,
    /// One JSON object
    Json,
}

/// Measures and prints, inside [`crate::contained::run`].
pub fn run(what: &What) -> Result<()> {
    match *what {
        What::Outage { rounds, output } => outage::run(rounds.max(1), output),
        What::Flush { routes, rounds, output } => flush::run(routes.clamp(1, 16_000), rounds.max(1), output),
    }
}

/// What it was measured on.
fn machine() -> Value {
    let read = |path: &str| fs::read_to_string(Path::new(path)).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    json!({
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "cpu": model.map_or("unknown", |(_, name)| name),
        "cpus": std::thread::available_parallelism().map_or(1, usize::from),
    })
}

/// A word of [`machine`].
fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// Says how far it is, where somebody watches.
fn progress(text: &str) {
    if is_watched(&std::io::stderr()) {
        eprint!("\r{text}\x1b[K");
    }
}
