//! The real systemd-networkd in all the ways in which it takes a node apart: all is whole within a second of its
//! last message, and all of it is named.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use lab::{Guardian, Lab, Networkd, Settings, State, slowness, wait_for};
use serde_json::Value;

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// It is started again.
    Restart,
    /// Its file has been touched, and it reads it again.
    Reload,
    /// The carrier of `eth0` goes, and comes back.
    Carrier,
    /// It is stopped, and stays so.
    Stop,
    /// It is killed, and started again.
    Kill,
}

/// How long after its last message all has to be whole.
pub const LIMIT: Duration = Duration::from_secs(1);

/// All but `eth0` and its peer, which are its own, and `lo`; with the routes by `eth0` that are guarded.
fn guarded(label: &str, value: &Value) -> bool {
    let words: Vec<&str> = label.split(' ').collect();
    match words[0] {
        "link" | "address" => !["eth0", "peer0", "lo"].contains(&words[1]),
        "route" => {
            value["protocol"] == "17"
                || !["eth0", "peer0", "lo"].contains(&value["dev"].as_str().unwrap_or_default())
        }
        _ => true,
    }
}

pub fn state(lab: &Lab) -> Result<State> {
    Ok(lab.state()?.only_like(guarded))
}

/// Lets it happen, and waits until systemd-networkd has been quiet for [`LIMIT`].
pub fn happen(lab: &Lab, networkd: &mut Networkd<'_>, event: Event) -> Result<()> {
    match event {
        Event::Restart => networkd.start()?,
        Event::Reload => {
            let file = networkd.network_file();
            let text = fs::read_to_string(&file)?;
            fs::write(&file, text + "# touched\n")?;
            networkd.control("reload")?;
        }
        Event::Carrier => {
            lab.ip("link set peer0 down")?;
            networkd.quiet(LIMIT)?;
            lab.ip("link set peer0 up")?;
        }
        Event::Stop => networkd.stop()?,
        Event::Kill => {
            networkd.kill()?;
            networkd.start()?;
        }
    }
    networkd.quiet(LIMIT)
}

/// A node in the state before the event.
fn ready(lab: &Lab, settings: Settings, event: Event) -> Result<(Networkd<'_>, Vec<lab::Pod>)> {
    let (mut networkd, pods) = Networkd::on_guarded_node(lab, settings)?;
    if event != Event::Restart {
        // It is running, and has not taken what came after its start for foreign.
        networkd = running(networkd, lab)?;
    }
    Ok((networkd, pods))
}

/// Running beside all of it: what its start takes away is put back as kube-router would.
pub fn running<'lab>(mut networkd: Networkd<'lab>, lab: &'lab Lab) -> Result<Networkd<'lab>> {
    let before = state(lab)?;
    let guardian = lab.guardian().named("set-up", 10954).start()?;
    networkd.start()?;
    networkd.quiet(LIMIT)?;
    // How soon is what the tests themselves ask; on a busy machine the last of it may be held for a second more.
    wait_for("all to be whole after a start", 5 * LIMIT, || Ok(before == state(lab)?))
        .with_context(|| state(lab).map_or_else(|error| error.to_string(), |now| before.diff(&now)))?;
    guardian.stop()?;
    Ok(networkd)
}

/// What is lost without a guardian.
fn lost(settings: Settings, event: Event) -> Result<Vec<String>> {
    let lab = Lab::new()?;
    let (mut networkd, _pods) = ready(&lab, settings, event)?;
    let before = state(&lab)?;
    happen(&lab, &mut networkd, event)?;
    let after = state(&lab)?;
    Ok(before.labels().filter(|&l| before.get(l) != after.get(l)).map(Into::into).collect())
}

