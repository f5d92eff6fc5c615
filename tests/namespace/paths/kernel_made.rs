//! What the kernel does by itself, or because a process or a namespace ends: rows 22 to 32. Nobody is blamed who
//! was merely running at the time, and what cannot come back is told and left alone.

use std::{process::Command, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lab::{Event, Guardian, Lab, TUNNEL, wait_for};

use super::{SOON, calm, named, nothing_lost, path, patient, told};

/// No record blames a process for this object; and none says that it was restored.
fn not_blamed(guardian: &Guardian, kind: &str, key: &str) -> Result<()> {
    for event in guardian.events()?.iter().filter(|e| e.text("/object/kind") == kind && e.key() == key) {
        assert_eq!(event.text("/cause"), "kernel", "{event}");
        assert_eq!(event.text("/verdict"), "kernel", "{event}");
        assert_eq!(event.text("/actor/class"), "kernel", "{event}");
        assert_ne!(event.outcome(), "restored", "{event}");
    }
    Ok(())
}

/// The link is told to be gone, once, and nothing is tried for ever.
fn link_told(guardian: &Guardian, name: &str) -> Result<Event> {
    let event = told(guardian, "link", name, "")?;
    assert_eq!(event.text("/change"), "deleted", "{event}");
    assert_ne!(event.outcome(), "restored", "{event}");
    calm(guardian)?;
    Ok(event)
}

/// Carrier that goes and comes marks routes, and takes none away, but for those of nexthop objects: these the kernel
/// removes (`nh_netdev_event` in `net/ipv4/nexthop.c`), and takes none back before the carrier is.
#[test]
fn row_22_carrier_loss() -> Result<()> {
    let node = Lab::guarded()?;
    let before = node.lab.state()?;
    let guardian = patient(&node.lab)?;
    let marked = || Ok(node.lab.ip("route show 10.244.2.0/24")?.contains("linkdown"));
    node.lab.ip("link set peer0 down")?;
    wait_for("the mark", SOON, marked)?;
    let kept = |label: &str| {
        label.starts_with("address eth0 10.")
            || label.ends_with(" 10.244.2.0/24")
            || label.starts_with("rule")
    };
    assert_eq!(before.only(kept).diff(&node.lab.state()?.only(kept)), "");
    assert!(!node.lab.shows("nexthop show id 18").unwrap_or(false));
    calm(&guardian)?;
    node.lab.ip("link set peer0 up")?;
    wait_for("no mark", SOON, || Ok(!marked()?))?;
    node.lab.whole_within(&before, SOON)?;
    let events = guardian.events()?;
    assert!(events.iter().all(|e| e.key() != "10.244.2.0/24"), "{events:?}");
    nothing_lost(&guardian)
}

/// Of the tunnel, a tun here: only such links let their carrier be set.
#[test]
fn row_23_carrier_off() -> Result<()> {
    let lab = Lab::node()?;
    let _holder = lab.held_tun("tun-held")?;
    lab.ip("route add 10.244.20.0/24 dev tun-held proto 17")?;
    let before = lab.state()?;
    let guardian = patient(&lab)?;
    lab.ip("link set tun-held carrier off")?;
    wait_for("the mark", SOON, || Ok(lab.ip("route show 10.244.20.0/24")?.contains("linkdown")))?;
    lab.assert_whole(&before)?;
    lab.ip("link set tun-held carrier on")?;
    calm(&guardian)?;
    assert!(guardian.events()?.is_empty(), "{:?}", guardian.events()?);
    lab.assert_whole(&before)
}

/// A namespace that ends takes the links with it whose peers are elsewhere, in a worker of the kernel.
#[test]
fn row_25_the_last_process_of_a_pod_killed() -> Result<()> {
    let mut node = Lab::guarded()?;
    let guardian = patient(&node.lab)?;
    node.pods.remove(0).kill()?;
    wait_for("the pod's link to go", Duration::from_secs(10), || {
        Ok(node.lab.ip("link show veth0000a").is_err())
    })?;
    let event = link_told(&guardian, "veth0000a")?;
    assert_eq!(event.text("/cause"), "kernel", "{event}");
    assert_eq!(event.text("/verdict"), "kernel", "{event}");
    assert_eq!(event.text("/actor/class"), "kernel", "{event}");
    assert!(node.lab.ip("link show veth0000a").is_err());
    // The bridge and the other pod's link are as they were.
    node.lab.ip("link show veth0000b master kube-bridge").map(drop)
}

#[test]
fn row_24_ip_netns_del() -> Result<()> {
    let node = Lab::guarded()?;
    let guardian = patient(&node.lab)?;
    // In a /run of its own: the names of namespaces are files.
    let text = "mount -t tmpfs tmpfs /run && ip netns add pod &&
        ip link add veth0000c type veth peer name eth0 netns pod &&
        ip link set veth0000c master kube-bridge up && sleep 0.3 && ip netns del pod";
    let status = Command::new("unshare").args(["--mount", "sh", "-c", text]).status()?;
    ensure!(status.success(), "{status}");
    wait_for("the pod's link to go", Duration::from_secs(10), || {
        Ok(node.lab.ip("link show veth0000c").is_err())
    })?;
    // It was foreign's own: added by `ip`, it may not even be guarded. In no case is anybody blamed.
    calm(&guardian)?;
    not_blamed(&guardian, "link", "veth0000c")?;
    assert!(node.lab.ip("link show veth0000c").is_err());
    Ok(())
}

/// A link that lives as long as a process cannot come back without it.
#[test]
fn row_26_the_holder_of_a_tun_killed() -> Result<()> {
    let lab = Lab::node()?;
    let mut holder = lab.held_tun("tun-held")?;
    lab.ip("route add 10.244.20.0/24 dev tun-held proto 17")?;
    let guardian = patient(&lab)?;
    let pid = holder.pid();
    holder.signal(libc::SIGKILL)?;
    holder.wait(SOON)?;
    let event = link_told(&guardian, "tun-held")?;
    named(&event, pid, &["sleep", "infinity"]);
    let event = told(&guardian, "route", "10.244.20.0/24", "")?;
    assert_eq!(event.text("/cause"), "link_removed", "{event}");
    assert!(lab.ip("link show tun-held").is_err());
    // Everything else is guarded as before.
    lab.ip("route del 10.244.2.0/24")?;
    told(&guardian, "route", "10.244.2.0/24", "restored")?;
    Ok(())
}

#[test]
fn row_27_the_holder_of_a_persistent_tun_killed() -> Result<()> {
    let lab = Lab::node()?;
    // Attached to the one that is there: with it goes only the carrier.
    let mut holder = lab.held_tun(TUNNEL)?;
    let before = lab.state()?;
    let guardian = patient(&lab)?;
    holder.signal(libc::SIGKILL)?;
    holder.wait(SOON)?;
    lab.whole_within(&before, SOON)?;
    calm(&guardian)?;
    assert!(guardian.events()?.is_empty(), "{:?}", guardian.events()?);
    Ok(())
}

/// rtnetlink makes no tun: told, and not fought.
#[test]
fn row_28_ip_tuntap_del() -> Result<()> {
    let lab = Lab::node()?;
    let guardian = patient(&lab)?;
    let words = format!("ip tuntap del dev {TUNNEL} mode tun");
    let path = path(&words);
    let pid = path.run()?;
    // Before it goes it loses its persistence, which is a change of its own.
    let event = guardian.event("the link's end", |e| e.key() == TUNNEL && e.text("/change") == "deleted")?;
    named(&event, pid, &path.argv);
    let event = told(&guardian, "route", "10.244.3.0/24", "")?;
    assert_eq!(event.text("/cause"), "link_removed", "{event}");
    calm(&guardian)
}

/// An address that runs out has run out.
#[test]
fn row_29_addresses_that_run_out() -> Result<()> {
    let node = Lab::guarded()?;
    let seconds = 2 * lab::slowness();
    let life = format!("valid_lft {seconds} preferred_lft {seconds}");
    node.lab.batch(&format!(
        "addr add 10.96.0.99/32 dev kube-dummy-if {life}\naddr add fd00:96::99/128 dev kube-dummy-if {life}\n"
    ))?;
    let guardian = patient(&node.lab)?;
    let there = || -> Result<bool> {
        Ok(node.lab.shows("addr show to 10.96.0.99")? || node.lab.shows("-6 addr show to fd00:96::99")?)
    };
    assert!(there()?);
    wait_for("them to run out", Duration::from_secs(15), || Ok(!there()?))?;
    calm(&guardian)?;
    assert!(!there()?, "an address that has run out came back");
    not_blamed(&guardian, "address", "10.96.0.99/32")?;
    not_blamed(&guardian, "address", "fd00:96::99/128")
}

/// The same for routes, in a timer of the kernel: the task that it interrupts has nothing to do with it.
#[test]
fn row_30_a_route_that_runs_out() -> Result<()> {
    let node = Lab::guarded()?;
    node.lab.sysctl("net/ipv6/route/gc_interval", "1")?;
    node.lab.ip("-6 route add fd00:244:30::/64 via fd00:10::11 proto 17 expires 1")?;
    let guardian = patient(&node.lab)?;
    let there = || node.lab.shows("-6 route show fd00:244:30::/64");
    // The kernel may have set its timer before, and for the 30 s that it takes without being told otherwise.
    wait_for("it to run out", Duration::from_secs(40), || Ok(!there()?))?;
    calm(&guardian)?;
    assert!(!there()?, "a route that has run out came back");
    not_blamed(&guardian, "route", "fd00:244:30::/64")
}

/// In its last moment a route shows no lifetime, and Linux 6.18 announces its end without one: it has run out all the same.
#[test]
fn row_30_a_route_in_its_last_moment() -> Result<()> {
    let node = Lab::guarded()?;
    node.lab.sysctl("net/ipv6/route/gc_interval", "1")?;
    let guardian = patient(&node.lab)?;
    // Where the clock ticks between that it is made and that it is announced, it shows that it has run out.
    for n in 0..10 {
        let key = format!("fd00:244:3{n}::/64");
        node.lab.ip(&format!("-6 route add {key} via fd00:10::11 proto 17 expires 0"))?;
        let there = || node.lab.shows(&format!("-6 route show {key}"));
        wait_for("it to run out", Duration::from_secs(40), || Ok(!there()?))?;
        calm(&guardian)?;
        assert!(!there()?, "a route that has run out came back");
        not_blamed(&guardian, "route", &key)?;
        if guardian.events()?.iter().any(|event| event.key() == key && event.outcome() == "allowed") {
            return Ok(());
        }
    }
    anyhow::bail!("none of them was taken for one that is to stay")
}

/// The advertised default route goes, and stays away.
fn route_gone(lab: &Lab, guardian: &Guardian) -> Result<()> {
    let shown = || lab.ip("-6 route show default");
    wait_for("the default route to go", SOON, || Ok(shown()?.is_empty()))
        .with_context(|| format!("{:?}\n{:?}", shown(), guardian.events()))?;
    thread::sleep(Duration::from_millis(300));
    assert_eq!(shown()?, "", "the router's route came back without the router");
    Ok(())
}

/// A router's routes are the router's: it withdraws them, in the context of whoever was running.
#[test]
fn row_31_a_router_withdraws_its_routes() -> Result<()> {
    let (lab, guardian) = advertised()?;
    advertise(&lab, 0)?;
    route_gone(&lab, &guardian)?;
    not_blamed(&guardian, "route", "::/0")
}

/// A router has no use for the routes of others. The writer of the setting is whom to name.
#[test]
fn row_32_forwarding() -> Result<()> {
    let (lab, guardian) = advertised()?;
    lab.sysctl("net/ipv6/conf/all/forwarding", "1")?;
    route_gone(&lab, &guardian)?;
    for event in guardian.events()? {
        assert_ne!(event.outcome(), "restored", "{event}");
    }
    Ok(())
}

/// A namespace with `eth0` in scope and a default route by a router's advertisement.
fn advertised() -> Result<(Lab, Guardian)> {
    let lab = Lab::new()?;
    lab.sysctl("net/ipv6/conf/default/accept_ra", "1")?;
    lab.uplink()?;
    lab.batch("addr add fe80::10/64 dev eth0\naddr add fe80::1/64 dev peer0\n")?;
    let guardian = lab.guardian().set("scope.links", "[\"eth0\"]").start()?;
    advertise(&lab, 1800)?;
    wait_for("the default route", SOON, || lab.shows("-6 route show default"))?;
    Ok((lab, guardian))
}

/// Sends a router advertisement (RFC 4861 §4.2) from `peer0`, with this lifetime in seconds.
fn advertise(lab: &Lab, lifetime: u16) -> Result<()> {
    let peer = lab.ip_json("link show peer0")?;
    let index = peer.pointer("/0/ifindex").and_then(serde_json::Value::as_u64).unwrap_or(0);
    let [high, low] = lifetime.to_be_bytes();
    lab::icmp6::send(index as u32, &[134, 0, 0, 0, 64, 0, high, low, 0, 0, 0, 0, 0, 0, 0, 0])?;
    Ok(())
}
