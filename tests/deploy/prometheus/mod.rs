//! `deploy/prometheus`: rules, dashboard and scrape configurations, by Debian's Prometheus and Alertmanager.

mod dashboard;
mod monitoring;
mod names;
mod pipeline;
mod rules;
mod runbooks;
mod scrape;

use std::{collections::BTreeSet, ffi::OsStr, fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::top;

/// Where runbooks are read: the only definition, to which the rules are held.
const RUNBOOKS: &str =
    "https://github.com/route-guardian/route-guardian/blob/main/deploy/prometheus/runbooks";

/// `deploy/prometheus`, or what is in it by this name.
fn file(name: &str) -> PathBuf {
    top().join("deploy/prometheus").join(name)
}

fn read(name: &str) -> Result<String> {
    fs::read_to_string(file(name)).with_context(|| format!("cannot read deploy/prometheus/{name}"))
}

/// A file of YAML, or of JSON, which is YAML too.
fn yaml(name: &str) -> Result<Value> {
    serde_norway::from_str(&read(name)?).with_context(|| format!("deploy/prometheus/{name}"))
}

/// The names without extension of the files in a folder.
fn stems(folder: &str) -> Result<BTreeSet<String>> {
    let entries = fs::read_dir(file(folder))?.collect::<Result<Vec<_>, _>>()?;
    let stem = |entry: fs::DirEntry| Some(entry.path().file_stem()?.to_string_lossy().into_owned());
    Ok(entries.into_iter().filter_map(stem).collect())
}

/// Runs promtool with words split at spaces, on these files; what it prints, or an error with all that it says.
fn promtool<S: AsRef<OsStr>>(words: &str, files: impl IntoIterator<Item = S>) -> Result<String> {
    let output = Command::new(lab::program("promtool")?).args(words.split(' ')).args(files).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "promtool: {text}{}", String::from_utf8_lossy(&output.stderr));
    Ok(text)
}

/// The rules of rules.yaml.
fn rules() -> Result<Vec<Value>> {
    let document = yaml("rules.yaml")?;
    let groups = document["groups"].as_array().context("rules.yaml has no groups")?;
    let rules: Vec<Value> =
        groups.iter().filter_map(|group| group["rules"].as_array()).flatten().cloned().collect();
    ensure!(!rules.is_empty(), "rules.yaml has no rules");
    Ok(rules)
}

/// A member that has to be text.
fn text<'a>(value: &'a Value, member: &str) -> Result<&'a str> {
    match value[member].as_str() {
        Some(text) => Ok(text),
        None => bail!("no {member} in {value}"),
    }
}
