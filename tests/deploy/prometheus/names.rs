//! What rules, their tests and the dashboard name, a real guardian has.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use lab::Lab;

use super::{dashboard, rules, stems, text, yaml};

/// A name with its labels.
type Series = (String, BTreeMap<String, String>);

/// Reads `name{label="value",...}`, without the labels that Prometheus adds.
fn series(written: &str) -> Series {
    let (name, labels) = written.split_once('{').unwrap_or((written, ""));
    let labels = labels.trim_end_matches('}').split(',').filter_map(|label| label.split_once('='));
    let labels = labels
        .filter(|(label, _)| !["job", "instance"].contains(label))
        .map(|(label, value)| (label.to_owned(), value.trim_matches('"').to_owned()));
    (name.to_owned(), labels.collect())
}

/// The words of an expression that are names of the guardian's metrics, or of what a rule records.
fn names(expr: &str) -> impl Iterator<Item = &str> {
    let words = expr.split(|c: char| !c.is_ascii_alphanumeric() && !"_:".contains(c));
    words.filter(|word| {
        word.starts_with("route_guardian_") || word.starts_with("process_") || word.contains(':')
    })
}

#[test]
fn a_real_guardian_has_them() -> Result<()> {
    let lab = Lab::node()?;
    let guardian = lab.guardian().start()?;
    let metrics = guardian.metrics()?.0;
    let lines = metrics.lines().filter(|line| !line.starts_with('#'));
    let there: BTreeSet<Series> = lines.filter_map(|line| Some(series(line.rsplit_once(' ')?.0))).collect();

    let rules = rules()?;
    let mut known: BTreeSet<&str> = there.iter().map(|(name, _)| name.as_str()).collect();
    known.extend(rules.iter().filter_map(|rule| rule["record"].as_str()));
    let exprs = rules.iter().map(|rule| text(rule, "expr").map(str::to_owned)).collect::<Result<Vec<_>>>()?;
    let mut found = BTreeSet::new();
    for expr in exprs.iter().chain(&dashboard::expressions()?) {
        for name in names(expr) {
            ensure!(known.contains(name), "no guardian has {name}, of: {expr}");
            found.insert(name.to_owned());
        }
    }
    ensure!(found.len() > 15, "only {found:?}");

    for test in stems("tests")? {
        let document = yaml(&format!("tests/{test}.yaml"))?;
        let runs = document["tests"].as_array().context("no tests")?;
        for input in runs.iter().filter_map(|run| run["input_series"].as_array()).flatten() {
            let series = series(text(input, "series")?);
            ensure!(
                series.0 == "up" || there.contains(&series),
                "tests/{test}.yaml: no guardian has {series:?}"
            );
        }
    }
    Ok(())
}
