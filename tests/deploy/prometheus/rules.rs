//! The rules do what they say, by their own tests, and these notice when they do not.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{RUNBOOKS, file, promtool, read, rules, stems, text, yaml};

/// What makes a plain rule file the operator's object. kube-prometheus takes rules with these labels.
const OPERATORS: &str = "\
# The rules of rules.yaml for the Prometheus operator: written by the tests (UPDATE_GOLDEN=1), and held to it by them.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: route-guardian
  labels:
    app.kubernetes.io/name: route-guardian
    prometheus: k8s
    role: alert-rules
spec:
";

fn alerts() -> Result<Vec<Value>> {
    Ok(rules()?.into_iter().filter(|rule| rule["alert"].is_string()).collect())
}

#[test]
fn promtool_finds_no_fault_with_them_and_their_tests_pass() -> Result<()> {
    promtool("check rules --lint=all --lint-fatal", [file("rules.yaml")])?;
    let tests = stems("tests")?.into_iter().map(|name| file(&format!("tests/{name}.yaml")));
    promtool("test rules", tests).map(drop)
}

#[test]
fn every_alert_says_where_what_and_what_to_do() -> Result<()> {
    let mut names = BTreeSet::new();
    for alert in alerts()? {
        let name = text(&alert, "alert")?;
        ensure!(name.starts_with("RouteGuardian"), "{name}");
        ensure!(names.insert(name.to_owned()), "{name} is there twice");
        let severity = text(&alert["labels"], "severity")?;
        ensure!(["critical", "warning", "info"].contains(&severity), "{name}: {severity}");
        let annotations = &alert["annotations"];
        ensure!(text(annotations, "runbook_url")? == format!("{RUNBOOKS}/{name}.md"), "{name}: runbook_url");
        for annotation in ["summary", "description"] {
            let words = text(annotations, annotation)?;
            // Where there is no guardian at all there is no node to name.
            let node = name == "RouteGuardianAbsent" || words.contains("{{ $labels.instance }}");
            ensure!(node, "{name}: its {annotation} names no node");
        }
    }
    for folder in ["runbooks", "tests"] {
        ensure!(stems(folder)? == names, "{folder}/ has {:?}, the alerts are {names:?}", stems(folder)?);
    }
    Ok(())
}

/// The table in the README has a row for each alert, in the order of the rules, with its runbook, `for` and severity.
#[test]
fn the_table_of_alerts_is_the_rules() -> Result<()> {
    let readme = read("README.md")?;
    let cells = |row: &str| row.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let shown: Vec<_> =
        readme.lines().filter(|line| line.starts_with("| [RouteGuardian")).map(cells).collect();
    let alerts = alerts()?;
    ensure!(shown.len() == alerts.len(), "{} rows for {} alerts", shown.len(), alerts.len());
    for (row, alert) in shown.iter().zip(&alerts) {
        let name = text(alert, "alert")?;
        let waits = alert["for"].as_str().map_or_else(|| "–".to_owned(), |time| time.replace('m', " min"));
        let expected =
            [format!("[{name}](runbooks/{name}.md)"), waits, text(&alert["labels"], "severity")?.into()];
        ensure!([&row[1], &row[3], &row[4]] == expected.each_ref(), "{row:?} is not {expected:?}");
    }
    Ok(())
}

/// Silent, told, silent again: in this order, in one run of samples.
#[test]
fn the_tests_see_each_alert_begin_and_end() -> Result<()> {
    for name in stems("tests")? {
        let document = yaml(&format!("tests/{name}.yaml"))?;
        let runs = document["tests"].as_array().context("no tests")?;
        let complete = runs.iter().any(|run| {
            let looks = run["alert_rule_test"].as_array().into_iter().flatten();
            let mut told: Vec<bool> = looks
                .filter(|look| look["alertname"] == name.as_str())
                .filter_map(|look| Some(!look["exp_alerts"].as_array()?.is_empty()))
                .collect();
            told.dedup();
            told == [false, true, false]
        });
        ensure!(complete, "tests/{name}.yaml does not see it silent, told, and silent again");
    }
    Ok(())
}

/// One alert is spoilt at a time, and the test of just this alert has to fail.
#[test]
fn the_tests_notice_what_is_wrong_with_a_rule() -> Result<()> {
    let document = yaml("rules.yaml")?;
    let dir = tempfile::tempdir()?;
    fs::create_dir(dir.path().join("tests"))?;
    let mut spoilt = 0;
    for (group, rule, alert) in positions(&document) {
        let name = text(alert, "alert")?;
        let expr = text(alert, "expr")?.trim();
        let never = json!(format!("({expr}) unless ({expr})"));
        let always = [" > ", " == "].iter().find_map(|sign| Some(json!(expr.rsplit_once(sign)?.0)));
        let at_once = alert.get("for").map(|_| json!("0s"));
        let faults = [("expr", Some(never)), ("expr", always), ("for", at_once)];
        for (member, value) in faults.into_iter().filter_map(|(member, value)| Some((member, value?))) {
            let mut document = document.clone();
            document["groups"][group]["rules"][rule][member] = value.clone();
            let result = test_with(dir.path(), &document, name)?;
            let failed = result.as_ref().err().is_some_and(|words| words.to_string().contains("FAILED"));
            ensure!(failed, "tests/{name}.yaml passes with {member}: {value}, or does not run: {result:?}");
            spoilt += 1;
        }
    }
    ensure!(spoilt > 20, "only {spoilt} faults were tried");
    Ok(())
}

fn positions(document: &Value) -> Vec<(usize, usize, &Value)> {
    let groups = document["groups"].as_array().into_iter().flatten().enumerate();
    groups
        .flat_map(|(g, group)| {
            let rules = group["rules"].as_array().into_iter().flatten().enumerate();
            rules.filter(|(_, rule)| rule["alert"].is_string()).map(move |(r, rule)| (g, r, rule))
        })
        .collect()
}

/// What promtool says to the test of an alert, with these for the rules.
fn test_with(dir: &Path, rules: &Value, alert: &str) -> Result<Result<String>> {
    fs::write(dir.join("rules.yaml"), rules.to_string())?;
    let test = dir.join("tests/test.yaml");
    fs::copy(file(&format!("tests/{alert}.yaml")), &test)?;
    promtool("check rules", [dir.join("rules.yaml")])?;
    Ok(promtool("test rules", [test]))
}

#[test]
fn the_operator_gets_the_same() -> Result<()> {
    let rules = read("rules.yaml")?;
    let groups = rules.find("groups:\n").context("rules.yaml has no groups")?;
    let indented =
        rules[groups..].lines().map(|line| if line.is_empty() { line.into() } else { format!("  {line}") });
    let expected = indented.fold(OPERATORS.to_owned(), |text, line| text + &line + "\n");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(file("prometheusrule.yaml"), &expected)?;
    }
    ensure!(
        read("prometheusrule.yaml")? == expected,
        "prometheusrule.yaml is not what rules.yaml says; UPDATE_GOLDEN=1 writes it anew"
    );
    ensure!(
        yaml("prometheusrule.yaml")?["spec"]["groups"] == yaml("rules.yaml")?["groups"],
        "not the same groups"
    );
    Ok(())
}
