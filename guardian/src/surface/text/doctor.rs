//! What `doctor` found, a group at a time.

use std::fmt::Write as _;

use super::{Colour, Style, clean, wrap};
use crate::{
    knowledge::{FileState, Finding, Level},
    surface::report::Diagnosis,
};

const INDENT: usize = 9;

/// The findings, and in a last line what to do about them.
pub fn doctor(style: &Style, diagnosis: &Diagnosis) -> String {
    let mut out = String::new();
    for group in &diagnosis.groups {
        out += &style.paint(Colour::Strong, &group.name);
        out.push('\n');
        for finding in &group.findings {
            out += &one(style, finding);
        }
    }
    out += &closing(diagnosis);
    out
}

fn one(style: &Style, finding: &Finding) -> String {
    let (colour, word) = match finding.level {
        Level::Ok => (Colour::Good, "ok"),
        Level::Warn => (Colour::Warn, "warn"),
        Level::Wrong => (Colour::Bad, "wrong"),
    };
    let room = style.width.min(super::WIDTH_MAX).saturating_sub(INDENT).max(20);
    let mut out = String::new();
    for (n, line) in wrap(&clean(&finding.what), room).iter().enumerate() {
        let label = if n == 0 { style.paint(colour, &format!("{word:5}")) } else { "     ".into() };
        let _ = writeln!(out, "  {label}  {line}");
    }
    // A place is to be copied: it is not broken.
    let place = finding.place.iter().map(|place| clean(&place.to_string()));
    let advice = finding.advice.iter().flat_map(|advice| wrap(&clean(advice), room));
    for line in place.chain(advice) {
        out += &style.paint(Colour::Faint, &format!("{:INDENT$}{line}", ""));
        out.push('\n');
    }
    out
}

fn closing(diagnosis: &Diagnosis) -> String {
    let counted = |n: usize, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
    let (wrong, warnings) = (diagnosis.count(Level::Wrong), diagnosis.count(Level::Warn));
    let mut out = match (wrong, warnings) {
        (0, 0) => "\nAll is well.".to_owned(),
        (wrong, warnings) => {
            format!(
                "\n{}, {}.",
                counted(wrong, "thing is wrong", "things are wrong"),
                counted(warnings, "warning", "warnings")
            )
        }
    };
    if diagnosis.files.iter().any(|file| file.state != FileState::Right) {
        out += " `route-guardian doctor --fix` shows the files that help.";
    }
    out.push('\n');
    out
}

/// The files of a remedy as a diff, what they do not prevent, and how they take effect.
pub fn remedies(style: &Style, diagnosis: &Diagnosis) -> String {
    let open = || diagnosis.files.iter().filter(|file| file.state != FileState::Right);
    if open().next().is_none() {
        return "There is nothing to write: what the guardian knows a remedy for is as it should be.\n"
            .into();
    }
    let mut out = String::new();
    for file in open() {
        if file.state == FileState::Foreign {
            let path = file.path.display();
            let _ = writeln!(
                out,
                "# {path} is not the guardian's: it is left as it is. Add by hand what it lacks."
            );
        }
        for line in file.diff.lines() {
            let colour = match line.as_bytes().first() {
                Some(b'+') => Colour::Good,
                Some(b'-') => Colour::Bad,
                _ => Colour::Faint,
            };
            out += &style.paint(colour, &clean(line));
            out.push('\n');
        }
    }
    out + &limits(style, diagnosis)
}

/// What the files do not prevent, and how they take effect.
pub fn limits(style: &Style, diagnosis: &Diagnosis) -> String {
    let room = style.width.min(super::WIDTH_MAX).saturating_sub(2);
    let mut out = String::new();
    if !diagnosis.not_prevented.is_empty() {
        out += "\nThis does not prevent:\n";
        for what in &diagnosis.not_prevented {
            for (n, line) in wrap(&clean(what), room).iter().enumerate() {
                let _ = writeln!(out, "{} {line}", if n == 0 { "-" } else { " " });
            }
        }
    }
    for effect in &diagnosis.effects {
        out.push('\n');
        for line in wrap(&effect.when, room) {
            out += &line;
            out.push('\n');
        }
        let _ = writeln!(out, "    {}", effect.command);
    }
    out
}
