//! Which ports have a cable, and when it is lent.

use std::time::Duration;

use super::{
    Input, Settings,
    simulation::someone,
    stage::{BRIDGE, Stage, VETH, bridge, node, veth},
    testing::set,
};
use crate::model::{Attribute, Link, Mode, Port, Stamp, link::ifla, record::Verdict};

/// What would be taken again at once is carried, and ready to be from the first time on; of networkd's only, of bridges with an
/// address of their own, and not for ever.
#[test]
fn a_port_that_networkd_takes_is_lent_a_cable() {
    let own = Attribute { kind: ifla::ADDRESS, value: [2, 0, 0, 0, 0, 1].into() };
    let theirs = Attribute { kind: ifla::ADDRESS, value: [2, 0, 0, 0, 0, 2].into() };
    let networkd = "/usr/lib/systemd/systemd-networkd";
    for (exe, settings, of_bridge, lends) in [
        (networkd, Settings::default(), Some(&own), true),
        ("/usr/sbin/ip", Settings::default(), Some(&own), false),
        (networkd, Settings { lend: None, ..Settings::default() }, Some(&own), false),
        (networkd, Settings { mode: Mode::Observe, ..Settings::default() }, Some(&own), false),
        (networkd, Settings::default(), Some(&theirs), false),
        (networkd, Settings::default(), None, false),
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
            stage.own(set(veth(Some(port.clone()))));
            let ready = lent(&stage);
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
    let own = Attribute { kind: ifla::ADDRESS, value: [2, 0, 0, 0, 0, 1].into() };
    let port = Port { link: VETH, master: BRIDGE, kind: Some("bridge".into()), options: vec![] };
    let mut objects = node();
    objects[2] = Link { attributes: vec![own], ..bridge() }.into();
    objects[3] = Link { port: Some(port.clone()), ..veth(0) }.into();
    let mut stage = Stage::new(Settings::default(), &objects);
    assert_eq!(stage.core.ports(), [VETH]);
    let runs = [60, 61].map(|tgid| someone(tgid, "/usr/lib/systemd/systemd-networkd"));
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
    stage.own(set(Link { port: Some(port), ..veth(0) }));
    assert_eq!(ready_for(&stage), Some(process(1)));
    stage.now = stage.core.deadline().expect("a time").0;
    stage.write();
    assert_eq!((ready_for(&stage), stage.core.deadline()), (Some(process(1)), None), "it is not put away");
    stage.core.step(Stamp(stage.now), Input::Manages(None));
    assert_eq!(ready_for(&stage), None);

    let settings = Settings { lend: None, ..Settings::default() };
    let mut stage = Stage::new(settings, &objects);
    stage.core.step(Stamp(stage.now), Input::Manages(Some(process(0))));
    assert_eq!((stage.core.ports(), ready_for(&stage)), (vec![], None), "nothing is to be lent");
}

/// Nothing stays ready for a port that nobody will bring back.
#[test]
fn a_cable_is_put_away_when_its_time_is_over_though_the_port_is_still_out() {
    let settings = Settings { absent_after: Some(Duration::from_secs(60)), ..Settings::default() };
    let own = Attribute { kind: ifla::ADDRESS, value: [2, 0, 0, 0, 0, 1].into() };
    let port = Port { link: VETH, master: BRIDGE, kind: Some("bridge".into()), options: vec![] };
    let mut objects = node();
    objects[2] = Link { attributes: vec![own], ..bridge() }.into();
    objects[3] = Link { port: Some(port), ..veth(0) }.into();
    let mut stage = Stage::new(settings, &objects);
    stage.now += 100_000_000_000;
    stage.core.step(Stamp(stage.now), Input::Owner { alive: false, since: Stamp(1) });
    stage.tell(set(veth(0)), &someone(60, "/usr/lib/systemd/systemd-networkd"), Verdict::Foreign);
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
    let own = Attribute { kind: ifla::ADDRESS, value: [2, 0, 0, 0, 0, 1].into() };
    let flag = |kind, on: u8| Attribute { kind, value: [on].into() };
    for (vlans, isolated) in [(0, 0), (1, 0), (0, 1)] {
        let options = vec![flag(ifla::BRPORT_ISOLATED, isolated)];
        let port = Port { link: VETH, master: BRIDGE, kind: Some("bridge".into()), options };
        let data = vec![flag(ifla::BR_VLAN_FILTERING, vlans)];
        let mut objects = node();
        objects[2] = Link { attributes: vec![own.clone()], data, ..bridge() }.into();
        objects[3] = Link { port: Some(port), ..veth(0) }.into();
        let mut stage = Stage::new(Settings::default(), &objects);
        stage.tell(set(veth(0)), &someone(60, "/usr/lib/systemd/systemd-networkd"), Verdict::Foreign);
        assert_eq!(stage.core.cables().len(), usize::from((vlans, isolated) == (0, 0)), "{vlans} {isolated}");
    }
}
