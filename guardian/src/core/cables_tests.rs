//! Which ports have a cable, and when it is lent.

use std::time::Duration;

use super::{
    Input, Settings,
    simulation::someone,
    stage::{BRIDGE, Stage, VETH, bridge, node, veth},
    testing::{gone, set},
};
use crate::model::{Attribute, Link, Mode, Object, Port, Stamp, link::ifla, record::Verdict};

const NETWORKD: &str = "/usr/lib/systemd/systemd-networkd";

fn own_address() -> Attribute {
    Attribute { kind: ifla::ADDRESS, value: [2, 0, 0, 0, 0, 1].into() }
}

fn plugged() -> Link {
    let port = Port { link: VETH, master: BRIDGE, kind: Some("bridge".into()), options: vec![] };
    Link { port: Some(port), ..veth(0) }
}

/// A node whose bridge can lend cables.
fn wired() -> Vec<Object> {
    let mut objects = node();
    objects[2] = Link { attributes: vec![own_address()], ..bridge() }.into();
    objects[3] = plugged().into();
    objects
}

/// What would be taken again at once is carried, and ready to be from the first time on; of networkd's only, of bridges with an
/// address of their own, and not for ever.
#[test]
fn a_port_that_networkd_takes_is_lent_a_cable() {
    let own = own_address();
    let theirs = Attribute { kind: ifla::ADDRESS, value: [2, 0, 0, 0, 0, 2].into() };
    for (exe, settings, of_bridge, lends) in [
        (NETWORKD, Settings::default(), Some(&own), true),
        ("/usr/sbin/ip", Settings::default(), Some(&own), false),
        (NETWORKD, Settings { lend: None, ..Settings::default() }, Some(&own), false),
        (NETWORKD, Settings { mode: Mode::Observe, ..Settings::default() }, Some(&own), false),
        (NETWORKD, Settings::default(), Some(&theirs), false),
        (NETWORKD, Settings::default(), None, false),
    ] {
        let bridge = Link { attributes: of_bridge.cloned().into_iter().collect(), ..bridge() };
        let port = Port { link: VETH, master: BRIDGE, kind: Some("bridge".into()), options: vec![] };
        let veth = |port| Link { port, attributes: vec![theirs.clone()], ..veth(0) };
        let mut objects = node();
        objects[2] = bridge.into();
        objects[3] = veth(Some(port.clone())).into();
        let mut stage = Stage::new(settings, &objects);
        let who = someone(60, exe);
        let lent = |stage: &Stage| stage.core.cables().into_iter().next();
        assert_eq!(lent(&stage), None, "nobody has taken anything");
        for _ in 0..2 {
            stage.tell(set(veth(None)), &who, Verdict::Foreign);
            assert_eq!(lent(&stage).is_some_and(|(_, cable)| cable.until.is_some()), lends, "it is out");
            stage.write();
            let written = lent(&stage);
            stage.own(set(veth(Some(port.clone()))));
            let ready = lent(&stage);
            assert_eq!(written, ready, "nothing is taken away in between");
            assert_eq!(ready.is_some(), lends, "{exe} {settings:?} {of_bridge:?}: {ready:?}");
            assert!(ready.is_none_or(|(port, cable)| port == VETH && cable.until.is_none()), "it is in");
            stage.now += 200_000_000;
        }
        stage.tell(set(veth(None)), &who, Verdict::Foreign);
        stage.write();
        if !lends {
            assert_eq!(lent(&stage), None, "{exe} {settings:?} {of_bridge:?}");
            continue;
        }
        let taken = Stamp(stage.now - 2000);
        let (_, cable) = lent(&stage).expect("a cable");
        assert_eq!((cable.bridge, cable.address), (BRIDGE, [2, 0, 0, 0, 0, 1]));
        assert!(cable.until.is_some_and(|until| until > taken.after(Duration::from_secs(29))), "{cable:?}");
        stage.core.step(Stamp(stage.now), Input::Met(VETH));
        stage.write();
        stage.own(set(veth(Some(port))));
        assert!(lent(&stage).is_some_and(|(_, cable)| cable.until.is_none()), "back, and ready");
        let due = stage.core.deadline().expect("a time to put it away");
        assert!(due.since(taken) >= Duration::from_secs(10), "it may be taken again");
        stage.now = due.0;
        stage.write();
        assert_eq!((lent(&stage), stage.core.deadline()), (None, None));
    }
}

