//! While no owner is alive nobody processes withdrawals: losses are held and told, until one is.

use std::{process::Command, thread, time::Duration};

use anyhow::Result;
use lab::{Guardian, Lab, tethered, wait_for};

const SOON: Duration = Duration::from_secs(3);

fn held(guardian: &Guardian) -> Result<Option<f64>> {
    Ok(guardian.metrics()?.sum("held_objects", &[]))
}

#[test]
fn a_loss_is_held_until_an_owner_is_alive() -> Result<()> {
    let node = Lab::guarded()?;
    let lab = &node.lab;
    let kube_router = lab.copy("sleep", "kube-router")?;
    let before = lab.state()?;
    let guardian = lab.guardian().set("owner.absent_after", "\"1s\"").start()?;
    thread::sleep(Duration::from_millis(1500));

    lab.ip("route del 10.244.2.0/24")?;
    let event = guardian.event("a held record", |e| e.key() == "10.244.2.0/24" && e.outcome() == "held")?;
    assert_eq!(event.text("/verdict"), "foreign", "{event}");
    // Gauges follow a moment later.
    wait_for("one to be held", SOON, || Ok(held(&guardian)? == Some(1.0)))?;
    assert!(!lab.shows("route show 10.244.2.0/24")?);
    let status = guardian.ask("status")?;
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    assert_eq!(status.status.code(), Some(1), "{text}");
    assert!(text.contains("held") && text.contains("owner"), "{text}");
    // Not by a timer either.
    thread::sleep(Duration::from_millis(1500));
    assert!(!lab.shows("route show 10.244.2.0/24")?);

    let _owner = tethered(Command::new(&kube_router).arg("infinity"))?;
    lab.whole_within(&before, SOON)?;
    wait_for("nothing to be held", SOON, || Ok(held(&guardian)? == Some(0.0)))?;
    // And from then on at once.
    lab.ip("rule del from 10.244.1.0/24 lookup 77")?;
    lab.whole_within(&before, SOON)
}

#[test]
fn an_owner_that_ends_is_missed() -> Result<()> {
    let node = Lab::guarded()?;
    let lab = &node.lab;
    let kube_router = lab.copy("sleep", "kube-router")?;
    let mut owner = tethered(Command::new(&kube_router).arg("infinity"))?;
    let before = lab.state()?;
    let guardian = lab.guardian().set("owner.absent_after", "\"1s\"").start()?;
    thread::sleep(Duration::from_millis(1500));
    lab.ip("route del 10.244.2.0/24")?;
    lab.whole_within(&before, SOON)?;

    owner.stop()?;
    // A restart of the owner takes less than the time that is allowed for it.
    lab.ip("route del 10.244.2.0/24")?;
    lab.whole_within(&before, SOON)?;
    thread::sleep(Duration::from_millis(1500));
    lab.ip("route del 10.244.2.0/24")?;
    guardian.event("a held record", |e| e.key() == "10.244.2.0/24" && e.outcome() == "held")?;
    assert!(!lab.shows("route show 10.244.2.0/24")?);
    Ok(())
}

#[test]
fn never_switches_it_off() -> Result<()> {
    let lab = Lab::node()?;
    let _guardian = lab.guardian().set("owner.absent_after", "\"never\"").start()?;
    lab.ip("route del 10.244.2.0/24")?;
    wait_for("the route", SOON, || lab.shows("route show 10.244.2.0/24"))
}