/// Every restored change is laid at a process's door: systemd-networkd's, or that of who took the carrier. (The kernel
/// lets go of nexthop objects without a carrier, and of what is by them, in a worker of its own: that is its change.)
pub fn named(guardian: &Guardian, networkd: &Networkd<'_>) -> Result<Vec<lab::Event>> {
    let events = guardian.events()?;
    let pid = networkd.pid().map(u64::from);
    let wrong: Vec<_> = events
        .iter()
        .filter(|event| {
            let by_networkd = event.number("/actor/pid") == pid && event.text("/actor/class") == "networkd";
            let by_carrier = event.argv().ends_with(&["link", "set", "peer0", "down"]);
            let by_kernel = event.text("/verdict") == "kernel"
                && event.text("/actor/class") == "kernel"
                && ["link_down", "nexthop_removed"].contains(&event.text("/cause"))
                && (event.text("/object/kind") == "nexthop" || event.text("/object/text").contains(" nhid "));
            event.text("/actor/confidence") != "exact"
                || !(by_networkd || by_carrier || by_kernel)
                || event.outcome() != "restored"
        })
        .map(ToString::to_string)
        .collect();
    if !wrong.is_empty() {
        let all: Vec<_> = events.iter().map(ToString::to_string).collect();
        anyhow::bail!("wrong:\n{}\nall:\n{}\n{}", wrong.join("\n"), all.join("\n"), guardian.log());
    }
    Ok(events)
}

