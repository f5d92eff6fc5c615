//! The trouble as it happened, and what the guardian makes of it.

use std::{process::Command, thread, time::Duration};

use anyhow::Result;
use lab::{
    dns::{Stream, Tally},
    wait_for,
};

use crate::rig::{
    PODS, Rig, SERVICE, SLOW, Setup, ask, cable, events, guardian, routes, run, state, systemctl,
};

/// What happens to systemd-networkd, or to its card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disturbance {
    Restart,
    Kill,
    Reload,
    Reconfigure,
    Carrier,
}

use Disturbance::{Carrier, Kill, Reconfigure, Reload, Restart};

impl Disturbance {
    fn happen(self, rig: &Rig) -> Result<()> {
        match self {
            Restart => systemctl("restart systemd-networkd"),
            Kill => systemctl("kill --signal=KILL systemd-networkd"),
            Reload => {
                rig.touch()?;
                run("networkctl", "reload")
            }
            Reconfigure => run("networkctl", "reconfigure eth0"),
            Carrier => {
                cable(false)?;
                thread::sleep(Duration::from_secs(1));
                cable(true)
            }
        }
    }
}

/// The cable comes out and goes in again, or nothing that is said of it means anything.
#[test]
fn a_cable() -> Result<()> {
    let _rig = Rig::new(Setup::Static)?;
    cable(false)?;
    cable(true)
}

/// The seed of all this: without a guardian what networkd took stays away, and every query fails until kube-router looks.
#[test]
fn without_the_guardian_queries_fail_until_somebody_repairs_the_node() -> Result<()> {
    let rig = Rig::new(Setup::Dhcp)?;
    let before = state()?;
    // systemd 257 keeps the address, and with it the tunnel's route, when it is restarted; not when the cable is out.
    let mut took = None;
    for what in [Restart, Carrier] {
        what.happen(&rig)?;
        if wait_for("networkd's deed", SLOW / 3, || Ok(!state()?.contains(PODS))).is_ok() {
            took = Some(what);
            break;
        }
    }
    let what = took.expect("networkd took the tunnel's route neither at a restart nor with the cable");
    // Long after it has finished, and long before kube-router would have looked.
    thread::sleep(Duration::from_secs(5));
    let stream = Stream::start(&rig.pod, SERVICE)?;
    thread::sleep(Duration::from_secs(2));
    let tally = stream.stop()?;
    println!("without the guardian, after {what:?} of systemd-networkd: {tally}");
    assert!(tally.asked > 0 && tally.asked == tally.lost + tally.open, "{tally}");
    assert_ne!(state()?, before);
    // As kube-router's next sync would, within a minute.
    routes("replace")?;
    wait_for("the pod's queries", SLOW, || rig.answers())
}

/// With it every query is answered, if not at once then when it is asked again, and all is as it was.
fn disturb(rig: &Rig, disturbances: &[Disturbance]) -> Result<Vec<Tally>> {
    let before = state()?;
    let mut tallies = Vec::new();
    for what in disturbances {
        let stream = Stream::start(&rig.pod, SERVICE)?;
        thread::sleep(Duration::from_millis(500));
        what.happen(rig)?;
        let whole = wait_for("all to be as it was", SLOW, || Ok(state()? == before));
        if let Err(error) = whole {
            let diff = ask("diff")?;
            panic!("{what:?}: {error}\nbefore:\n{before}\nnow:\n{}\n{diff}\n{}", state()?, ask("events")?);
        }
        thread::sleep(Duration::from_secs(2));
        let tally = stream.stop()?;
        println!("{what:?}: {tally}");
        assert!(tally.is_steady(), "{what:?}: {tally}");
        let unanswered = tally.lost + tally.open;
        assert_eq!(unanswered, 0, "{what:?}: {tally}\n{}\n{}", ask("status")?, ask("events -o wide")?);
        // networkd may still be at it, link after link, and what it undoes again and again comes back with a pause.
        wait_for("all to be as it was in the end", SLOW, || Ok(state()? == before))?;
        tallies.push(tally);
    }
    Ok(tallies)
}

/// The same where nothing but systemd-networkd is in the way: at most one query is late, each time.
fn disturb_and_hear(rig: &Rig, disturbances: &[Disturbance]) -> Result<()> {
    for (what, tally) in disturbances.iter().zip(disturb(rig, disturbances)?) {
        assert!(tally.late <= 1, "{what:?}: {tally}\n{}", ask("events -o wide")?);
    }
    Ok(())
}

/// The same where systemd-networkd does take something.
fn disturb_and_name(rig: &Rig, disturbances: &[Disturbance]) -> Result<Vec<Tally>> {
    let before = named()?;
    let tallies = disturb(rig, disturbances)?;
    assert!(named()? > before, "nothing was taken by {disturbances:?}");
    Ok(tallies)
}

/// How many changes there were, each put down to the program that made it, for certain, or to the kernel.
fn named() -> Result<usize> {
    let mut events = events()?;
    // What the owner has set up while the guardian was there.
    events.retain(|event| event.text("/verdict") != "owner");
    for event in &events {
        let who = event.text("/actor/exe").to_owned() + event.text("/actor/class");
        let by_networkd = who.contains("systemd-networkd") && event.text("/actor/confidence") == "exact";
        let by_kernel = event.text("/verdict") == "kernel";
        assert!(by_networkd || by_kernel, "{event}");
        assert_ne!(event.outcome(), "failed", "{event}");
    }
    println!("{} changes, each named", events.len());
    Ok(events.len())
}

