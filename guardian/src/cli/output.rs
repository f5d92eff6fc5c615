//! Where output goes: the terminal with its colours, width and pager, or a pipe.

use std::{
    env,
    io::{self, IsTerminal as _, Write as _},
    process::{Command, Stdio},
};

use jiff::{Timestamp, tz::TimeZone};
use terminal_size::{Height, Width, terminal_size_of};

use super::{
    args::{Common, When, Which},
    when,
};
use crate::surface::{
    query::Query,
    text::{Style, WIDTH_MAX},
};

/// The standard output.
#[derive(Debug)]
pub struct Output {
    /// How text is laid out for it.
    pub style: Style,
    pager: Option<String>,
    rows: usize,
}

impl Output {
    /// The standard output as the options and the environment want it.
    pub fn new(common: &Common) -> Self {
        let terminal = io::stdout().is_terminal();
        let (columns, rows) = match terminal_size_of(io::stdout()) {
            Some((Width(columns), Height(rows))) if terminal => (usize::from(columns), usize::from(rows)),
            _ => (WIDTH_MAX, usize::MAX),
        };
        let colour = match common.color {
            When::Always => true,
            When::Never => false,
            // https://no-color.org
            When::Auto => terminal && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        };
        let zone = if common.utc { TimeZone::UTC } else { TimeZone::system() };
        let style = Style { colour, legend: !common.no_legend, width: columns, zone };
        Self { style, pager: (terminal && !common.no_pager).then(pager).flatten(), rows }
    }

    /// The query that the options stand for; times without a zone are in that of the output.
    ///
    /// # Errors
    /// If one of the times is none.
    pub fn query(&self, which: &Which) -> anyhow::Result<Query> {
        let time = |option, text: Option<&String>| {
            text.map(|text| when::parse(option, text, Timestamp::now(), &self.style.zone)).transpose()
        };
        Ok(Query {
            since: time("--since", which.since.as_ref())?,
            until: time("--until", which.until.as_ref())?,
            last: which.last,
            object: which.object.clone(),
            actor: which.actor.clone(),
            ..Query::default()
        })
    }

    /// Prints a text, through the pager if it is longer than the terminal.
    pub fn print(&self, text: &str) -> io::Result<()> {
        if let Some(pager) = &self.pager
            && text.lines().count() >= self.rows
            && page(pager, text).is_ok()
        {
            return Ok(());
        }
        print_now(text)
    }
}

/// Prints a text at once: for what comes line by line, and for programs.
pub fn print_now(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// What `$PAGER` says, or less; `None` for none.
fn pager() -> Option<String> {
    match env::var("PAGER") {
        Ok(pager) if matches!(pager.trim(), "" | "cat") => None,
        Ok(pager) => Some(pager),
        Err(_) => Some("less".into()),
    }
}

/// # Errors
/// If there is no such pager; then nothing was shown.
fn page(pager: &str, text: &str) -> io::Result<()> {
    let mut command = Command::new("sh");
    // Like others do: colours, no clearing of the screen, an end where it fits after all.
    if env::var_os("LESS").is_none() {
        command.env("LESS", "FRX");
    }
    let script = format!("command -v {} >/dev/null || exit 127; exec {pager}", first_word(pager));
    let mut child = command.arg("-c").arg(script).stdin(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // Who leaves the pager early closes the pipe.
        let _ = stdin.write_all(text.as_bytes());
    }
    match child.wait()?.code() {
        Some(127) => Err(io::ErrorKind::NotFound.into()),
        _ => Ok(()),
    }
}

fn first_word(command: &str) -> &str {
    command.split_whitespace().next().unwrap_or(command)
}
