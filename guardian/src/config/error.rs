//! What is wrong with a configuration, where, and what would be right.

use std::fmt;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where the text came from: a file name, `profile NAME` or an option such as `--listen`.
    pub origin: String,
    /// The line in the file, counted from 1; `None` for options and for files that cannot be read.
    pub line: Option<usize>,
    /// The key with its table, such as `restore.settle`; empty where it is not about one.
    pub key: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        f.write_str(": ")?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Why a configuration cannot be used: everything that is wrong with it, one problem a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The problems in the order in which they were found; never empty.
    pub problems: Vec<Problem>,
}

impl ConfigError {
    /// An error of one problem that has neither line nor key.
    pub(super) fn whole(origin: impl Into<String>, message: impl Into<String>) -> Self {
        let problem =
            Problem { origin: origin.into(), line: None, key: String::new(), message: message.into() };
        Self { problems: vec![problem] }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.problems.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}
