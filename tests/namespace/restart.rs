//! What is lost while the guardian is away: kept lost and told, or put back, as configured.

use std::time::Duration;

use anyhow::Result;
use lab::{Guardian, Lab, Node, State, TUNNEL};

const SOON: Duration = Duration::from_secs(3);

/// A guardian comes and goes, and this is lost before the next one comes.
fn between(lost: &[&str], on_start: &str) -> Result<(Node, State, Guardian)> {
    let node = Lab::guarded()?;
    let before = node.lab.state()?;
    let launch = || node.lab.guardian().set("restore.on_start", &format!("{on_start:?}"));
    let guardian = launch().start()?;
    let status = guardian.stop()?;
    assert!(status.success(), "{status}");
    node.lab.assert_whole(&before)?;
    for words in lost {
        node.lab.ip(words)?;
    }
    assert!(!node.lab.changed(&before)?.is_empty());
    let guardian = launch().start()?;
    Ok((node, before, guardian))
}

const LOST: &[&str] = &[
    "route del 10.244.2.0/24",
    "rule del from 10.244.1.0/24 lookup 77",
    "addr del 10.96.0.10/32 dev kube-dummy-if",
    "nexthop del id 18",
    "link set veth0000a nomaster",
    "link set kube-bridge mtu 1400",
];

#[test]
fn adopt_keeps_what_is_there_and_says_what_is_not() -> Result<()> {
    let (node, before, guardian) = between(LOST, "adopt")?;
    let after = node.lab.state()?;
    // In its log, or where an operator looks first.
    let said = guardian.log() + &String::from_utf8_lossy(&guardian.ask("status")?.stdout);
    for what in ["10.244.2.0/24", "10.244.1.0/24", "10.96.0.10"] {
        assert!(said.contains(what), "no word of {what}:\n{said}");
    }
    assert!(said.contains("mtu 1500 → mtu 1400"), "not what is different:\n{said}");
    // What is left is guarded; what was lost is not.
    node.lab.ip("route del 10.244.3.0/24")?;
    guardian.event("the record", |e| e.key() == "10.244.3.0/24" && e.outcome() == "restored")?;
    node.lab.whole_within(&after, SOON)?;
    assert!(!node.lab.changed(&before)?.is_empty());
    guardian.no_diff()
}

#[test]
fn restore_puts_back_what_was_saved() -> Result<()> {
    let (node, before, guardian) = between(LOST, "restore")?;
    node.lab.whole_within(&before, SOON)?;
    guardian.no_diff()
}

#[test]
fn restore_makes_links_again() -> Result<()> {
    let (node, before, guardian) =
        between(&[&format!("link del {TUNNEL}"), "link del kube-dummy-if"], "restore")?;
    node.lab.whole_within(&before, SOON)?;
    guardian.no_diff()
}

/// Nobody was there to name who did it.
#[test]
fn restore_blames_nobody() -> Result<()> {
    let (node, before, guardian) = between(LOST, "restore")?;
    node.lab.whole_within(&before, SOON)?;
    for event in guardian.events()? {
        assert_eq!(event.text("/actor/confidence"), "none", "{event}");
        assert_eq!(event.text("/verdict"), "unknown", "{event}");
    }
    Ok(())
}

/// What the owner has made of it meanwhile wins.
#[test]
fn restore_does_not_overwrite() -> Result<()> {
    let node = Lab::guarded()?;
    let lab = &node.lab;
    let launch = || lab.guardian().set("restore.on_start", "\"restore\"");
    launch().start()?.stop()?;
    let kube_router = lab.copy("ip", "kube-router")?;
    let owner = |words: &str| -> Result<()> {
        let status = std::process::Command::new(&kube_router).args(words.split_whitespace()).status()?;
        anyhow::ensure!(status.success(), "{words}: {status}");
        Ok(())
    };
    owner("route replace 10.244.2.0/24 via 10.0.0.99 proto 17")?;
    let after = lab.state()?;
    let guardian = launch().start()?;
    lab.ip("route del 10.244.3.0/24")?;
    guardian.event("the record", |e| e.key() == "10.244.3.0/24" && e.outcome() == "restored")?;
    lab.whole_within(&after, SOON)
}
