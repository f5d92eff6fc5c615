//! Changes by those who do not own the routes: undone, and named exactly.

use std::{
    fs,
    path::Path,
    process::{Command, id},
    time::Duration,
};

use anyhow::{Result, ensure};
use lab::{Event, Guardian, Lab, netlink, wait_for};

/// How long a restore may take here, on a machine that runs other tests at the same time.
const SOON: Duration = Duration::from_secs(3);

/// Waits until the routes are as before, byte for byte.
fn restored(lab: &Lab, before: &[Vec<u8>], text: &str, within: Duration) {
    let back = wait_for("the routes to come back", within, || Ok(lab.routes()? == before));
    let now = lab.routes_text().unwrap_or_default();
    assert!(back.is_ok(), "not restored; before:\n{text}\nnow:\n{now}");
}

/// Nothing was lost on the way.
fn nothing_lost(guardian: &Guardian) -> Result<()> {
    let metrics = guardian.metrics()?;
    assert_eq!(metrics.sum("events_lost_total", &[]), Some(0.0), "{}", metrics.0);
    Ok(())
}

/// A record names its actor completely: the executable, the arguments, and this process among the ancestors.
fn named(event: &Event, exe: &Path, argv: &[&str]) {
    assert_eq!(event.text("/actor/confidence"), "exact", "{event}");
    assert_eq!(event.text("/actor/exe"), exe.to_string_lossy(), "{event}");
    assert_eq!(event.argv(), argv, "{event}");
    assert!(event.ancestors().contains(&id().into()), "this process, {}, is no ancestor: {event}", id());
    assert_eq!(event.text("/verdict"), "foreign", "{event}");
}

fn ip_program() -> Result<std::path::PathBuf> {
    let found = ["/usr/sbin/ip", "/usr/bin/ip", "/sbin/ip", "/bin/ip"].iter().find(|p| Path::new(p).exists());
    Ok(fs::canonicalize(found.ok_or_else(|| anyhow::anyhow!("iproute2 is not installed"))?)?)
}

/// `ip` with these words takes away or changes the route known by `key`: it comes back, and `ip` is named.
fn undone(words: &str, key: &str, change: &str, within: Duration) -> Result<()> {
    let lab = Lab::node()?;
    let (before, text) = (lab.routes()?, lab.routes_text()?);
    let guardian = lab.guardian().start()?;
    // By its full path, so that the executable is what was asked for.
    let ip = ip_program()?;
    let status = Command::new(&ip).args(words.split_whitespace()).status()?;
    ensure!(status.success(), "ip {words}: {status}");
    restored(&lab, &before, &text, within);
    let event = guardian
        .event(&format!("a record of {key}, restored"), |e| e.key() == key && e.outcome() == "restored")?;
    assert_eq!(event.text("/change"), change, "{event}");
    let ip_text = ip.to_string_lossy();
    let argv: Vec<&str> = std::iter::once(ip_text.as_ref()).chain(words.split_whitespace()).collect();
    named(&event, &ip, &argv);
    assert_eq!(event.text("/actor/class"), "iproute2", "{event}");
    assert!(event.number("/outage_us").is_some_and(|us| us > 0), "{event}");
    assert!(event.number("/detection_us").is_some(), "{event}");
    nothing_lost(&guardian)
}

#[test]
fn ip_route_del() -> Result<()> {
    undone("route del 10.244.2.0/24", "10.244.2.0/24", "deleted", SOON)
}

#[test]
fn ip_route_del_of_a_tunnel_route() -> Result<()> {
    undone("route del 10.244.3.0/24", "10.244.3.0/24", "deleted", SOON)
}

#[test]
fn ip_route_del_in_table_77() -> Result<()> {
    undone("route del 10.1.0.12/32 table 77", "10.1.0.12/32", "deleted", SOON)
}

#[test]
fn ip_6_route_del() -> Result<()> {
    undone("-6 route del fd00:244:2::/64", "fd00:244:2::/64", "deleted", SOON)
}

#[test]
fn ip_route_replace() -> Result<()> {
    undone("route replace 10.244.2.0/24 via 10.0.0.66 proto 17", "10.244.2.0/24", "replaced", SOON)
}

#[test]
fn ip_6_route_replace() -> Result<()> {
    undone("-6 route replace fd00:244:2::/64 via fd00:10::66 proto 17", "fd00:244:2::/64", "replaced", SOON)
}

#[test]
fn ip_route_replace_by_another_protocol() -> Result<()> {
    undone("route replace 10.244.2.0/24 via 10.0.0.66 proto static", "10.244.2.0/24", "replaced", SOON)
}

/// `ip route flush` deletes again and again until a dump shows nothing: it has to end by itself, which it does
/// when the guardian holds back. Then the routes come back.
#[test]
fn ip_route_flush_proto_17() -> Result<()> {
    undone("route flush proto 17", "10.244.2.0/24", "deleted", Duration::from_secs(20))
}

