//! The command line as clap sees it: the parser, the help, the completions and the man pages are all made from
//! this.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

use crate::config::{Mode, profile};

/// Sees a CNI's routes disappear, names who did it, and puts them back.
#[derive(Debug, Parser)]
#[command(name = "route-guardian", version, arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// What all commands have in common.
    #[command(flatten)]
    pub common: Common,
}

/// Options of every command.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Common options")]
pub struct Common {
    /// The configuration file [default: /etc/route-guardian/config.toml, which may be absent]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// The control socket [default: that of the configuration]
    #[arg(long, global = true, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub socket: Option<PathBuf>,
    /// The state folder, which has the journal [default: that of the configuration]
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub state_dir: Option<PathBuf>,
    /// When to use colours; auto: on a terminal, unless `NO_COLOR` is set
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_possible_values = false)]
    pub color: When,
    /// Do not show long output in a pager
    #[arg(long, global = true)]
    pub no_pager: bool,
    /// No headings and summaries
    #[arg(long, global = true)]
    pub no_legend: bool,
    /// Times in UTC instead of local time
    #[arg(long, global = true)]
    pub utc: bool,
    /// Say less: warnings only, twice errors only
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub quiet: u8,
    /// Say more: details, twice everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "the words say it")]
pub enum When {
    Auto,
    Always,
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Guard the network namespace that it is started in; in the foreground
    Run(RunArgs),
    /// Health, counts, sensors and the last change
    ///
    /// Exit status: 0 fine, 1 degraded, 3 not running.
    Status(OutputArgs),
    /// Changes to guarded objects, the newest last
    ///
    /// Before each object stands what happened: - deleted, ~ replaced or changed, ↓ taken down. An outage that is
    /// "open" had not ended when it was recorded.
    Events(EventsArgs),
    /// The changes that one actor made in one burst, taken together, the newest last
    ///
    /// OUTAGE is the time in which anything was missing; BEFORE is how many incidents of the same program the journal
    /// has from before. The owner's own changes are not incidents.
    Incidents(IncidentsArgs),
    /// What happened, when, who did it, why, and how to stop it
    Explain(ExplainArgs),
    /// Trouble that has not struck yet, and the files that prevent it
    ///
    /// Looks at the kernel, the running guardian and its sensors, and at the configuration of programs that are known
    /// to undo routes. Exit status: 0 all is well, 1 something is wrong, 2 trouble.
    Doctor(DoctorArgs),
    /// The desired state
    Snapshot(SnapshotArgs),
    /// The desired state against what the kernel has
    ///
    /// - is missing, ~ is different, + is not desired. Exit status: 0 equal, 1 different, 2 trouble, 3 not running.
    Diff(DiffArgs),
    /// Put back now what is missing
    Restore(RestoreArgs),
    /// Let go of what damping holds, so that it is tried again now
    ///
    /// `status` shows what is held, and against whom. Exit status: 0 released, or without a key nothing is held; 1
    /// nothing of this key is held; 2 trouble; 3 not running.
    Release(ReleaseArgs),
    /// Check or print the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print completions for a shell
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a folder
    Man {
        /// The folder; it is made where it is absent.
        #[arg(value_hint = ValueHint::DirPath)]
        dir: PathBuf,
    },
}

/// Options of `run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// `--profile`; the help names the built-in ones.
    #[arg(long, value_name = "NAME", help = profile_help())]
    pub profile: Option<String>,
    /// observe: touch nothing; restore: undo what is not the owner's
    #[arg(long, value_parser = ["observe", "restore"])]
    pub mode: Option<String>,
    /// Where to serve metrics and health; "" for nowhere
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<String>,
    /// Do without BPF: restores, but cannot name anyone
    #[arg(long)]
    pub no_bpf: bool,
    /// Let the BPF programs log what they do
    #[arg(long, conflicts_with = "no_bpf")]
    pub debug_bpf: bool,
}

impl RunArgs {
    /// `--mode`.
    pub fn mode(&self) -> Option<Mode> {
        self.mode.as_deref().map(|mode| if mode == "observe" { Mode::Observe } else { Mode::Restore })
    }
}

fn profile_help() -> String {
    let names: Vec<&str> = profile::names().collect();
    format!("What is guarded: {}, or the path of a profile's file", names.join(", "))
}

/// Text for people or JSON for programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "the words say it")]
pub enum Output {
    #[default]
    Text,
    Json,
}

/// How to print events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum EventOutput {
    /// One line an event, cut to the width
    #[default]
    Compact,
    /// Everything, uncut, with arguments, ancestors and ids
    Wide,
    /// The records, one JSON object a line
    Json,
}

