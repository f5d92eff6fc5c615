//! Commands that ask the daemon one thing.

use std::{
    fs,
    io::{self, Read as _},
    path::Path,
};

use anyhow::{Context as _, bail};
use serde::Serialize;

use super::{
    Ended, Places,
    args::{DiffArgs, Output as Form, ReleaseArgs, RestoreArgs, SnapshotArgs},
    output::{Output, print_now},
};
use crate::surface::{
    client,
    protocol::{REQUEST_MAX, Reply, Request},
    report::Snapshot,
    text,
};

pub(super) fn status(form: Form, places: &Places, output: &Output) -> anyhow::Result<Ended> {
    let Reply::Status(status) = client::ask(&places.socket, &Request::Status)?.one()? else { return unfit() };
    match form {
        Form::Text => output.print(&text::status(&output.style, &status))?,
        Form::Json => print_now(&json(&status)?)?,
    }
    Ok(if status.is_fine() { Ended::Well } else { Ended::Not })
}

pub(super) fn snapshot(args: SnapshotArgs, places: &Places, output: &Output) -> anyhow::Result<Ended> {
    let request = Request::Snapshot { observed: args.observed };
    let Reply::Snapshot(snapshot) = client::ask(&places.socket, &request)?.one()? else { return unfit() };
    match args.output {
        Form::Text => output.print(&text::snapshot(&output.style, &snapshot))?,
        Form::Json => print_now(&json(&snapshot)?)?,
    }
    Ok(Ended::Well)
}

pub(super) fn diff(args: &DiffArgs, places: &Places, output: &Output) -> anyhow::Result<Ended> {
    let desired = args.file.as_deref().map(read_snapshot).transpose()?;
    let reply = client::ask(&places.socket, &Request::Diff { desired })?.one()?;
    let Reply::Diff(diff) = reply else { return unfit() };
    match args.output {
        Form::Text => output.print(&text::diff(&output.style, &diff))?,
        Form::Json => print_now(&json(&diff)?)?,
    }
    Ok(if diff.is_empty() { Ended::Well } else { Ended::Not })
}

pub(super) fn restore(args: RestoreArgs, places: &Places, output: &Output) -> anyhow::Result<Ended> {
    let request = Request::Restore { dry_run: args.dry_run };
    let Reply::Restore(report) = client::ask(&places.socket, &request)?.one()? else { return unfit() };
    match args.output {
        Form::Text => output.print(&text::restore(&output.style, &report))?,
        Form::Json => print_now(&json(&report)?)?,
    }
    let failed = report.actions.iter().any(|action| action.failed);
    Ok(if failed { Ended::Not } else { Ended::Well })
}

pub(super) fn release(args: &ReleaseArgs, places: &Places, output: &Output) -> anyhow::Result<Ended> {
    let request = Request::Release { key: args.key.clone() };
    let Reply::Released(released) = client::ask(&places.socket, &request)?.one()? else { return unfit() };
    match args.output {
        Form::Text => output.print(&text::released(released, args.key.as_deref()))?,
        Form::Json => print_now(&json(&Released { released })?)?,
    }
    Ok(if released == 0 && args.key.is_some() { Ended::Not } else { Ended::Well })
}

/// What `release -o json` prints.
#[derive(Serialize)]
struct Released {
    released: usize,
}

fn read_snapshot(path: &Path) -> anyhow::Result<Snapshot> {
    let name = path.display();
    let mut text = String::new();
    let read = if path == Path::new("-") {
        io::stdin().take(REQUEST_MAX).read_to_string(&mut text)
    } else {
        fs::File::open(path).and_then(|file| file.take(REQUEST_MAX).read_to_string(&mut text))
    };
    read.with_context(|| format!("{name}: cannot be read"))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{name}: not a snapshot; make one with `route-guardian snapshot -o json`"))
}

pub(super) fn json(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// The daemon answered another question: it is of another version.
pub(super) fn unfit<T>() -> anyhow::Result<T> {
    bail!("the daemon's answer does not fit the question: is it of another version?")
}
