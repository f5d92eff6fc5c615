//! `snapshot`, `diff` and `restore`: lists of objects.

use std::fmt::Write as _;

use super::{Colour, Style, clean};
use crate::surface::report::{DiffReport, RestoreReport, Snapshot};

/// The desired or the observed state, an object a line.
pub fn snapshot(style: &Style, snapshot: &Snapshot) -> String {
    let mut out = String::new();
    if style.legend {
        let heading = format!(
            "{} {}, {}, network namespace {}",
            snapshot.objects.len(),
            if snapshot.observed { "objects in scope observed" } else { "objects desired" },
            style.time(&snapshot.time, "%Y-%m-%d %H:%M:%S %Z"),
            snapshot.netns
        );
        let _ = writeln!(out, "{}", style.paint(Colour::Faint, &heading));
    }
    for object in &snapshot.objects {
        let _ = writeln!(out, "{:8} {}", object.kind, clean(&object.text));
    }
    out
}

/// What differs: `-` is missing, `+` is too much, `~` stands between what should be and what is.
pub fn diff(style: &Style, diff: &DiffReport) -> String {
    let mut out = String::new();
    for object in &diff.missing {
        let line = format!("- {} {}", object.kind, clean(&object.text));
        let _ = writeln!(out, "{}", style.paint(Colour::Bad, &line));
    }
    for difference in &diff.different {
        let line = format!("~ {} {}", difference.desired.kind, clean(&difference.desired.text));
        let _ = writeln!(out, "{}", style.paint(Colour::Warn, &line));
        let _ = writeln!(
            out,
            "{}",
            style.paint(Colour::Warn, &format!("  is {}", clean(&difference.observed.text)))
        );
    }
    for object in &diff.extra {
        let line = format!("+ {} {}", object.kind, clean(&object.text));
        let _ = writeln!(out, "{}", style.paint(Colour::Good, &line));
    }
    if style.legend {
        let summary = if diff.is_empty() {
            format!("the kernel has exactly the desired state ({} objects)", diff.same)
        } else {
            format!(
                "{} missing, {} different, {} not desired, {} as they should be",
                diff.missing.len(),
                diff.different.len(),
                diff.extra.len(),
                diff.same
            )
        };
        let _ = writeln!(out, "{}", style.paint(Colour::Faint, &summary));
    }
    out
}

/// How many objects were let go; `key` is what was asked for.
pub fn released(count: usize, key: Option<&str>) -> String {
    match (count, key) {
        (0, None) => "nothing is held\n".to_owned(),
        (0, Some(key)) => format!("nothing is held that is called {}\n", clean(key)),
        (1, _) => "released 1 object: it is tried again now\n".to_owned(),
        (n, _) => format!("released {n} objects: they are tried again now\n"),
    }
}

/// The plan of a restore, or what came of it.
pub fn restore(style: &Style, report: &RestoreReport) -> String {
    let mut out = String::new();
    for action in &report.actions {
        let result =
            action.result.as_deref().map(|result| format!(": {}", clean(result))).unwrap_or_default();
        let line = format!(
            "{:8} {} {}{result}",
            clean(&action.verb),
            action.object.kind,
            clean(&action.object.text)
        );
        let line = if action.failed { style.paint(Colour::Bad, &line) } else { line };
        let _ = writeln!(out, "{line}");
    }
    if style.legend {
        let failed = report.actions.iter().filter(|action| action.failed).count();
        let summary = match (report.actions.len(), report.dry_run) {
            (0, _) => "nothing is missing: nothing to do".to_owned(),
            (n, true) => format!("{n} writes planned, none made (dry run)"),
            (n, false) => format!("{} of {n} writes done", n - failed),
        };
        let _ = writeln!(out, "{}", style.paint(Colour::Faint, &summary));
    }
    out
}
