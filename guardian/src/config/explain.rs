//! The configuration as a file that explains itself.

use std::fmt::Write as _;

use super::{
    Config,
    keys::{self, Takes},
};

/// The columns of a line of explanation.
const WIDTH: usize = 100;

impl Config {
    /// As [`Config::to_toml`], with what each table and key is about in comments above it.
    pub fn to_explained_toml(&self) -> String {
        let mut text = String::new();
        for section in keys::SECTIONS {
            if !section.name.is_empty() {
                let _ = write!(text, "\n{}[{}]\n", comment(section.what), section.name);
            }
            for (n, key) in keys::in_section(section).enumerate() {
                let gap = if n == 0 && !section.name.is_empty() { "" } else { "\n" };
                let line = match key.of(self) {
                    Some(value) => format!("{} = {value}", key.last()),
                    None => format!("#{} = {}", key.last(), key.example),
                };
                let restart = if key.takes == Takes::Restart { " Takes a restart." } else { "" };
                let about = comment(key.what) + &comment(&format!("Value: {}.{restart}", key.value));
                let _ = writeln!(text, "{gap}{about}{line}");
            }
        }
        text.trim_start().to_owned()
    }
}

/// Text as the lines of a comment.
fn comment(text: &str) -> String {
    let mut lines = String::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.chars().count() + word.chars().count() + 3 > WIDTH {
            let _ = writeln!(lines, "#{line}");
            line.clear();
        }
        let _ = write!(line, " {word}");
    }
    let _ = writeln!(lines, "#{line}");
    lines
}
