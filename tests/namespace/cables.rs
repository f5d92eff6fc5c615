//! What carries ports that systemd-networkd keeps out of their bridge, and what is left of it. How their pods fare:
//! [`crate::queries`].

use std::{process::Command, time::Duration};

use anyhow::{Result, ensure};
use lab::{Guardian, Lab, Networkd, Node, PORTS, Settings, wait_for};

use crate::networkd_cases::{BARE, LIMIT, running};

const SOON: Duration = Duration::from_secs(5);

/// On how many links there is a program.
fn attached() -> Result<usize> {
    let places = PORTS.map(|port| (port, "ingress")).into_iter().chain([("kube-bridge", "egress")]);
    let mut count = 0;
    for (link, way) in places {
        let shown = Command::new("tc").args(["filter", "show", "dev", link, way]).output()?;
        ensure!(shown.status.success(), "tc: {shown:?}");
        count += usize::from(!shown.stdout.is_empty());
    }
    Ok(count)
}

/// A guardian that has made all ready, since one port was taken.
fn ready(node: &Node) -> Result<Guardian> {
    let guardian = node.lab.guardian().start()?;
    let networkd = node.lab.copy("ip", "systemd-networkd")?;
    let status = Command::new(networkd).args(["link", "set", PORTS[0], "nomaster"]).status()?;
    ensure!(status.success(), "{status}");
    guardian.event("the port", |e| e.key() == PORTS[0] && e.outcome() == "restored")?;
    wait_for("the cables to be ready", SOON, || Ok(attached()? == 3))?;
    Ok(guardian)
}

#[test]
fn what_a_guardian_leaves_behind_is_taken_away() -> Result<()> {
    let node = Lab::guarded()?;
    let before = node.lab.state()?;
    ensure!(ready(&node)?.stop()?.success() && attached()? == 0, "left by one that ended");
    let mut guardian = ready(&node)?;
    guardian.signal(libc::SIGKILL)?;
    drop(guardian);
    ensure!(attached()? == 3, "the next one has nothing to do");
    let guardian = node.lab.guardian().start()?;
    wait_for("what was left to be taken away", SOON, || Ok(attached()? == 0))?;
    drop(guardian);
    node.lab.assert_whole(&before)
}

/// They are put away when they have not been needed for a while.
#[test]
fn cables_are_put_away() -> Result<()> {
    let node = Lab::guarded()?;
    let _guardian = ready(&node)?;
    wait_for("the cables to be put away", 3 * SOON, || Ok(attached()? == 0))
}

/// Where systemd-networkd manages pods' ports all is ready before it has taken any; until somebody writes the remedy.
#[test]
fn cables_are_ready_where_networkd_manages_ports() -> Result<()> {
    for (by_doctor, expected) in [(false, 3), (true, 0)] {
        let lab = Lab::new()?;
        let settings = Settings { catch_all: true, by_doctor, ..BARE };
        let (networkd, _pods) = Networkd::on_guarded_node(&lab, settings)?;
        let mut networkd = running(networkd, &lab)?;
        let guardian = lab.guardian().start()?;
        if by_doctor {
            std::thread::sleep(SOON);
        } else {
            wait_for("the cables to be ready", SOON, || Ok(attached()? == expected))?;
        }
        ensure!(attached()? == expected && guardian.events()?.is_empty(), "{expected}: {}", attached()?);
        // It is no reason to put them away that it is started again.
        networkd.start()?;
        networkd.quiet(LIMIT)?;
        std::thread::sleep(3 * SOON);
        ensure!(attached()? == expected, "after a restart: {}", attached()?);
    }
    Ok(())
}

/// Whoever else takes a port out is no reason, nor is what networkd takes besides.
#[test]
fn nothing_is_attached_for_others() -> Result<()> {
    let node = Lab::guarded()?;
    let guardian = node.lab.guardian().start()?;
    let networkd = node.lab.copy("ip", "systemd-networkd")?;
    node.lab.ip(&format!("link set {} nomaster", PORTS[0]))?;
    guardian.event("the port", |e| e.key() == PORTS[0] && e.outcome() == "restored")?;
    let status = Command::new(networkd).args(["route", "del", "10.244.2.0/24"]).status()?;
    ensure!(status.success(), "{status}");
    guardian.event("the route", |e| e.key() == "10.244.2.0/24" && e.outcome() == "restored")?;
    std::thread::sleep(Duration::from_millis(200));
    ensure!(attached()? == 0, "something is attached");
    Ok(())
}
