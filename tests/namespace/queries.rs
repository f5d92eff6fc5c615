//! What pods notice of it while the real systemd-networkd takes their node apart, at this machine's own speed: a pod asks a
//! DNS server on another node, 200 times a second.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use lab::{
    Lab, Networkd, Pod, Settings, Tethered,
    dns::{Stream, Tally, serve},
    slowness, wait_for,
};

use crate::networkd_cases::{BARE, Event, LIMIT, full, happen, named, running, state};

/// Where the server is, behind a route of kube-router's.
const SERVER: &str = "10.244.2.53";

/// A node, another one with a server, and pods of which the first can reach it.
struct Cluster<'lab> {
    networkd: Networkd<'lab>,
    pods: Vec<Pod>,
    _other: Pod,
    _server: Tethered,
}

impl<'lab> Cluster<'lab> {
    fn new(lab: &'lab Lab, settings: Settings) -> Result<Self> {
        lab.sysctl("net/ipv4/ip_forward", "1")?;
        let other = Pod::new()?;
        lab.uplink_to(&other)?;
        let server = serve(&other, &[])?;
        let (networkd, pods) = Networkd::on_wired_node(lab, settings)?;
        pods[0].ip("addr add 10.244.1.5/24 dev eth0")?;
        pods[0].ip("route add default via 10.244.1.1")?;
        Ok(Self { networkd, pods, _other: other, _server: server })
    }

    fn ask(&self) -> Result<Stream> {
        let stream = Stream::start(&self.pods[0], SERVER)?;
        thread::sleep(Duration::from_millis(500));
        Ok(stream)
    }
}

/// So often at most it is tried: what is late because the machine had other things to do says nothing of the guardian.
const ATTEMPTS: u32 = 5;

/// With the guardian no query is lost, and so many at most have to be asked again. An emulated machine, on which
/// systemd-networkd takes twenty times as long for all that it does, is held to the first only.
fn asked(settings: Settings, late: u32) -> Result<()> {
    let events = [Event::Restart, Event::Kill, Event::Reload];
    // In a guest the whole node is disturbed in all ways, by another test.
    for &event in if slowness() > 1 { &events[..1] } else { &events } {
        for attempt in 1.. {
            let tally = disturb(settings, event)?;
            ensure!(tally.lost + tally.open == 0, "{event:?}: {tally}");
            if tally.late <= late || slowness() > 1 {
                break;
            }
            ensure!(attempt < ATTEMPTS, "{event:?}, more than {late} late each time: {tally}");
        }
    }
    Ok(())
}

/// How queries fare while this happens.
fn disturb(settings: Settings, event: Event) -> Result<Tally> {
    let lab = Lab::new()?;
    let mut cluster = Cluster::new(&lab, settings)?;
    cluster.networkd = running(cluster.networkd, &lab)?;
    let before = state(&lab)?;
    let guardian = lab.guardian().start()?;
    let stream = cluster.ask()?;
    happen(&lab, &mut cluster.networkd, event)?;
    wait_for("all to be as it was", LIMIT, || Ok(before.diff(&state(&lab)?).is_empty()))?;
    let tally = stream.stop()?;
    println!("{event:?}: {tally}");
    ensure!(!named(&guardian, &cluster.networkd)?.is_empty(), "{event:?} took nothing");
    Ok(tally)
}

#[test]
fn at_most_one_is_late() -> Result<()> {
    asked(BARE, 1)
}

/// A file that matches every link, as on Container Linux: networkd takes the pod's cable out of its bridge until it has
/// gone through it outside. Its frames are carried past the bridge so long.
#[test]
fn at_most_one_is_late_where_a_file_matches_every_link() -> Result<()> {
    asked(Settings { catch_all: true, ..BARE }, 1)
}

/// What is late on a busy machine where nothing is in the way; without a cable it is some hundreds.
const FEW: u32 = 20;

/// How queries fare on a node full of pods, of which networkd takes seconds to go through them all.
fn full_node(lend: &str) -> Result<Tally> {
    let lab = Lab::new()?;
    let mut cluster = Cluster::new(&lab, Settings { catch_all: true, ..BARE })?;
    let _more = full(&lab)?;
    let before = state(&lab)?;
    let guardian = lab.guardian().set("restore.lend", &format!("\"{lend}\"")).start()?;
    let stream = cluster.ask()?;
    happen(&lab, &mut cluster.networkd, Event::Restart)?;
    wait_for("all to be as it was", LIMIT * 5, || Ok(before.diff(&state(&lab)?).is_empty()))?;
    let tally = stream.stop()?;
    println!("a full node, lend {lend}: {tally}");
    let events = named(&guardian, &cluster.networkd)?;
    let is_carried = events.iter().any(|event| event.text("/error").contains("carried to the bridge"));
    ensure!(is_carried == (lend != "never"), "lend {lend}, carried: {is_carried}");
    Ok(tally)
}

/// Its pods notice next to nothing, unless nothing is lent.
#[test]
fn pods_of_a_full_node_are_carried_where_a_file_matches_every_link() -> Result<()> {
    let tally = full_node("never")?;
    ensure!(tally.late + tally.lost + tally.open > 2 * FEW, "nobody needs a cable: {tally}");
    for attempt in 1.. {
        let tally = full_node("30s")?;
        ensure!(tally.lost + tally.open == 0, "{tally}");
        if tally.late <= FEW || slowness() > 1 {
            break;
        }
        ensure!(attempt < ATTEMPTS, "more than {FEW} late each time: {tally}");
    }
    Ok(())
}

/// All of this is for nothing where queries fail anyway, or never: without a guardian all fail from then on.
#[test]
fn without_a_guardian_every_query_fails() -> Result<()> {
    let lab = Lab::new()?;
    let mut cluster = Cluster::new(&lab, BARE)?;
    for (when, answers) in [("before", true), ("after", false)] {
        let tally = cluster.ask()?.stop()?;
        let answered = tally.asked - tally.late - tally.lost - tally.open;
        ensure!(tally.asked > 0 && answered == if answers { tally.asked } else { 0 }, "{when}: {tally}");
        cluster.networkd.start()?;
        cluster.networkd.quiet(LIMIT)?;
    }
    Ok(())
}
