//! The real systemd-networkd, restarting on a node that runs kube-router.

use std::{fs, time::Duration};

use anyhow::Result;
use lab::{Event, Lab, NODE, Networkd, wait_for};

#[test]
fn a_restart_loses_no_route() -> Result<()> {
    let lab = Lab::new()?;
    let mut networkd = Networkd::on_node(&lab)?;
    let guarded = [
        "route show 10.244.2.0/24",
        "route show 10.244.3.0/24",
        "route show table 77",
        "route show table 78",
        "route show table local 10.96.0.1",
    ];
    let shown = || guarded.iter().map(|words| lab.ip(words)).collect::<Result<Vec<_>>>();
    let before = shown()?;
    let guardian = lab.guardian().start()?;

    networkd.start()?;
    let pid = u64::from(networkd.pid().unwrap_or_default());
    let program = fs::canonicalize(Networkd::PROGRAM)?;
    for key in ["10.244.2.0/24", "10.244.3.0/24"] {
        let event = guardian.event(key, |e| e.key() == key && e.outcome() == "restored")?;
        assert_eq!(event.number("/actor/pid"), Some(pid), "{event}");
        assert_eq!(fs::canonicalize(event.text("/actor/exe"))?, program, "{event}");
        assert_eq!(event.argv(), [Networkd::PROGRAM], "{event}");
        assert_eq!(event.text("/actor/comm"), "systemd-network", "{event}");
        assert_eq!(event.text("/actor/class"), "networkd", "{event}");
        assert_eq!(event.text("/actor/confidence"), "exact", "{event}");
    }
    wait_for("the routes", Duration::from_secs(5), || Ok(shown()? == before))?;
    networkd.stop()?;
    assert_eq!(shown()?, before);
    let metrics = guardian.metrics()?;
    assert_eq!(metrics.sum("events_lost_total", &[]), Some(0.0), "{}", metrics.0);
    assert_eq!(metrics.sum("missing_objects", &[]), Some(0.0), "{}", metrics.0);
    Ok(())
}

/// Older versions take the node's own address away when they start, and set it again: it is not away meanwhile.
#[test]
fn the_nodes_address_is_lent_until_it_is_set_again() -> Result<()> {
    let lab = Lab::new()?;
    let mut networkd = Networkd::on_node(&lab)?;
    let guardian = lab.guardian().start()?;
    let shown =
        || Ok::<_, anyhow::Error>([lab.ip("-4 addr show dev eth0")?, lab.ip("-4 route show table all")?]);
    let before = shown()?;
    let key = format!("{NODE}/24");
    let is_lent = |e: &Event| e.key() == key && e.text("/error").starts_with("lent for 30s");
    // On a busy machine it may set it again before anybody can lend it.
    for _ in 0..5 {
        networkd.start()?;
        let taken = guardian.event(&key, |e| e.key() == key)?;
        assert_eq!(taken.text("/actor/class"), "networkd", "{taken}");
        wait_for("the address to be networkd's again", Duration::from_secs(5), || Ok(shown()? == before))?;
        networkd.stop()?;
        if guardian.events()?.iter().any(is_lent) {
            break;
        }
    }
    let lent = guardian.event("a loan", is_lent)?;
    assert_eq!(lent.outcome(), "restored", "{lent}");
    let metrics = guardian.metrics()?;
    assert_eq!(metrics.sum("missing_objects", &[]), Some(0.0), "{}", metrics.0);
    Ok(())
}
