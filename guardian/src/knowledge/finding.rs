//! What a look at a node finds.

use std::{fmt, path::PathBuf};

use serde::Serialize;

use super::FileFix;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It may cost something.
    Warn,
    /// It will cost something, or does not work.
    Wrong,
}

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The file, as the program that reads it names it.
    pub file: PathBuf,
    /// The line, counted from 1.
    pub line: usize,
    /// What it says.
    pub text: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} {}", self.file.display(), self.line, self.text)
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub what: String,
    /// Where it is written, where it is.
    pub place: Option<Place>,
    /// What follows from it, and what would be right.
    pub advice: Option<String>,
}

impl Finding {
    /// Something that is as it should be.
    pub fn ok(what: impl Into<String>) -> Self {
        Self { level: Level::Ok, what: what.into(), place: None, advice: None }
    }

    /// Something that may cost something.
    pub fn warn(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: Level::Warn, what: what.into(), place: None, advice: Some(advice.into()) }
    }

    /// Something that will cost something.
    pub fn wrong(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: Level::Wrong, what: what.into(), place: None, advice: Some(advice.into()) }
    }

    /// With the line that says so.
    #[must_use]
    pub fn at(self, place: Option<Place>) -> Self {
        Self { place, ..self }
    }
}

/// How what was written takes effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Effect {
    /// When it does, in a sentence.
    pub when: String,
    /// What is to be run for that.
    pub command: String,
}

/// What there is to say of a program's configuration, and to write.
#[derive(Clone, Debug, Default)]
pub struct Advice {
    /// What was found.
    pub findings: Vec<Finding>,
    /// The files of the remedy.
    pub files: Vec<FileFix>,
    /// What they do not prevent.
    pub not_prevented: Vec<String>,
    /// How they take effect, where there are any.
    pub effect: Option<Effect>,
}
