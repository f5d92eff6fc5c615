//! What carries ports that systemd-networkd keeps out of their bridge, and what is left of it. How their pods fare:
//! [`crate::queries`].

use std::{process::Command, time::Duration};

use anyhow::{Result, ensure};
use lab::{Guardian, Lab, Networkd, Node, PORTS, Pod, Settings, wait_for};

use crate::{
    networkd_cases::{BARE, LIMIT, running},
    reload::reload,
};

const SOON: Duration = Duration::from_secs(5);

/// The programs of links, with their numbers, where there are any.
fn programs() -> Result<Vec<Vec<u8>>> {
    let places = PORTS.map(|port| (port, "ingress")).into_iter().chain([("kube-bridge", "egress")]);
    let mut programs = Vec::new();
    for (link, way) in places {
        let shown = Command::new("tc").args(["filter", "show", "dev", link, way]).output()?;
        ensure!(shown.status.success(), "tc: {shown:?}");
        programs.push(shown.stdout);
    }
    programs.retain(|shown| !shown.is_empty());
    Ok(programs)
}

/// On how many links there is a program.
fn attached() -> Result<usize> {
    Ok(programs()?.len())
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

/// A node with a file that matches every link, on which the real systemd-networkd runs, and a guardian that has just come.
fn managed(lab: &Lab, by_doctor: bool) -> Result<(Networkd<'_>, Vec<Pod>, Guardian)> {
    let settings = Settings { catch_all: true, by_doctor, ..BARE };
    let (networkd, pods) = Networkd::on_guarded_node(lab, settings)?;
    let networkd = running(networkd, lab)?;
    Ok((networkd, pods, lab.guardian().start()?))
}

/// Where systemd-networkd manages pods' ports all is ready before it has taken any; and it is no reason to put that away that it
/// is started again.
#[test]
fn cables_are_ready_where_networkd_manages_ports() -> Result<()> {
    let lab = Lab::new()?;
    let (mut networkd, _pods, guardian) = managed(&lab, false)?;
    wait_for("the cables to be ready", 3 * SOON, || Ok(attached()? == 3))?;
    ensure!(guardian.events()?.is_empty(), "something was taken");
    networkd.start()?;
    networkd.quiet(LIMIT)?;
    std::thread::sleep(4 * SOON);
    ensure!(attached()? == 3, "after a restart: {}", attached()?);
    Ok(())
}

/// Other sensors, and who is lent nothing and then something again.
#[test]
fn cables_are_ready_after_a_reload() -> Result<()> {
    let lab = Lab::new()?;
    let (mut networkd, _pods, mut guardian) = managed(&lab, false)?;
    let ready = |count| wait_for("the cables to be as they should", 3 * SOON, || Ok(attached()? == count));
    ready(3)?;
    let before = programs()?;
    reload(&mut guardian, "scope.tables = [77, 78, 79, 91]")?;
    wait_for("those of the new sensors", 3 * SOON, || {
        let now = programs()?;
        Ok(now.len() == 3 && !now.iter().any(|program| before.contains(program)))
    })?;
    reload(&mut guardian, "restore.lend = \"never\"")?;
    ready(0)?;
    reload(&mut guardian, "restore.lend = \"30s\"")?;
    ready(3)?;
    // They are those of the sensors that there are now.
    networkd.start()?;
    guardian.event("a port that was carried", |event| event.text("/error").contains("carried"))?;
    Ok(())
}

/// What comes after the bridge plugin finds the port of a new pod as that has left it.
#[test]
fn a_new_pod_can_be_given_a_queueing_discipline() -> Result<()> {
    let lab = Lab::new()?;
    let (_networkd, _pods, guardian) = managed(&lab, false)?;
    wait_for("the cables to be ready", 3 * SOON, || Ok(attached()? == 3))?;
    lab.ip("link add veth0000c type veth peer name peer0000c")?;
    lab.ip("link set veth0000c master kube-bridge up")?;
    wait_for("the port to be guarded", SOON, || {
        Ok(guardian.answer("snapshot")?.contains("veth0000c master kube-bridge"))
    })?;
    // Other ports' cables are there after that many times less.
    std::thread::sleep(Duration::from_secs(1));
    let bandwidth = Command::new("tc").args(["qdisc", "add", "dev", "veth0000c", "ingress"]).output()?;
    ensure!(bandwidth.status.success(), "{bandwidth:?}");
    Ok(())
}

/// Nothing is attached where it was told to leave them alone.
#[test]
fn nothing_is_attached_where_the_remedy_is() -> Result<()> {
    let lab = Lab::new()?;
    let (_networkd, _pods, guardian) = managed(&lab, true)?;
    std::thread::sleep(2 * SOON);
    ensure!(attached()? == 0 && guardian.events()?.is_empty(), "{} are attached", attached()?);
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
