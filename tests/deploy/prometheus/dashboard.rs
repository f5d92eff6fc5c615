//! The dashboard is what Grafana 10 and later take, and its expressions are in the language of Prometheus.

use std::{collections::BTreeSet, fs};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{promtool, text, yaml};

/// How wide Grafana's grid is.
const COLUMNS: u64 = 24;

fn panels() -> Result<Vec<Value>> {
    yaml("dashboard.json")?["panels"].as_array().cloned().context("no panels")
}

/// The expressions of all panels, with values for Grafana's variables.
pub fn expressions() -> Result<Vec<String>> {
    let panels = panels()?;
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let filled = |expr: &str| expr.replace("$instance", ".*").replace("$__rate_interval", "1m");
    let expressions = targets.map(|target| text(target, "expr").map(filled)).collect::<Result<Vec<_>>>()?;
    ensure!(expressions.len() > 20, "only {expressions:?}");
    Ok(expressions)
}

#[test]
fn promtool_parses_every_expression() -> Result<()> {
    let rules: Vec<Value> = expressions()?
        .iter()
        .enumerate()
        .map(|(number, expr)| json!({ "record": format!("dashboard:expression:{number}"), "expr": expr }))
        .collect();
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("rules.yaml");
    fs::write(&path, json!({ "groups": [{ "name": "dashboard", "rules": rules }] }).to_string())?;
    promtool("check rules", [path]).map(drop)
}

#[test]
fn every_panel_asks_the_chosen_prometheus_about_the_chosen_nodes() -> Result<()> {
    let dashboard = yaml("dashboard.json")?;
    // That of Grafana 10.0; later ones bring it up to theirs when they load it.
    ensure!(dashboard["schemaVersion"] == 38, "schemaVersion: {}", dashboard["schemaVersion"]);
    let variables = dashboard["templating"]["list"].as_array().context("no variables")?;
    let names = variables.iter().map(|variable| text(variable, "name")).collect::<Result<Vec<_>>>()?;
    ensure!(names == ["datasource", "instance"], "{names:?}");
    ensure!(
        variables[1]["query"]["query"] == "label_values(route_guardian_build_info, instance)",
        "{}",
        variables[1]
    );

    let source = json!({ "type": "prometheus", "uid": "${datasource}" });
    for panel in panels()?.iter().filter(|panel| panel["type"] != "row") {
        let title = text(panel, "title")?;
        ensure!(!text(panel, "description")?.is_empty(), "{title}: what is it about?");
        ensure!(panel["datasource"] == source, "{title}: {}", panel["datasource"]);
        let mut refs = BTreeSet::new();
        for target in panel["targets"].as_array().context("no targets")? {
            ensure!(refs.insert(text(target, "refId")?), "{title}: a refId is there twice");
            let expr = text(target, "expr")?;
            ensure!(expr.contains("instance=~\"$instance\""), "{title} is of all nodes: {expr}");
        }
        ensure!(!refs.is_empty(), "{title} asks nothing");
    }
    Ok(())
}

#[test]
fn no_panel_lies_on_another() -> Result<()> {
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels()? {
        let title = text(&panel, "title")?;
        ensure!(ids.insert(panel["id"].as_u64().context("no id")?), "{title}: its id is there twice");
        let side =
            |name: &str| panel["gridPos"][name].as_u64().with_context(|| format!("{title} has no {name}"));
        let (x, y, w, h) = (side("x")?, side("y")?, side("w")?, side("h")?);
        ensure!(w > 0 && h > 0 && x + w <= COLUMNS, "{title} is outside the grid");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            ensure!(taken.insert(cell), "{title} lies on another panel at {cell:?}");
        }
    }
    Ok(())
}
