//! Text for people.
//!
//! Names of processes, their arguments and interfaces are other people's text: whatever is printed goes
//! through [`clean`], so that nobody's `argv` moves the cursor of who reads about it.

mod doctor;
mod events;
mod explain;
mod incidents;
mod path;
mod plan;
mod state;

use std::{fmt::Write as _, time::Duration};

use jiff::{Timestamp, tz::TimeZone};

use crate::model::record::{ActorRecord, Change, ObjectKind, ObjectRecord};

pub use doctor::{doctor, limits, remedies};
pub(crate) use events::outcome_colour;
pub use events::{EventTable, wide};
pub use explain::{Explanation, explain};
pub use incidents::incidents;
pub(crate) use incidents::{outage, result, summary};
pub use plan::{diff, released, restore, snapshot};
pub(crate) use state::owner_lines;
pub use state::status;

/// The most columns of a line that is laid out; a wider terminal does not make it longer.
pub const WIDTH_MAX: usize = 100;

/// How text is laid out.
#[derive(Clone, Debug)]
pub struct Style {
    /// Whether to use colours.
    pub colour: bool,
    /// Whether to print headings.
    pub legend: bool,
    /// The columns of a line.
    pub width: usize,
    /// Times are printed in this zone.
    pub zone: TimeZone,
}

/// The colours, by what they mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    Good,
    Warn,
    Bad,
    Faint,
    Strong,
}

impl Style {
    /// The text in a colour, if there are colours.
    pub(crate) fn paint(&self, colour: Colour, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        // ECMA-48 "select graphic rendition".
        let code = match colour {
            Colour::Good => "32",
            Colour::Warn => "33",
            Colour::Bad => "31",
            Colour::Faint => "2",
            Colour::Strong => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// A moment of a record as year, time and so on by `format` (strftime); as it stands if it is no time.
    pub(crate) fn time(&self, moment: &str, format: &str) -> String {
        match moment.parse::<Timestamp>() {
            Ok(time) => time.to_zoned(self.zone.clone()).strftime(format).to_string(),
            Err(_) => clean(moment),
        }
    }
}

/// The text with control characters made visible.
pub fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // Besides the control characters: what turns the direction of writing, and line separators.
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || turns {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// The columns that a character takes: two from Hangul and CJK upwards, which errs on the safe side.
fn columns(c: char) -> usize {
    if u32::from(c) < 0x1100 || matches!(c, '\u{2010}'..='\u{2bff}') { 1 } else { 2 }
}

/// The columns that a text takes.
pub(crate) fn width(text: &str) -> usize {
    text.chars().map(columns).sum()
}

/// The text cut to at most `most` columns, with `…` where something was cut off.
pub(crate) fn elide(text: &str, most: usize) -> String {
    if width(text) <= most {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut used = 1;
    for c in text.chars() {
        used += columns(c);
        if used > most {
            break;
        }
        out.push(c);
    }
    out.truncate(out.trim_end().len());
    if most > 0 {
        out.push('…');
    }
    out
}

/// The text cut or filled with blanks to exactly `columns`.
pub(crate) fn fit(text: &str, columns: usize) -> String {
    let mut out = elide(text, columns);
    let blanks = columns.saturating_sub(width(&out));
    out.extend(std::iter::repeat_n(' ', blanks));
    out
}

/// The text in lines of at most `columns`, broken between words.
pub(crate) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && width(&line) + 1 + width(word) > columns {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line += word;
    }
    lines.push(line);
    lines
}

/// Who it was, in a word: `ip[1234]`, `kernel`, `unknown`.
pub fn actor_name(actor: &ActorRecord) -> String {
    let Some(pid) = actor.pid else {
        return match actor.comm.as_str() {
            "" => actor.class.as_str().to_owned(),
            comm if comm == actor.class.as_str() => comm.to_owned(),
            comm => format!("{}:{}", actor.class, clean(comm)),
        };
    };
    format!("{}[{pid}]", process_name(actor.exe.as_deref(), &actor.comm))
}

/// A pod as people call it: `namespace/name`, or its uid where that is all that is known.
fn pod_name(actor: &ActorRecord) -> Option<String> {
    match (&actor.pod_namespace, &actor.pod_name) {
        (Some(namespace), Some(name)) => Some(format!("{namespace}/{name}")),
        _ => actor.pod.clone(),
    }
}

/// An object as a list of many kinds shows it: routes as they are, of others the kind first.
pub fn object_text(object: &ObjectRecord) -> String {
    with_kind(object, &object.text)
}

/// An object by its key, in a sentence: `10.244.2.0/24`, `link kube-bridge`, `rule 32765`.
pub(crate) fn object_name(object: &ObjectRecord) -> String {
    with_kind(object, &object.key)
}

fn with_kind(object: &ObjectRecord, text: &str) -> String {
    match object.kind {
        ObjectKind::Route => clean(text),
        kind => format!("{kind} {}", clean(text)),
    }
}

/// What happened, in a word or two.
pub const fn change_words(change: Change) -> &'static str {
    match change {
        Change::Deleted => "deleted",
        Change::Replaced => "replaced",
        Change::Changed => "changed",
        Change::Down => "went down",
    }
}

/// The programs that are known by the script they run: then the kernel sets the comm to the script's name.
const INTERPRETERS: [&str; 8] = ["sh", "bash", "dash", "zsh", "ash", "busybox", "perl", "python"];

/// The name of the executable rather than the comm, which is cut at 15 bytes and anyone's choice; but of an
/// interpreter the comm, where that says more.
pub(crate) fn process_name(exe: Option<&str>, comm: &str) -> String {
    let exe = exe.map(|exe| exe.strip_suffix(" (deleted)").unwrap_or(exe));
    let base = exe.and_then(|exe| exe.rsplit('/').next()).filter(|base| !base.is_empty());
    let interpreter =
        |base: &str| INTERPRETERS.contains(&base.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.'));
    clean(base.filter(|base| !interpreter(base) || comm.is_empty()).unwrap_or(comm))
}

/// A duration to two or three digits: `71 µs`, `1.2 ms`, `3.4 s`, `2m05s`, `4h02m`, `4d2h`.
pub fn human_duration(duration: Duration) -> String {
    let micros = duration.as_micros();
    let decimal = |value: f64, unit: &str| {
        if value < 9.95 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
    };
    match micros {
        0 => "0 s".into(),
        1..1_000 => format!("{micros} µs"),
        1_000..999_500 => decimal(micros as f64 / 1e3, "ms"),
        999_500..60_000_000 => decimal(micros as f64 / 1e6, "s"),
        _ => {
            let seconds = duration.as_secs();
            match seconds {
                0..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
                3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
                _ => format!("{}d{}h", seconds / 86_400, seconds / 3_600 % 24),
            }
        }
    }
}

/// Microseconds of a record as a duration for people.
pub(crate) fn micros(micros: u64) -> String {
    human_duration(Duration::from_micros(micros))
}

#[cfg(test)]
mod tests;