#[test]
fn a_card_by_dhcp() -> Result<()> {
    let rig = Rig::new(Setup::Dhcp)?;
    guardian()?;
    disturb_and_hear(&rig, &[Restart, Kill, Reload, Reconfigure])?;
    disturb_and_name(&rig, &[Carrier]).map(drop)
}

#[test]
fn a_card_with_a_fixed_address() -> Result<()> {
    let rig = Rig::new(Setup::Static)?;
    guardian()?;
    disturb_and_hear(&rig, &[Restart, Kill, Reload, Reconfigure])?;
    disturb_and_name(&rig, &[Carrier]).map(drop)
}

/// As distributions for clusters have it.
#[test]
fn a_file_that_matches_every_card() -> Result<()> {
    let rig = Rig::new(Setup::Cards)?;
    disturb_and_hear(&rig, &[Restart, Kill, Reload, Reconfigure])?;
    disturb_and_name(&rig, &[Carrier]).map(drop)
}

/// networkd takes the pod's cable out of its bridge each time that it finds it there, and is let finish; its frames are carried
/// meanwhile, from the first time on: the guardian has seen that networkd manages the port.
#[test]
fn a_file_that_matches_every_link() -> Result<()> {
    let rig = Rig::new(Setup::CatchAll)?;
    guardian()?;
    for what in [Restart, Kill, Reload] {
        // What it takes one time after the other uses up a budget of restores, as nobody does who restarts it now and then.
        thread::sleep(Duration::from_secs(60));
        let ready = Command::new("tc").args(["filter", "show", "dev", "veth0000a", "ingress"]).output()?;
        assert!(!ready.stdout.is_empty(), "{what:?}, it is not ready: {ready:?}\n{}", ask("status")?);
        for tally in disturb_and_name(&rig, &[what])? {
            assert!(tally.late <= 1, "{what:?}: {tally}\n{}", ask("events -o wide")?);
        }
    }
    Ok(())
}

/// networkd starts for the first time when kube-router's state is there, as on a node that boots.
#[test]
fn networkd_that_starts_last() -> Result<()> {
    let rig = Rig::new(Setup::Late)?;
    guardian()?;
    let before = state()?;
    let stream = Stream::start(&rig.pod, SERVICE)?;
    systemctl("start systemd-networkd")?;
    thread::sleep(Duration::from_secs(5));
    wait_for("all to be as it was", SLOW, || Ok(state()? == before))?;
    let tally = stream.stop()?;
    println!("networkd starts last: {tally}");
    assert!(tally.is_steady(), "{tally}");
    assert_eq!((tally.lost, tally.open), (0, 0), "{tally}");
    named().map(drop)
}

/// Writes what keeps systemd-networkd from taking anything, and has it read that.
fn remedy() -> Result<()> {
    println!("{}", ask("doctor --fix --yes")?);
    systemctl("restart systemd-networkd")?;
    wait_for("all to be whole", SLOW, || Ok(ask("status")?.contains("Missing:   0,")))?;
    thread::sleep(Duration::from_secs(2));
    Ok(())
}

/// What `doctor --fix --yes` writes keeps systemd-networkd from doing it: next to nothing is late.
#[test]
fn with_the_remedy_nothing_is_late() -> Result<()> {
    let rig = Rig::new(Setup::Dhcp)?;
    guardian()?;
    remedy()?;
    disturb_and_hear(&rig, &[Restart, Kill])?;
    // A cable that is out for a second delays what is sent over it.
    disturb(&rig, &[Carrier])?;
    named().map(drop)
}

/// Also where a file matches every link: kube-router's are left alone then, and the pods' cables.
#[test]
fn with_the_remedy_a_file_that_matches_every_link_does_no_harm() -> Result<()> {
    let rig = Rig::new(Setup::CatchAll)?;
    remedy()?;
    disturb_and_hear(&rig, &[Restart, Kill, Reload])?;
    named().map(drop)
}

/// A command that systemd starts for somebody is named with its unit, for certain, though it is gone in a moment.
#[test]
fn a_transient_unit() -> Result<()> {
    let rig = Rig::new(Setup::Static)?;
    guardian()?;
    let before = state()?;
    run("systemd-run", "--quiet --wait --collect --unit=culprit ip route del 10.244.3.0/24")?;
    wait_for("all to be as it was", SLOW, || Ok(state()? == before))?;
    drop(rig);
    let events = events()?;
    let event = events.iter().rfind(|event| event.key() == "10.244.3.0/24").expect("a record");
    assert_eq!(event.text("/actor/unit"), "culprit.service", "{event}");
    assert_eq!(event.text("/actor/confidence"), "exact", "{event}");
    assert_eq!(event.argv()[1..], ["route", "del", "10.244.3.0/24"], "{event}");
    assert_eq!(event.outcome(), "restored", "{event}");
    Ok(())
}
