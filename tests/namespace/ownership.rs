//! What the owner withdraws of any kind stays withdrawn, with all that falls with it, whoever else is at work.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use lab::{Guardian, Lab, Node, TUNNEL, netlink, wait_for};

const SOON: Duration = Duration::from_secs(2);
/// How long a restore that came too late may stand.
const TAKEN_BACK: Duration = Duration::from_millis(100);

fn run(program: &Path, words: &str) -> Result<()> {
    let status = Command::new(program).args(words.split_whitespace()).status()?;
    ensure!(status.success(), "{} {words}: {status}", program.display());
    Ok(())
}

/// A node with a guardian, and `ip` as its owner.
fn owned() -> Result<(Node, std::path::PathBuf, Guardian)> {
    let node = Lab::guarded()?;
    let kube_router = node.lab.copy("ip", "kube-router")?;
    let guardian = node.lab.guardian().start()?;
    Ok((node, kube_router, guardian))
}

/// The guardian has dealt with all that was before: a foreign deletion after it is undone.
fn dealt_with(lab: &Lab) -> Result<()> {
    lab.ip("route del 10.244.2.0/24")?;
    wait_for("the route", SOON, || lab.shows("route show 10.244.2.0/24"))
}

fn nothing_is_missing(guardian: &Guardian) -> Result<()> {
    for gauge in ["missing_objects", "held_objects"] {
        // Gauges follow a moment later.
        let none = || Ok(guardian.metrics()?.sum(gauge, &[]) == Some(0.0));
        wait_for(&format!("no {gauge}"), SOON, none).with_context(|| format!("{:?}", guardian.no_diff()))?;
    }
    guardian.no_diff()
}

fn allowed(guardian: &Guardian, kind: &str, key: &str, change: &str) -> Result<()> {
    let event = guardian.event(&format!("{kind} {key} allowed"), |e| {
        e.text("/object/kind") == kind && e.key() == key && e.outcome() == "allowed"
    })?;
    assert_eq!(event.text("/verdict"), "owner", "{event}");
    assert_eq!(event.text("/change"), change, "{event}");
    Ok(())
}

/// A node is removed: routes and tunnel go, the route in table 77 falls with the tunnel.
#[test]
fn a_tunnel_with_all_that_falls_with_it() -> Result<()> {
    let (node, kube_router, guardian) = owned()?;
    let lab = &node.lab;
    run(&kube_router, "route del 10.244.3.0/24")?;
    run(&kube_router, &format!("link del {TUNNEL}"))?;
    allowed(&guardian, "link", TUNNEL, "deleted")?;
    let after = lab.state()?;
    dealt_with(lab)?;
    lab.ip("link set kube-bridge down")?;
    lab.whole_within(&after, SOON)?;
    assert!(lab.ip(&format!("link show {TUNNEL}")).is_err());
    nothing_is_missing(&guardian)
}

/// The encapsulation changes: the same tunnel of another make. From then on, it is that one.
#[test]
fn a_tunnel_made_anew() -> Result<()> {
    let (node, kube_router, guardian) = owned()?;
    let lab = &node.lab;
    run(&kube_router, &format!("link del {TUNNEL}"))?;
    run(
        &kube_router,
        &format!("link add {TUNNEL} type vxlan id 99 local 10.0.0.10 remote 10.1.0.12 dstport 5555"),
    )?;
    run(&kube_router, &format!("link set {TUNNEL} up"))?;
    run(&kube_router, &format!("route add 10.1.0.12/32 dev {TUNNEL} table 77 scope global"))?;
    run(
        &kube_router,
        &format!("route replace 10.244.3.0/24 dev {TUNNEL} src 10.0.0.10 proto 17 scope global"),
    )?;
    dealt_with(lab)?;
    let made = lab.state()?;
    lab.ip(&format!("link del {TUNNEL}"))?;
    lab.whole_within(&made, SOON)?;
    nothing_is_missing(&guardian)
}

