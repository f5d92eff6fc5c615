//! `docs/metrics.md`: every metric, as a guardian has it from the start.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use route_guardian::surface::metrics::Metrics;

use super::golden;

/// Labels whose values nobody can list.
const OPEN: [&str; 3] = ["version", "commit", "le"];

/// A metric's labels with their values.
type Labels<'t> = BTreeMap<&'t str, BTreeSet<&'t str>>;

fn labels<'t>(text: &'t str, name: &str, all: &mut Labels<'t>) -> BTreeSet<&'t str> {
    let mut own = BTreeSet::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, labels)) = line.split_once('{') else { continue };
        if series.trim_end_matches("_bucket") != name {
            continue;
        }
        let labels = labels.rsplit_once('}').map_or("", |(labels, _)| labels);
        for (label, value) in labels.split(',').filter_map(|label| label.split_once('=')) {
            own.insert(label);
            all.entry(label).or_default().insert(value.trim_matches('"'));
        }
    }
    own.remove("le");
    own
}

#[test]
fn every_metric_is_described() {
    let metrics = Metrics::new("", "").unwrap();
    let text = metrics.text();
    let mut table = String::from("\n| metric | type | labels | what |\n|---|---|---|---|\n");
    let mut all = Labels::new();
    let list = |labels: BTreeSet<&str>| {
        labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ")
    };
    for line in text.lines() {
        let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|line| line.split_once(' ')) else {
            continue;
        };
        let kind = format!("# TYPE {name} ");
        let kind = text.lines().find_map(|line| line.strip_prefix(&kind)).unwrap_or_default();
        let labels = list(labels(&text, name, &mut all));
        let _ = writeln!(table, "| `{name}` | {kind} | {labels} | {help} |");
    }
    golden("metrics.md", "metrics", &(table + "\n"));

    let mut table = String::from("\n| label | values |\n|---|---|\n");
    for (label, values) in all.into_iter().filter(|(label, _)| !OPEN.contains(label)) {
        let _ = writeln!(table, "| `{label}` | {} |", list(values));
    }
    golden("metrics.md", "labels", &(table + "\n"));
}