fn shown(events: &[lab::Event]) -> String {
    events.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// The whole case: what is lost without a guardian is there with one, and told.
fn case(settings: Settings, event: Event) -> Result<()> {
    let lost = lost(settings, event)?;
    let lab = Lab::new()?;
    let (mut networkd, _pods) = ready(&lab, settings, event)?;
    let before = state(&lab)?;
    let guardian = lab.guardian().start()?;
    happen(&lab, &mut networkd, event)?;
    let diff = before.diff(&state(&lab)?);
    if !diff.is_empty() {
        let records: Vec<_> = guardian.events()?.iter().map(ToString::to_string).collect();
        anyhow::bail!(
            "{LIMIT:?} after its last message:\n{diff}\nwithout a guardian, it loses {lost:?}\n{}\n{}",
            records.join("\n"),
            guardian.log()
        );
    }
    let events = named(&guardian, &networkd)?;
    for label in &lost {
        let words: Vec<&str> = label.split(' ').collect();
        let key = match words[0] {
            "address" | "rule" => words[2],
            "link" | "nexthop" => words[1],
            _ => words[3],
        };
        let told = events.iter().any(|e| {
            e.text("/object/kind") == words[0] && (e.key() == key || e.key().split('/').next() == Some(key))
        });
        // What the kernel makes with each address (host routes, broadcasts) goes and comes with it.
        let with_address = words[0] == "route" && words[2] == "local";
        // A bridge takes its hardware address from its ports. A route by a group that has shrunk has itself not changed.
        let group = before.get(label).and_then(|route| route.get("nhid")).map(ToString::to_string);
        let with_group = words[0] == "route"
            && events.iter().any(|e| {
                e.text("/object/kind") == "nexthop"
                    && e.text("/change") == "changed"
                    && Some(e.key()) == group.as_deref()
            });
        assert!(
            told || with_address || with_group || label == "link kube-bridge",
            "{label} was lost, and nothing is told of it:\n{}",
            shown(&events)
        );
    }
    let metrics = guardian.metrics()?;
    assert_eq!(metrics.sum("events_lost_total", &[]), Some(0.0), "{}", metrics.0);
    assert_eq!(metrics.sum("missing_objects", &[]), Some(0.0), "{}", metrics.0);
    Ok(())
}

pub const BARE: Settings =
    Settings { catch_all: false, leave_foreign: false, unmanaged: false, by_doctor: false };

macro_rules! cases {
    ($($name:ident: $settings:expr, $event:ident;)*) => {$(
        #[test]
        fn $name() -> Result<()> {
            case($settings, Event::$event)
        }
    )*};
}

cases! {
    restart: BARE, Restart;
    restart_leaving_foreign: Settings { leave_foreign: true, ..BARE }, Restart;
    restart_unmanaged: Settings { unmanaged: true, ..BARE }, Restart;
    restart_leaving_foreign_and_unmanaged: Settings { leave_foreign: true, unmanaged: true, ..BARE }, Restart;
    reload: BARE, Reload;
    reload_leaving_foreign_and_unmanaged: Settings { leave_foreign: true, unmanaged: true, ..BARE }, Reload;
    catch_all: Settings { catch_all: true, ..BARE }, Restart;
    catch_all_leaving_foreign: Settings { catch_all: true, leave_foreign: true, ..BARE }, Restart;
    catch_all_unmanaged: Settings { catch_all: true, unmanaged: true, ..BARE }, Restart;
    catch_all_leaving_foreign_and_unmanaged:
        Settings { catch_all: true, leave_foreign: true, unmanaged: true, ..BARE }, Restart;
    reload_with_the_remedy: Settings { by_doctor: true, ..BARE }, Reload;
    carrier: BARE, Carrier;
    carrier_leaving_foreign_and_unmanaged: Settings { leave_foreign: true, unmanaged: true, ..BARE }, Carrier;
}

/// Without a guardian each of them loses something, but for those that the settings do help against.
#[test]
fn each_loses_something_without_a_guardian() -> Result<()> {
    let restart = lost(BARE, Event::Restart)?;
    for label in ["route inet main 10.244.2.0/24", "rule inet 32765", "rule inet6 32765"] {
        assert!(restart.iter().any(|l| l == label), "{label} is not among {restart:?}");
    }
    let all = lost(Settings { catch_all: true, ..BARE }, Event::Restart)?;
    for label in ["address kube-bridge 10.244.1.1/24", "link veth0000a"] {
        assert!(all.iter().any(|l| l == label), "{label} is not among {all:?}");
    }
    Ok(())
}

/// A nexthop object of [`Lab::guarded`] by `eth0`, or a route by one.
fn by_nexthop_object(label: &str) -> bool {
    ["nexthop 18", "nexthop 19", "10.244.8.0/24", "10.244.9.0/24"].iter().any(|known| label.ends_with(known))
}

/// What `doctor --fix --yes` writes holds against what it is said to hold against, with no guardian running. Each of these
/// loses something without it.
#[test]
fn the_remedy_prevents_what_it_says() -> Result<()> {
    for settings in [BARE, Settings { catch_all: true, ..BARE }] {
        for event in [Event::Restart, Event::Kill, Event::Carrier] {
            let without = lost(settings, event)?;
            ensure!(!without.is_empty(), "{event:?} loses nothing anyway: {settings:?}");
            let mut with = lost(Settings { by_doctor: true, ..settings }, event)?;
            // The kernel itself lets go of these with the carrier, and this version knows no setting that would keep
            // groups, as `doctor` says.
            with.retain(|label| !by_nexthop_object(label));
            ensure!(
                with.is_empty(),
                "{event:?} with the remedy, {settings:?}: {with:?}; without it: {without:?}"
            );
        }
        let with = lost(Settings { by_doctor: true, ..settings }, Event::Stop)?;
        ensure!(with.is_empty(), "a stop with the remedy, {settings:?}: {with:?}");
    }
    Ok(())
}

/// And it is said what it does not hold against: that is lost, with no guardian running.
/// (`reload_with_the_remedy` is the same with one.)
#[test]
fn the_remedy_does_not_prevent_what_it_says_it_does_not() -> Result<()> {
    let settings = Settings { by_doctor: true, ..BARE };
    ensure!(!lost(settings, Event::Reload)?.is_empty(), "a reload of a changed file loses nothing any more");
    Ok(())
}

/// What is wrong is told with the line that says so, and no longer when the remedy is there.
#[test]
fn doctor_finds_the_lines_at_fault() -> Result<()> {
    let lab = Lab::new()?;
    let (networkd, _pods) = Networkd::on_guarded_node(&lab, Settings { catch_all: true, ..BARE })?;
    let before = networkd.doctor("")?;
    for line in
        ["/etc/systemd/network/zz-all.network:2 Name=*", "/etc/systemd/network/10-eth0.network:2 Name=eth0"]
    {
        ensure!(before.contains(line), "no {line} in:\n{before}");
    }
    ensure!(before.lines().all(|line| line.chars().count() <= 100), "{before}");
    let shown = networkd.doctor("--fix")?;
    ensure!(shown.contains("+++ /etc/systemd/network/00-route-guardian.network"), "{shown}");
    ensure!(networkd.doctor("")? == before, "to show it wrote something");
    networkd.doctor("--fix --yes")?;
    let after = networkd.doctor("")?;
    let about = after.split("systemd-networkd\n").nth(1).unwrap_or_default();
    ensure!(!about.lines().any(|line| line.starts_with("  wrong")), "{after}");
    ensure!(networkd.doctor("--fix --yes")?.contains("Nothing was to be written"));
    Ok(())
}

/// For how long systemd-networkd's third taking of a port lasts, beside the time from the second to the third, in percent;
/// the median of the ports that it took so often.
///
/// A port that is waited for until it rests is away for as long as a round of it takes. It says earlier that it has met it.
fn share_of_a_round(events: &[lab::Event], ports: &[&str]) -> Result<i128> {
    let mut shares = Vec::new();
    for port in ports {
        let taken: Vec<_> = events.iter().filter(|event| event.key() == *port).collect();
        if let [_, second, third, ..] = taken[..] {
            let time = |event: &lab::Event| event.text("/time").parse::<Timestamp>();
            let round = time(third)?.duration_since(time(second)?).as_micros();
            let outage = third.number("/outage_us").context("no outage")?;
            shares.push(i128::from(outage) * 100 / round);
        }
    }
    shares.sort_unstable();
    shares.get(shares.len() / 2).copied().with_context(|| format!("none was taken three times: {ports:?}"))
}

/// A port comes back as soon as systemd-networkd has met it anew.
#[test]
fn a_port_is_back_before_networkd_has_gone_through_all_links() -> Result<()> {
    let lab = Lab::new()?;
    let (mut networkd, _pods) = ready(&lab, Settings { catch_all: true, ..BARE }, Event::Kill)?;
    let guardian = lab.guardian().start()?;
    happen(&lab, &mut networkd, Event::Kill)?;
    let events = named(&guardian, &networkd)?;
    let share = share_of_a_round(&events, &lab::PORTS)?;
    ensure!(share < 60, "{share} % of a round:\n{}", shown(&events));
    Ok(())
}

/// As many pods more as the kubelet takes (`maxPods`), and their ports; fewer where each takes longer.
pub fn full(lab: &Lab) -> Result<(Vec<String>, Vec<lab::Pod>)> {
    let ports: Vec<_> = (0..110 / slowness()).map(|i| format!("veth1{i:03}a")).collect();
    let pods = ports.iter().map(|port| lab.pod(port)).collect::<Result<_>>()?;
    Ok((ports, pods))
}

/// A node full of pods: systemd-networkd takes each out of its bridge, and would do so without end if it came back at once
/// each time. It is let finish, and all is whole.
#[test]
fn catch_all_on_a_full_node() -> Result<()> {
    let lab = Lab::new()?;
    let (mut networkd, _pods) = Networkd::on_guarded_node(&lab, Settings { catch_all: true, ..BARE })?;
    let (ports, _more) = full(&lab)?;
    let before = state(&lab)?;
    let guardian = lab.guardian().start()?;
    happen(&lab, &mut networkd, Event::Restart)?;
    // It goes through all the links in turn, and is let finish.
    wait_for("all to be as it was", LIMIT * 5, || Ok(before.diff(&state(&lab)?).is_empty()))?;
    let events = named(&guardian, &networkd)?;
    let share = share_of_a_round(&events, &ports.iter().map(String::as_str).collect::<Vec<_>>())?;
    ensure!(share < 70, "{share} % of a round");
    for port in &ports {
        let times = events.iter().filter(|event| event.key() == port).count();
        assert!((1..=4).contains(&times), "{port}: {times} times\n{}", shown(&events));
    }
    Ok(())
}