/// A service is removed: its address, then its local route.
#[test]
fn a_service_address() -> Result<()> {
    let (node, kube_router, guardian) = owned()?;
    let lab = &node.lab;
    run(&kube_router, "addr del 10.96.0.1/32 dev kube-dummy-if")?;
    // The route stays where the other address keeps the link's routes; kube-router does not mind.
    let _ = Command::new(&kube_router)
        .args(["route", "del", "local", "10.96.0.1", "dev", "kube-dummy-if", "table", "local"])
        .status()?;
    allowed(&guardian, "address", "10.96.0.1/32", "deleted")?;
    let withdrawn = || -> Result<bool> {
        Ok(!lab.shows("addr show to 10.96.0.1")? && !lab.shows("route show table local 10.96.0.1")?)
    };
    assert!(withdrawn()?);
    let after = lab.state()?;
    // Whatever happens to the interface then, that one is no part of it.
    for words in ["link set kube-dummy-if down", "link del kube-dummy-if"] {
        lab.ip(words)?;
        lab.whole_within(&after, SOON)?;
        assert!(withdrawn()?);
    }
    nothing_is_missing(&guardian)
}

#[test]
fn rules_and_nexthops() -> Result<()> {
    let (node, kube_router, guardian) = owned()?;
    let lab = &node.lab;
    run(&kube_router, "rule del from 10.244.1.0/24 lookup 77")?;
    run(&kube_router, "nexthop del id 17")?;
    run(&kube_router, "link set kube-bridge down")?;
    allowed(&guardian, "rule", "32765", "deleted")?;
    allowed(&guardian, "nexthop", "17", "deleted")?;
    allowed(&guardian, "link", "kube-bridge", "down")?;
    let after = lab.state()?;
    dealt_with(lab)?;
    lab.assert_whole(&after)?;
    assert!(!lab.shows("route show 10.244.7.0/24")?, "it fell with its nexthop object");
    nothing_is_missing(&guardian)
}

/// What the owner adds or changes of any kind is guarded as it has made it.
#[test]
fn what_the_owner_makes_is_guarded() -> Result<()> {
    let (node, kube_router, _guardian) = owned()?;
    let lab = &node.lab;
    for words in [
        "link add tun-new type vxlan id 5 local 10.0.0.10 remote 10.1.0.13 dstport 4790",
        "link set tun-new mtu 1400 up",
        "link set kube-bridge mtu 1400",
        "addr add 10.96.0.77/32 dev kube-dummy-if scope link",
        "rule add prio 30000 fwmark 0x77 lookup 78",
        "nexthop add id 77 dev tun-new proto 17",
        "route add 10.244.77.0/24 nhid 77 proto 17",
        "nexthop replace id 18 via 10.0.0.12 dev eth0 proto 17",
    ] {
        run(&kube_router, words)?;
    }
    dealt_with(lab)?;
    let made = lab.state()?;
    for words in [
        "link del tun-new",
        "link set kube-bridge mtu 1300",
        "addr del 10.96.0.77/32 dev kube-dummy-if",
        "rule del prio 30000",
        "nexthop del id 18",
    ] {
        lab.ip(words)?;
        lab.whole_within(&made, SOON)?;
    }
    Ok(())
}

/// Before its 2.6, kube-router ran `ip` for much of its work.
#[test]
fn children_of_the_owner() -> Result<()> {
    let node = Lab::guarded()?;
    let lab = &node.lab;
    let kube_router = lab.copy("sh", "kube-router")?;
    let guardian = lab.guardian().start()?;
    let text = format!(
        "ip link del {TUNNEL}; ip addr del 10.96.0.10/32 dev kube-dummy-if; (ip rule del prio 32764; :); :"
    );
    ensure!(Command::new(&kube_router).args(["-c", &text]).status()?.success());
    allowed(&guardian, "link", TUNNEL, "deleted")?;
    allowed(&guardian, "address", "10.96.0.10/32", "deleted")?;
    allowed(&guardian, "rule", "32764", "deleted")?;
    dealt_with(lab)?;
    assert!(lab.ip(&format!("link show {TUNNEL}")).is_err());
    assert!(!lab.shows("addr show to 10.96.0.10")?);
    assert!(!lab.shows("rule list prio 32764")?);
    nothing_is_missing(&guardian)
}