#[test]
fn a_raw_netlink_client() -> Result<()> {
    let lab = Lab::node()?;
    let (before, text) = (lab.routes()?, lab.routes_text()?);
    let guardian = lab.guardian().start()?;
    let mut client = netlink::Client::open()?;
    client.delete(netlink::Key::main([10, 244, 2, 0].into(), 24))?;
    client.delete(netlink::Key { dst: "fd00:1::12".parse()?, len: 128, table: 77 })?;
    restored(&lab, &before, &text, SOON);
    for key in ["10.244.2.0/24", "fd00:1::12/128"] {
        let event = guardian.event(key, |e| e.key() == key && e.outcome() == "restored")?;
        // The client is this test binary itself.
        assert_eq!(event.number("/actor/pid"), Some(id().into()), "{event}");
        assert_eq!(event.text("/actor/exe"), std::env::current_exe()?.to_string_lossy(), "{event}");
        assert_eq!(event.text("/actor/confidence"), "exact", "{event}");
        assert!(!event.ancestors().is_empty(), "{event}");
    }
    nothing_lost(&guardian)
}

/// Older than the guardian, so that only /proc can say who it is.
#[test]
fn a_process_older_than_the_guardian() -> Result<()> {
    let lab = Lab::node()?;
    let (before, text) = (lab.routes()?, lab.routes_text()?);
    let go = lab.dir().join("go");
    let script = format!(
        "for n in $(seq 400); do [ -e {} ] && break; sleep 0.05; done; ip route del 10.244.2.0/24; :",
        go.display()
    );
    let mut shell = lab::tethered(Command::new("sh").args(["-c", &script]))?;
    let guardian = lab.guardian().start()?;
    fs::write(&go, "")?;
    let event = guardian.event("the record", |e| e.key() == "10.244.2.0/24" && e.outcome() == "restored")?;
    restored(&lab, &before, &text, SOON);
    assert_eq!(event.ancestors().first(), Some(&u64::from(shell.pid())), "{event}");
    let parent = event.list("/actor/ancestors").first().cloned().unwrap_or_default();
    assert_eq!(parent.pointer("/argv/0").and_then(|a| a.as_str()), Some("sh"), "{event}");
    assert!(shell.wait(SOON)?.success());
    nothing_lost(&guardian)
}

#[test]
fn many_short_lived_programs_at_once() -> Result<()> {
    let lab = Lab::node()?;
    for n in 0..50 {
        lab.ip(&format!("route add 10.200.{n}.0/24 via 10.0.0.11 proto 17"))?;
    }
    let (before, text) = (lab.routes()?, lab.routes_text()?);
    let guardian = lab.guardian().start()?;
    let children: Vec<_> = (0..50)
        .map(|n| Command::new("ip").args(["route", "del", &format!("10.200.{n}.0/24")]).spawn())
        .collect::<Result<_, _>>()?;
    let mut pids = Vec::new();
    for mut child in children {
        assert!(child.wait()?.success());
        pids.push(u64::from(child.id()));
    }
    restored(&lab, &before, &text, SOON);
    for (n, pid) in pids.into_iter().enumerate() {
        let key = format!("10.200.{n}.0/24");
        let event = guardian.event(&key, |e| e.key() == key && e.outcome() == "restored")?;
        assert_eq!(event.number("/actor/pid"), Some(pid), "{event}");
        assert_eq!(event.argv(), ["ip", "route", "del", key.as_str()], "{event}");
        assert_eq!(event.text("/actor/confidence"), "exact", "{event}");
    }
    nothing_lost(&guardian)
}

/// What the guardian writes comes back to it as notifications: they are nobody's change.
#[test]
fn the_guardian_is_never_an_actor() -> Result<()> {
    let lab = Lab::node()?;
    let guardian = lab.guardian().start()?;
    lab.ip("route del 10.244.2.0/24")?;
    lab.ip("route replace 10.244.3.0/24 via 10.0.0.66")?;
    for key in ["10.244.2.0/24", "10.244.3.0/24"] {
        guardian.event(key, |e| e.key() == key && e.outcome() == "restored")?;
    }
    let events = guardian.events()?;
    assert_eq!(events.len(), 2, "{events:?}");
    assert!(events.iter().all(|e| e.number("/actor/pid") != Some(guardian.pid().into())), "{events:?}");
    nothing_lost(&guardian)
}

#[test]
fn an_explanation_names_the_culprit_and_the_route() -> Result<()> {
    let lab = Lab::node()?;
    let guardian = lab.guardian().start()?;
    lab.ip("route del 10.244.2.0/24")?;
    guardian.event("the record", |e| e.outcome() == "restored")?;
    let text = guardian.answer("explain --last")?;
    for part in ["10.244.2.0/24", "ip route del 10.244.2.0/24", "restored"] {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
    Ok(())
}