/// Where networkd manages ports they are ready before it has taken any, for the run that did something last, until it does not
/// manage them any more.
#[test]
fn ports_that_networkd_manages_are_ready() {
    let mut stage = Stage::new(Settings::default(), &wired());
    assert_eq!(stage.core.ports(), [VETH]);
    let runs = [60, 61].map(|tgid| someone(tgid, NETWORKD));
    let process = |run: usize| runs[run].process().expect("a process").id;
    let ready_for = |stage: &Stage| {
        let cable = stage.core.cables().remove(&VETH)?;
        assert_eq!(cable.until, None);
        Some(cable.by)
    };
    stage.core.step(Stamp(stage.now), Input::Manages(Some(process(0))));
    assert_eq!((ready_for(&stage), stage.core.deadline()), (Some(process(0)), None), "for good");
    stage.tell(set(veth(0)), &runs[1], Verdict::Foreign);
    stage.write();
    stage.own(set(plugged()));
    assert_eq!(ready_for(&stage), Some(process(1)));
    stage.now = stage.core.deadline().expect("a time").0;
    stage.write();
    assert_eq!((ready_for(&stage), stage.core.deadline()), (Some(process(1)), None), "it is not put away");
    stage.core.step(Stamp(stage.now), Input::Manages(None));
    assert_eq!(ready_for(&stage), None);

    let settings = Settings { lend: None, ..Settings::default() };
    let mut stage = Stage::new(settings, &wired());
    stage.core.step(Stamp(stage.now), Input::Manages(Some(process(0))));
    assert_eq!((stage.core.ports(), ready_for(&stage)), (vec![], None), "nothing is to be lent");
}

/// The plugins that come after the bridge plugin find the port of a new pod as it is, whoever takes it meanwhile.
#[test]
fn the_port_of_a_new_pod_is_left_alone_at_first() {
    let mut objects = wired();
    objects.remove(3);
    let mut stage = Stage::new(Settings::default(), &objects);
    let networkd = someone(60, NETWORKD);
    stage.core.step(Stamp(stage.now), Input::Manages(networkd.process().map(|process| process.id)));
    let owner = someone(50, "/opt/cni/bin/bridge");
    stage.tell(set(veth(0)), &owner, Verdict::Owner);
    stage.tell(set(plugged()), &owner, Verdict::Owner);
    let came = Stamp(stage.now);
    assert_eq!((stage.core.ports(), stage.core.cables().len()), (vec![VETH], 0));
    stage.tell(set(veth(0)), &networkd, Verdict::Foreign);
    stage.write();
    stage.own(set(plugged()));
    assert!(stage.core.cables().is_empty());
    let due = stage.core.deadline().expect("a time");
    assert_eq!(due.since(came), Duration::from_secs(10));
    stage.now = due.0;
    stage.write();
    assert_eq!(stage.core.cables().len(), 1);
}

/// What was attached to a bridge goes with it, also where it comes back as it was.
#[test]
fn a_bridge_that_was_away_is_another_one() {
    let mut stage = Stage::new(Settings::default(), &wired());
    let networkd = someone(60, NETWORKD);
    stage.core.step(Stamp(stage.now), Input::Manages(networkd.process().map(|process| process.id)));
    let times_gone = |stage: &Stage| stage.core.cables().remove(&VETH).map(|cable| cable.bridge_gone);
    assert_eq!(times_gone(&stage), Some(0));
    let ip = someone(61, "/usr/sbin/ip");
    stage.tell(set(veth(0)), &ip, Verdict::Foreign);
    stage.tell(gone(Link { attributes: vec![own_address()], ..bridge() }), &ip, Verdict::Foreign);
    while !stage.write().is_empty() {}
    stage.own(set(plugged()));
    assert_eq!(times_gone(&stage), Some(1));
}

/// Nothing stays ready for a port that nobody will bring back.
#[test]
fn a_cable_is_put_away_when_its_time_is_over_though_the_port_is_still_out() {
    let settings = Settings { absent_after: Some(Duration::from_secs(60)), ..Settings::default() };
    let mut stage = Stage::new(settings, &wired());
    stage.now += 100_000_000_000;
    stage.core.step(Stamp(stage.now), Input::Owner { alive: false, since: Stamp(1) });
    stage.tell(set(veth(0)), &someone(60, NETWORKD), Verdict::Foreign);
    assert!(stage.write().is_empty(), "no owner");
    assert_eq!(stage.core.cables().len(), 1);
    let mut wakings = 0;
    while let Some(due) = stage.core.deadline() {
        stage.now = due.0;
        assert!(stage.write().is_empty());
        wakings += 1;
        assert!(wakings < 10, "without end");
    }
    assert!(stage.core.cables().is_empty());
}

/// Nor where the bridge does more with frames than to pass them on.
#[test]
fn a_bridge_that_tells_apart_lends_nothing() {
    let flag = |kind, on: u8| Attribute { kind, value: [on].into() };
    for (vlans, isolated) in [(0, 0), (1, 0), (0, 1)] {
        let options = vec![flag(ifla::BRPORT_ISOLATED, isolated)];
        let port = Port { link: VETH, master: BRIDGE, kind: Some("bridge".into()), options };
        let data = vec![flag(ifla::BR_VLAN_FILTERING, vlans)];
        let mut objects = node();
        objects[2] = Link { attributes: vec![own_address()], data, ..bridge() }.into();
        objects[3] = Link { port: Some(port), ..veth(0) }.into();
        let mut stage = Stage::new(Settings::default(), &objects);
        stage.tell(set(veth(0)), &someone(60, NETWORKD), Verdict::Foreign);
        assert_eq!(stage.core.cables().len(), usize::from((vlans, isolated) == (0, 0)), "{vlans} {isolated}");
    }
}