/// The owner withdraws, and at once somebody flushes what is left: that comes back, what was withdrawn does not.
#[test]
fn withdrawn_just_before_a_flush() -> Result<()> {
    let node = Lab::guarded()?;
    let lab = &node.lab;
    let kube_router = lab.copy("ip", "kube-router")?;
    for n in 0..20 {
        lab.ip(&format!("route add 10.200.{n}.0/24 via 10.0.0.11 proto 17"))?;
    }
    let guardian = lab.guardian().set("damping.burst", "1000").start()?;
    let (mut owner, mut foreigner) = (lab.actor(&kube_router)?, lab.actor(Path::new("ip"))?);
    let mut client = netlink::Client::open()?;
    for n in 0..20 {
        let withdrawn = netlink::Key::main([10, 200, n, 0].into(), 24);
        let others: Vec<_> = (n..20).map(|n| format!("route del 10.200.{n}.0/24")).collect();
        owner.say(&format!("route del 10.200.{n}.0/24"))?;
        wait_for("the owner to withdraw", SOON, || Ok(!client.answers(withdrawn)?))?;
        foreigner.say(&others.join("\n"))?;
        // All of the flush has been before anybody looks whether it is undone, and before the owner's next word,
        // which would find nothing.
        foreigner.say(&format!("route replace 10.201.{n}.0/24 via 10.0.0.11"))?;
        let done = netlink::Key::main([10, 201, n, 0].into(), 24);
        wait_for("the foreigner to be done", SOON, || Ok(client.answers(done)?))?;
        for rest in n + 1..20 {
            let key = netlink::Key::main([10, 200, rest, 0].into(), 24);
            guardian_restores(&mut client, key)?;
        }
        assert!(!client.answers(withdrawn)?, "10.200.{n}.0/24 was withdrawn");
    }
    dealt_with(lab)?;
    assert!(!lab.ip("route show proto 17")?.contains("10.200."), "all are withdrawn");
    nothing_is_missing(&guardian)
}

fn guardian_restores(client: &mut netlink::Client, key: netlink::Key) -> Result<()> {
    wait_for("what was not withdrawn", SOON, || Ok(client.answers(key)?))
}

/// Both at the same instant. If the owner's request has succeeded, it is the owner's last word. (If it has found
/// nothing, it has said nothing that the kernel would pass on.)
#[test]
fn withdrawn_during_a_flush() -> Result<()> {
    let node = Lab::guarded()?;
    let lab = &node.lab;
    let kube_router = lab.copy("ip", "kube-router")?;
    let guardian = lab.guardian().set("damping.burst", "100000").start()?;
    let (mut owner, mut foreigner) = (lab.actor(&kube_router)?, lab.actor(Path::new("ip"))?);
    let mut client = netlink::Client::open()?;
    let (key, mark) =
        (netlink::Key::main([10, 200, 0, 0].into(), 24), netlink::Key::main([10, 201, 0, 0].into(), 24));
    let mut succeeded = 0;
    for round in 0..200 {
        owner.say("route replace 10.200.0.0/24 via 10.0.0.11 proto 17")?;
        wait_for("the owner's route", SOON, || Ok(client.answers(key)?))?;
        let failed = owner.errors().len();
        foreigner.say("route del 10.200.0.0/24")?;
        owner.say("route del 10.200.0.0/24\nroute replace 10.201.0.0/24 via 10.0.0.11 proto 17")?;
        wait_for("the owner to be done", SOON, || Ok(client.answers(mark)?))?;
        if owner.errors().len() == failed {
            succeeded += 1;
            // A foreign deletion after it has been undone: all before it is done with.
            let other = netlink::Key::main([10, 244, 2, 0].into(), 24);
            client.delete(other)?;
            wait_for("the other route", SOON, || Ok(client.answers(other)?))?;
            // A restore that was under way when the owner withdrew lands after that, and has to be taken back.
            let gone = wait_for("no route", TAKEN_BACK, || Ok(!client.answers(key)?));
            if gone.is_err() || client.answers(key)? {
                let records = guardian.events()?;
                let of_it = records.iter().filter(|e| e.key() == "10.200.0.0/24").map(ToString::to_string);
                let last: Vec<_> = of_it.collect::<Vec<_>>().into_iter().rev().take(8).collect();
                anyhow::bail!(
                    "round {round}: resurrected what the owner withdrew; last:\n{}",
                    last.join("\n")
                );
            }
        }
        owner.say("route del 10.201.0.0/24")?;
        wait_for("no mark", SOON, || Ok(!client.answers(mark)?))?;
    }
    assert!(succeeded > 0, "the owner never won, which proves nothing");
    dealt_with(lab)?;
    let metrics = guardian.metrics()?;
    assert_eq!(metrics.sum("events_lost_total", &[]), Some(0.0), "{}", metrics.0);
    Ok(())
}
