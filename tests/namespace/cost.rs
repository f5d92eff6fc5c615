//! What an outage costs: the packets that found no route, against the lookups that the guardian counted.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lab::{Guardian, Lab, Metrics, wait_for};

const PACKETS: u64 = 2_000;

/// Sends packets, some microseconds apart; how many of them found no route.
///
/// The socket is not connected: one that is keeps the route that it has found.
fn stream(to: IpAddr, packets: u64) -> Result<u64> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    let mut lost = 0;
    for _ in 0..packets {
        match socket.send_to(b"?", SocketAddr::new(to, 9)) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NetworkUnreachable => lost += 1,
            // What an earlier packet brought back.
            Err(error) if error.kind() == ErrorKind::HostUnreachable => {}
            Err(error) => return Err(error.into()),
        }
        thread::sleep(Duration::from_micros(100));
    }
    Ok(lost)
}

fn lookups(metrics: &Metrics, family: &str) -> f64 {
    metrics.sum("failed_lookups_total", &[&format!("family=\"{family}\"")]).unwrap_or(-1.0)
}

/// Takes a route away, waits until it is counted for, sends packets, and puts the route back; what the record says.
///
/// Of an IPv4 lookup that finds nothing the kernel does not say in which namespace it was made: each of these tests
/// has a prefix of its own.
fn outage(lab: &Lab, guardian: &Guardian, route: &str, packets: impl FnOnce() -> Result<()>) -> Result<u64> {
    let key = route.split(' ').next().context("no prefix")?;
    let six = if key.contains(':') { "-6 " } else { "" };
    lab.ip(&format!("{six}route del {key}"))?;
    let links = || on_lookups(guardian.pid());
    wait_for("the programs to be attached", Duration::from_secs(5), || Ok(links()?.len() == 2))?;
    packets()?;
    lab.ip(&format!("{six}route add {route}"))?;
    let back = guardian.event("its end", |e| e.key() == key && e.outcome() == "already_present")?;
    wait_for("the programs to be detached", Duration::from_secs(5), || Ok(links()?.is_empty()))?;
    back.number("/failed_lookups").context("no number of lookups")
}

/// The tracepoints of lookups that a process has programs attached to.
fn on_lookups(pid: u32) -> Result<Vec<String>> {
    let mut names = raw_tracepoints(pid)?;
    ensure!(
        names.iter().any(|name| name.starts_with("sched_process")),
        "not even those of processes: {names:?}"
    );
    names.retain(|name| name.starts_with("fib"));
    Ok(names)
}

/// The raw tracepoints that a process has programs attached to: it holds a descriptor for each.
fn raw_tracepoints(pid: u32) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for descriptor in std::fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // One that was closed meanwhile.
        let Ok(info) = std::fs::read_to_string(descriptor?.path()) else { continue };
        found.extend(info.lines().filter_map(|line| Some(line.strip_prefix("tp_name:")?.trim().to_owned())));
    }
    Ok(found)
}

fn within_a_tenth(counted: u64, lost: u64) -> Result<()> {
    ensure!(
        lost > 0 && counted.abs_diff(lost) * 10 <= lost,
        "{counted} lookups counted, {lost} packets lost"
    );
    Ok(())
}

/// A node that only watches: the route stays away until it is put back by hand.
fn watched(lab: &Lab) -> Result<Guardian> {
    for prefix in 201..=203 {
        lab.ip(&format!("route add 10.244.{prefix}.0/24 via 10.0.0.11 proto 17"))?;
    }
    lab.guardian().set("mode", "\"observe\"").start()
}

#[test]
fn packets_of_the_node_that_find_no_route_are_counted() -> Result<()> {
    let lab = Lab::node()?;
    let guardian = watched(&lab)?;
    for (family, to, route) in [
        ("inet", "10.244.201.5", "10.244.201.0/24 via 10.0.0.11 proto 17"),
        ("inet6", "fd00:244:2::5", "fd00:244:2::/64 via fd00:10::11 proto 17"),
    ] {
        let mut lost = 0;
        let counted = outage(&lab, &guardian, route, || {
            lost = stream(to.parse()?, PACKETS)?;
            Ok(())
        })?;
        ensure!(lost == PACKETS, "only {lost} packets of {PACKETS} were refused");
        within_a_tenth(counted, lost)?;
        within_a_tenth(lookups(&guardian.metrics()?, family) as u64, lost)?;
    }
    Ok(())
}

/// On a node with a default route nothing fails: packets go where they do not belong.
#[test]
fn packets_that_take_the_default_route_instead_are_counted() -> Result<()> {
    let lab = Lab::node()?;
    lab.ip("route add default via 10.0.0.1")?;
    lab.ip("-6 route add default via fd00:10::1")?;
    // Nobody is there to be asked for: packets are dropped at once.
    lab.ip("neigh add 10.0.0.1 lladdr 02:00:00:00:00:01 dev eth0")?;
    lab.ip("neigh add fd00:10::1 lladdr 02:00:00:00:00:01 dev eth0")?;
    let guardian = watched(&lab)?;
    for (to, route) in [
        ("10.244.202.5", "10.244.202.0/24 via 10.0.0.11 proto 17"),
        ("fd00:244:2::5", "fd00:244:2::/64 via fd00:10::11 proto 17"),
    ] {
        let counted = outage(&lab, &guardian, route, || {
            let refused = stream(to.parse()?, PACKETS)?;
            ensure!(refused == 0, "{refused} packets found no route, where there is a default one");
            Ok(())
        })?;
        within_a_tenth(counted, PACKETS)?;
    }
    Ok(())
}

/// What pods send is counted once: on the node, and not in the pod, whose own lookup finds its default route.
#[test]
fn packets_of_a_pod_are_counted_once() -> Result<()> {
    let node = Lab::guarded()?;
    let lab = &node.lab;
    lab.sysctl("net/ipv4/ip_forward", "1")?;
    lab.ip("route add default via 10.0.0.1")?;
    lab.ip("neigh add 10.0.0.1 lladdr 02:00:00:00:00:01 dev eth0")?;
    let pod = node.pods.first().context("no pod")?;
    pod.ip("addr add 10.244.1.5/24 dev eth0")?;
    pod.ip("route add default via 10.244.1.1")?;
    let guardian = watched(lab)?;
    let counted = outage(lab, &guardian, "10.244.203.0/24 via 10.0.0.11 proto 17", || {
        let sent = || stream("10.244.203.5".parse()?, PACKETS);
        ensure!(pod.inside(sent)? == 0, "the pod has a default route");
        // The bridge passes the last ones on in its own time.
        thread::sleep(Duration::from_millis(200));
        Ok(())
    })?;
    within_a_tenth(counted, PACKETS)
}

/// A restore is over before anything could be counted, and nothing is attached for it.
#[test]
fn an_outage_that_is_over_at_once_is_not_counted() -> Result<()> {
    let lab = Lab::node()?;
    let guardian = lab.guardian().start()?;
    lab.ip("route del 10.244.2.0/24")?;
    let event = guardian.event("the record", |e| e.outcome() == "restored")?;
    assert_eq!(event.number("/failed_lookups"), None);
    assert_eq!(on_lookups(guardian.pid())?, [""; 0]);
    let status = guardian.answer("status")?;
    assert!(status.contains("lookups"), "{status}");
    Ok(())
}
