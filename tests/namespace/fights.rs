//! Who keeps undoing, of whatever kind: bounded work, what is held shows, and a human or the timer lets go.

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use lab::{Guardian, Lab, Node, State, TUNNEL, tethered, wait_for};

/// How long somebody keeps at it.
const FIGHT: Duration = Duration::from_secs(3);

/// A shell undoes it every 50 ms for a while. Then: few restores, and it is held.
fn fight(kind: &str, key: &str, words: &str) -> Result<(Node, State, Guardian)> {
    let node = Lab::guarded()?;
    let lab = &node.lab;
    let before = lab.state()?;
    let guardian = lab.guardian().set("damping.burst", "3").set("damping.initial", "\"1m\"").start()?;
    let text = format!("for n in $(seq 1000); do ip {words} 2>/dev/null; sleep 0.05; done");
    let mut shell = tethered(Command::new("sh").args(["-c", &text]))?;
    let begin = Instant::now();
    guardian.event(&format!("{kind} {key} held"), |e| {
        e.text("/object/kind") == kind && e.key() == key && e.outcome() == "held"
    })?;
    thread::sleep(FIGHT.saturating_sub(begin.elapsed()));
    let restored = guardian
        .events()?
        .iter()
        .filter(|e| e.text("/object/kind") == kind && e.key() == key && e.outcome() == "restored")
        .count();
    assert!((1..=4).contains(&restored), "restored {restored} times in {FIGHT:?}");
    let metrics = guardian.metrics()?;
    assert!(metrics.sum("held_objects", &[]).is_some_and(|n| n >= 1.0), "{}", metrics.0);
    assert!(metrics.sum("missing_objects", &[]).is_some_and(|n| n >= 1.0), "{}", metrics.0);
    assert!(metrics.sum("damping_transitions_total", &[]).is_some_and(|n| n >= 1.0), "{}", metrics.0);
    let status = guardian.ask("status")?;
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    assert_eq!(status.status.code(), Some(1), "{text}");
    assert!(text.contains("held"), "{text}");
    shell.stop()?;
    // Not before the minute is over.
    assert!(!lab.changed(&before)?.is_empty());
    Ok((node, before, guardian))
}

/// A human lets go: the object comes back.
fn released(kind: &str, key: &str, words: &str) -> Result<()> {
    let (node, before, guardian) = fight(kind, key, words)?;
    guardian.answer("release")?;
    node.lab.whole_within(&before, Duration::from_secs(3))?;
    wait_for("nothing to be held", Duration::from_secs(3), || {
        Ok(guardian.metrics()?.sum("held_objects", &[]) == Some(0.0))
    })
}

#[test]
fn over_a_route() -> Result<()> {
    released("route", "10.244.2.0/24", "route del 10.244.2.0/24")
}

#[test]
fn over_a_link_that_is_set_down() -> Result<()> {
    released("link", TUNNEL, &format!("link set {TUNNEL} down"))
}

#[test]
fn over_a_link_that_is_deleted() -> Result<()> {
    released("link", TUNNEL, &format!("link del {TUNNEL}"))
}

#[test]
fn over_an_address() -> Result<()> {
    released("address", "10.96.0.10/32", "addr del 10.96.0.10/32 dev kube-dummy-if")
}

#[test]
fn over_a_rule() -> Result<()> {
    released("rule", "32765", "rule del from 10.244.1.0/24 lookup 77")
}

#[test]
fn over_a_nexthop() -> Result<()> {
    released("nexthop", "18", "nexthop del id 18")
}

#[test]
fn over_a_port() -> Result<()> {
    released("link", "veth0000a", "link set veth0000a nomaster")
}

/// The owner may do what it likes as often as it likes.
#[test]
fn not_with_the_owner() -> Result<()> {
    let node = Lab::guarded()?;
    let lab = &node.lab;
    let kube_router = lab.copy("ip", "kube-router")?;
    let guardian = lab.guardian().set("damping.burst", "3").start()?;
    let before = lab.state()?;
    let mut owner = lab.actor(&kube_router)?;
    for _ in 0..50 {
        owner.say(
            "route del 10.244.2.0/24\nroute add 10.244.2.0/24 via 10.0.0.11 proto 17\n\
             rule del from 10.244.1.0/24 lookup 77\nrule add prio 32765 from 10.244.1.0/24 lookup 77",
        )?;
    }
    owner.finish()?;
    let order = |label: &str| label != "rule inet 32765";
    assert_eq!(before.only(order), lab.state()?.only(order));
    let metrics = guardian.metrics()?;
    assert_eq!(metrics.sum("held_objects", &[]), Some(0.0), "{}", metrics.0);
    assert_eq!(metrics.sum("restores_total", &["outcome=\"restored\""]), Some(0.0), "{}", metrics.0);
    Ok(())
}
