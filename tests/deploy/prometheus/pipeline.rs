//! From a route that somebody deletes to whoever is told.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use lab::Lab;

use super::{
    RUNBOOKS, dashboard,
    monitoring::{Monitoring, query},
};

/// What it may take where everything happens each second: a scrape, an evaluation and a notification are three.
const BOUND: Duration = Duration::from_secs(5);
/// After which nobody waits any longer.
const LIMIT: Duration = Duration::from_secs(60);
/// A machine on which many other things run may be slow once; not so often.
const TURNS: usize = 3;

#[test]
fn a_deletion_is_told_to_a_webhook_in_seconds_and_shown_on_every_panel() -> Result<()> {
    let mut took = Vec::new();
    while took.len() < TURNS {
        let this = from_the_deletion_to_the_webhook()?;
        println!("from the deletion to the webhook: {:.2} s", this.as_secs_f64());
        if this < BOUND {
            return Ok(());
        }
        took.push(this);
    }
    bail!("never within {BOUND:?}: {took:?}")
}

/// How long it takes until a webhook is told, with all that has to be right about that.
fn from_the_deletion_to_the_webhook() -> Result<Duration> {
    let lab = Lab::node()?;
    let guardian = lab.guardian().start()?;
    let monitoring = Monitoring::start(&lab)?;

    let script = lab.dir().join("cleanup.sh");
    fs::write(&script, "ip route del 10.244.2.0/24\n")?;
    let before = query("ALERTS{alertname=\"RouteGuardianObjectDeleted\"}")?;
    ensure!(before["result"].as_array().is_some_and(Vec::is_empty), "it is told before it happens: {before}");
    let begin = Instant::now();
    let status = Command::new("sh").arg(&script).status()?;
    ensure!(status.success(), "the script: {status}");

    let alert = monitoring.told("the alert of the deletion", LIMIT, |alert| {
        alert["labels"]["alertname"] == "RouteGuardianObjectDeleted"
    })?;
    let took = begin.elapsed();
    for (label, expected) in [
        ("instance", "127.0.0.1"),
        ("job", "route-guardian"),
        ("object", "route"),
        ("family", "inet"),
        ("severity", "warning"),
    ] {
        ensure!(alert["labels"][label] == expected, "{label} is not {expected}: {alert}");
    }
    ensure!(alert["status"] == "firing", "{alert}");
    let annotations = &alert["annotations"];
    ensure!(annotations["runbook_url"] == format!("{RUNBOOKS}/RouteGuardianObjectDeleted.md"), "{alert}");
    let told = annotations["description"].as_str().unwrap_or_default();
    ensure!(["127.0.0.1", "kind route", "family inet"].iter().all(|word| told.contains(word)), "{told}");
    ensure!(lab.shows("route show 10.244.2.0/24")?, "the route is not back\n{}", guardian.log());

    for expr in dashboard::expressions()? {
        let answer = query(&expr)?;
        let shows = answer["result"].as_array().is_some_and(|series| !series.is_empty());
        ensure!(shows, "the dashboard shows nothing of: {expr}");
    }
    Ok(took)
}