/// Options of commands that print one thing.
#[derive(Args, Clone, Copy, Debug)]
pub struct OutputArgs {
    /// The form of the output
    #[arg(short, long, value_name = "FORM", default_value = "text")]
    pub output: Output,
}

/// Which changes are meant.
#[derive(Args, Clone, Debug)]
pub struct Which {
    /// Only since then: 1h, 03:02, 2026-11-22, "2026-11-22 03:02", or with a zone 2026-11-22T03:02:11Z
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only before then; as --since
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Only the last N
    #[arg(long, value_name = "N")]
    pub last: Option<usize>,
    /// Only objects with this in their text, or within this prefix
    #[arg(long, value_name = "TEXT|PREFIX")]
    pub object: Option<String>,
    /// Only actors with this in their class, name, executable, unit, pod or cgroup, or of this pid
    #[arg(long, value_name = "TEXT|PID")]
    pub actor: Option<String>,
}

/// Options of `events`.
#[derive(Args, Clone, Debug)]
pub struct EventsArgs {
    /// Go on with those that come
    #[arg(short, long)]
    pub follow: bool,
    /// Which changes.
    #[command(flatten)]
    pub which: Which,
    /// Only the changes of this incident (`incidents -w` shows the ids)
    #[arg(long, value_name = "ID")]
    pub incident: Option<String>,
    /// The form of the output
    #[arg(short, long, value_name = "FORM", default_value = "compact")]
    pub output: EventOutput,
}

/// Options of `incidents`.
#[derive(Args, Clone, Debug)]
pub struct IncidentsArgs {
    /// Incidents with which changes.
    #[command(flatten)]
    pub which: Which,
    /// What was run, objects, causes and ids below each
    #[arg(short, long)]
    pub wide: bool,
    /// text, or one JSON object a line
    #[arg(short, long, value_name = "FORM", default_value = "text")]
    pub output: Output,
}

/// Options of `explain`.
#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    /// The id of a change (`events -o wide`) or of an incident (`incidents -w`), or the end of one
    #[arg(value_name = "ID", conflicts_with = "last")]
    pub id: Option<String>,
    /// The last incident, by the change that tells most of it; this is the default
    #[arg(long)]
    pub last: bool,
    /// The form of the output
    #[arg(short, long, value_name = "FORM", default_value = "text")]
    pub output: Output,
}

/// Options of `doctor`.
#[derive(Args, Clone, Debug)]
pub struct DoctorArgs {
    /// Show what would be written, as a diff
    #[arg(long)]
    pub fix: bool,
    /// Write it; never over a file that somebody else has written
    #[arg(long, requires = "fix")]
    pub yes: bool,
    /// Where the node's root folder is, for tests and images.
    #[arg(long, hide = true, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// The form of the output
    #[arg(short, long, value_name = "FORM", default_value = "text")]
    pub output: Output,
}

/// Options of `snapshot`.
#[derive(Args, Clone, Copy, Debug)]
pub struct SnapshotArgs {
    /// What the guardian believes that the kernel holds in scope, instead of what is desired
    #[arg(long)]
    pub observed: bool,
    /// The form of the output
    #[arg(short, long, value_name = "FORM", default_value = "text")]
    pub output: Output,
}

/// Options of `diff`.
#[derive(Args, Clone, Debug)]
pub struct DiffArgs {
    /// Compare this snapshot (from `snapshot -o json`; - for the standard input) instead of the desired state
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// The form of the output
    #[arg(short, long, value_name = "FORM", default_value = "text")]
    pub output: Output,
}

/// Options of `restore`.
#[derive(Args, Clone, Copy, Debug)]
pub struct RestoreArgs {
    /// Only print the plan
    #[arg(long)]
    pub dry_run: bool,
    /// The form of the output
    #[arg(short, long, value_name = "FORM", default_value = "text")]
    pub output: Output,
}

/// Options of `release`.
#[derive(Args, Clone, Debug)]
pub struct ReleaseArgs {
    /// Only objects that go by this: a prefix, an interface, an address with its length, a rule's priority
    ///
    /// Without one, everything that is held.
    pub key: Option<String>,
    /// Everything that is held, which is what happens without a key too
    #[arg(long, conflicts_with = "key")]
    pub all: bool,
    /// The form of the output
    #[arg(short, long, value_name = "FORM", default_value = "text")]
    pub output: Output,
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check a file; each error names file, line, key and what would be right
    Check {
        /// The file [default: the one in use].
        #[arg(value_hint = ValueHint::FilePath)]
        file: Option<PathBuf>,
    },
    /// Print the effective configuration with every default
    Show {
        /// With comments that say what each key is
        #[arg(long)]
        explain: bool,
    },
}
