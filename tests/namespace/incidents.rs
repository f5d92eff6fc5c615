//! Changes that belong together, and what is told of them.

use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::{Guardian, Lab, TUNNEL, wait_for};
use serde_json::Value;

fn incidents(guardian: &Guardian, more: &str) -> Result<Vec<Value>> {
    let text = guardian.answer(&format!("incidents -o json {more}"))?;
    Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

fn explained(guardian: &Guardian, what: &str) -> Result<Value> {
    Ok(serde_json::from_str(&guardian.answer(&format!("explain -o json {what}"))?)?)
}

/// A flush is one incident, what the same program does later another, and the second knows of the first.
#[test]
fn a_flush_is_one_incident_and_the_next_one_knows_of_it() -> Result<()> {
    let lab = Lab::node()?;
    let guardian = lab.guardian().start()?;
    let before = lab.state()?;
    // Without -4 or -6 `ip route flush` means IPv4.
    lab.ip("route flush proto 17")?;
    lab.whole_within(&before, Duration::from_secs(5))?;
    guardian.event("the flush", |e| e.outcome() == "restored" && e.key() == "10.244.3.0/24")?;
    // Changes that lie more than two seconds apart are two incidents.
    std::thread::sleep(Duration::from_millis(2_200));
    lab.ip("rule del priority 32764")?;
    lab.whole_within(&before, Duration::from_secs(5))?;
    guardian.event("the rule", |e| e.outcome() == "restored" && e.text("/object/kind") == "rule")?;

    let all = incidents(&guardian, "")?;
    let [flush, rule] = &all[..] else { anyhow::bail!("two incidents were expected: {all:#?}") };
    let routes = guardian.events()?.iter().filter(|e| e.text("/object/kind") == "route").count() as u64;
    assert!(routes >= 2);
    assert_eq!(flush["changes"], routes, "{flush:#}");
    assert_eq!(flush["outcomes"]["restored"], routes);
    assert_eq!((&flush["open"], &flush["before"]), (&0.into(), &0.into()));
    assert!(flush["outage_us"].as_u64() >= flush["longest_us"].as_u64());
    assert_eq!(rule["before"], 1, "{rule:#}");
    assert_eq!(rule["previous"], flush["first"]);

    // By any change of it, and by its id.
    assert_eq!(incidents(&guardian, "--object 10.244.3.0/24")?, all[..1]);
    assert_eq!(incidents(&guardian, "--last 1")?, all[1..]);
    let id = flush["id"].as_str().context("no id")?;
    let of_flush = explained(&guardian, id)?;
    assert_eq!(&of_flush["incident"], flush);
    let listed = guardian.answer(&format!("events -o json --incident {id}"))?;
    assert_eq!(listed.lines().count() as u64, routes, "{listed}");
    let last = explained(&guardian, "--last")?;
    assert_eq!(last["event"]["object"]["kind"], "rule");
    let page = guardian.answer(&format!("explain {id}"))?;
    assert!(page.contains(&format!("one of {routes} changes in one burst")), "{page}");
    let page = guardian.answer("explain")?;
    assert!(page.contains("once before in the journal"), "{page}");

    let table = guardian.answer("incidents")?;
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(table.lines().all(|line| line.chars().count() <= 100), "{table}");
    Ok(())
}

/// What was asked for is what `explain` and `status` show, not what followed from it.
#[test]
fn the_cause_is_shown_and_not_a_consequence() -> Result<()> {
    let lab = Lab::node()?;
    let guardian = lab.guardian().start()?;
    let before = lab.state()?;
    lab.ip(&format!("link set {TUNNEL} down"))?;
    lab.whole_within(&before, Duration::from_secs(5))?;
    guardian.event("the link", |e| e.outcome() == "restored" && e.key() == TUNNEL)?;
    guardian.event("a route", |e| e.outcome() == "restored" && e.text("/cause") == "link_down")?;
    let last = explained(&guardian, "")?;
    assert_eq!(last["event"]["object"]["key"], TUNNEL, "{last:#}");
    assert_eq!(last["event"]["cause"], "request");
    assert!(last["incident"]["changes"].as_u64() > Some(1), "{last:#}");
    let status: Value = serde_json::from_str(&guardian.answer("status -o json")?)?;
    assert_eq!(status["last"]["object"]["key"], TUNNEL, "{status:#}");
    assert!(
        status["owner"]["absent_since"].is_string() && status["owner"]["pids"] == serde_json::json!([]),
        "{status:#}"
    );
    Ok(())
}

/// Nobody waits for a pod's cable that went with its pod, so it is not said to be missing.
#[test]
fn a_cable_that_went_with_its_pod_is_not_open() -> Result<()> {
    let lab = Lab::node()?;
    lab.ip("link add vethpod1 type veth peer name podend1")?;
    lab.ip("link set vethpod1 master kube-bridge up")?;
    let guardian = lab.guardian().start()?;
    lab.ip("link del vethpod1")?;
    let gone = guardian.event("the cable", |e| e.key() == "vethpod1")?;
    assert_eq!(gone.outcome(), "observed");
    let all = incidents(&guardian, "--object vethpod1")?;
    assert_eq!(all.first().map(|incident| &incident["open"]), Some(&0.into()), "{all:#?}");
    let table = guardian.answer("events --object vethpod1")?;
    assert!(table.contains("observed") && !table.contains("open"), "{table}");
    Ok(())
}

/// Who follows sees a change as it happens, and the journal answers without a daemon.
#[test]
fn without_the_daemon_the_journal_answers() -> Result<()> {
    let lab = Lab::node()?;
    let mut guardian = lab.guardian().start()?;
    lab.ip("route del 10.244.2.0/24")?;
    guardian.event("the route", |e| e.outcome() == "restored")?;
    let running = incidents(&guardian, "")?;
    guardian.signal(libc::SIGTERM)?;
    wait_for("its end", Duration::from_secs(5), || Ok(!guardian.socket().exists()))?;
    assert_eq!(incidents(&guardian, "")?, running);
    Ok(())
}

/// What the kernel says to a restore that it refuses is what the record says.
#[test]
fn a_refused_restore_shows_the_kernels_own_words() -> Result<()> {
    let lab = Lab::node()?;
    let guardian = lab.guardian().start()?;
    // Nobody guards the node's own address, without which the gateway is nobody's neighbour.
    lab.ip("addr del 10.0.0.10/24 dev eth0")?;
    let held = guardian.event("the route", |e| e.key() == "10.244.2.0/24" && e.outcome() == "held")?;
    assert!(held.text("/error").contains("Network is unreachable: Nexthop has invalid gateway"), "{held}");
    let page = guardian.answer(&format!("explain {}", held.id()))?;
    assert!(page.replace("\n     ", "").contains("Nexthop has invalid gateway"), "{page}");
    Ok(())
}
