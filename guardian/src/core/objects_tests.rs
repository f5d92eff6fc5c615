//! Links, addresses, rules and nexthop objects, told one by one.

use std::{sync::Arc, time::Duration};

use super::{
    Core, Dump, Input, Settings, Waited,
    plan::{Action, Applied},
    simulation::someone,
    stage::{BRIDGE, Stage, TUN, VETH, bridge, guarded, node, rule, veth},
    testing::{address, gone, link, route, set},
};
use crate::model::{
    Actor, Attribute, Key, Link, Mode, Nexthop, Object, Port, ProcessId, Route, Rule, Stamp,
    nexthop::nha,
    record::{Cause, Change, Outcome, Verdict},
    route::rt,
};

#[test]
fn a_deleted_bridge_comes_back_with_all_that_was_on_it_in_the_right_order() {
    let mut stage = Stage::new(Settings::default(), &node());
    let ip = someone(60, "/usr/sbin/ip");
    // In the kernel's order; the connected route goes without a word.
    stage.tell(set(veth(0)), &ip, Verdict::Foreign);
    stage.tell(gone(address("10.244.1.1", BRIDGE, 24)), &ip, Verdict::Foreign);
    stage.tell(gone(bridge()), &ip, Verdict::Foreign);
    assert_eq!(stage.write(), [Action::Add(bridge().into())]);
    let port = Port { link: VETH, master: BRIDGE, kind: None, options: vec![] };
    assert_eq!(stage.write(), [Action::Add(Object::Port(port))]);
    assert_eq!(stage.write(), [Action::Add(address("10.244.1.1", BRIDGE, 24).into())]);
    // The kernel has made the connected route with the address; a dump finds the rest whole.
    let objects = node();
    stage.dump(objects);
    assert!(stage.write().is_empty());
    assert!(stage.reports.iter().all(|report| report.outcome == Outcome::Restored), "{:?}", stage.reports);
    assert!(stage.core.missing().is_empty());
    let causes: Vec<Cause> = stage.reports.iter().map(|report| report.cause).collect();
    assert_eq!(causes, [Cause::Request, Cause::LinkRemoved, Cause::LinkRemoved], "bridge, port, address");
}

/// A group that has lost one member goes with the other in silence, and so does its route.
#[test]
fn the_route_of_a_group_of_one_goes_with_its_last_member() {
    let nexthop = |id, oif, members: &[u8]| {
        let group: Vec<u8> = members.iter().flat_map(|id| [*id, 0, 0, 0, 0, 0, 0, 0]).collect();
        let group = Attribute { kind: nha::GROUP, value: group.into() };
        let attributes = if members.is_empty() { vec![] } else { vec![group] };
        Nexthop { id, family: 2, protocol: 17, flags: 0, oif, attributes }
    };
    let mut by_group = route("10.244.9.0/24", 0);
    by_group.attributes = vec![Attribute { kind: rt::RTA_NH_ID, value: 19u32.to_ne_bytes().into() }];
    let mut objects = node();
    let (seventeen, eighteen) = (nexthop(17, TUN, &[]), nexthop(18, 1, &[]));
    objects.extend([seventeen.into(), eighteen.clone().into(), nexthop(19, 0, &[17, 18]).into()]);
    objects.push(by_group.into());
    let mut stage = Stage::new(Settings::default(), &objects);
    let ip = someone(60, "/usr/sbin/ip");
    stage.tell(gone(eighteen), &ip, Verdict::Foreign);
    stage.tell(set(nexthop(19, 0, &[17])), &ip, Verdict::Foreign);
    stage.tell(set(Link { flags: 0, ..link(TUN, "tun-a") }), &ip, Verdict::Foreign);
    stage.dump(node());
    for _ in 0..5 {
        stage.write();
    }
    let told = stage.reports.iter().find(|report| report.object.route().is_some()).expect("the route");
    assert_eq!((told.cause, told.verdict), (Cause::NexthopRemoved, Verdict::Foreign), "{told:?}");
}

/// Where hooks see a route fall, they tell of it before the kernel says that the carrier is gone, and the nexthop object
/// that took the route along goes without a word.
#[test]
fn a_route_that_was_seen_to_fall_gets_its_cause_when_that_is_known() {
    let eighteen = Nexthop { id: 18, family: 2, protocol: 17, flags: 0, oif: TUN, attributes: vec![] };
    let mut by_nexthop = route("10.244.8.0/24", TUN);
    by_nexthop.attributes = vec![Attribute { kind: rt::RTA_NH_ID, value: 18u32.to_ne_bytes().into() }];
    let running = |flags| Link { flags, ..link(TUN, "tun-a") };
    let rest =
        |flags| node().into_iter().filter(|o| o.key() != Key::Link(TUN)).chain([running(flags).into()]);
    let objects = rest(0x1_0041).chain([eighteen.into(), by_nexthop.clone().into()]).collect::<Vec<_>>();
    let mut stage = Stage::new(Settings::default(), &objects);
    let worker = Arc::new(Actor::Kernel { what: "kworker/0:1".into() });
    stage.tell(gone(by_nexthop), &worker, Verdict::Kernel);
    stage.tell(set(running(1)), &worker, Verdict::Kernel);
    stage.dump(rest(1).collect());
    for _ in 0..3 {
        stage.write();
    }
    let told: Vec<_> =
        stage.reports.iter().map(|r| (r.object.key().is_route(), r.cause, r.outcome)).collect();
    assert!(told.contains(&(true, Cause::NexthopRemoved, Outcome::Restored)), "{told:?}");
    assert!(told.contains(&(false, Cause::LinkDown, Outcome::Restored)), "{told:?}");
}

#[test]
fn the_owners_link_takes_everything_with_it() {
    let mut stage = Stage::new(Settings::default(), &node());
    let owner = someone(7, "/usr/local/bin/kube-router");
    stage.tell(gone(address("10.244.1.1", BRIDGE, 24)), &owner, Verdict::Owner);
    stage.tell(gone(bridge()), &owner, Verdict::Owner);
    stage.tell(gone(rule()), &owner, Verdict::Owner);
    let objects = vec![link(1, "eth0").into(), link(TUN, "tun-a").into(), veth(0).into()];
    stage.dump(objects);
    assert!(stage.write().is_empty());
    assert!(stage.reports.iter().all(|report| report.outcome == Outcome::Allowed), "{:?}", stage.reports);
}

#[test]
fn a_name_a_flag_and_an_mtu_are_put_right_and_an_alias_is_taken_over() {
    let mut stage = Stage::new(Settings::default(), &node());
    let ip = someone(60, "/usr/sbin/ip");
    let renamed = Link { name: "br0".into(), ..bridge() };
    for (changed, change) in [
        (renamed, Change::Changed),
        (Link { flags: 0, ..bridge() }, Change::Down),
        (Link { mtu: 1400, ..bridge() }, Change::Changed),
    ] {
        stage.tell(set(changed), &ip, Verdict::Foreign);
        assert_eq!(stage.write(), [Action::Replace(bridge().into())]);
        assert_eq!(stage.reports.last().map(|r| (r.change, r.outcome)), Some((change, Outcome::Restored)));
    }
    let alias = Attribute { kind: 20, value: b"pods\0".as_slice().into() };
    let moved = Link { attributes: vec![alias], ..bridge() };
    stage.tell(set(moved.clone()), &ip, Verdict::Foreign);
    assert!(stage.write().is_empty());
    assert!(stage.core.desired().iter().any(|object| **object == Object::Link(moved.clone())), "newest");
}

#[test]
fn a_pod_that_goes_takes_its_cable_and_one_that_is_taken_out_of_the_bridge_comes_back() {
    let mut stage = Stage::new(Settings::default(), &node());
    let ip = someone(60, "/usr/sbin/ip");
    stage.tell(set(veth(0)), &ip, Verdict::Foreign);
    let port = Port { link: VETH, master: BRIDGE, kind: None, options: vec![] };
    assert_eq!(stage.write(), [Action::Add(Object::Port(port))]);
    stage.tell(set(veth(BRIDGE)), &ip, Verdict::Foreign);
    let count = stage.reports.len();
    stage.tell(gone(veth(BRIDGE)), &ip, Verdict::Foreign);
    assert!(stage.write().is_empty());
    let told: Vec<_> = stage.reports[count..].iter().map(|r| (r.change, r.outcome)).collect();
    assert_eq!(told, [(Change::Deleted, Outcome::Observed)], "told, and let go");
    assert!(stage.core.missing().is_empty());
}

/// systemd-networkd takes a link out of its bridge whenever it is there again, until it has gone through it outside.
#[test]
fn who_takes_a_link_out_of_its_bridge_again_is_let_finish_before_it_comes_back() {
    let mut stage = Stage::new(Settings::default(), &node());
    let (networkd, ip) = (someone(60, "/usr/lib/systemd/systemd-networkd"), someone(61, "/usr/sbin/ip"));
    let back = [Action::Add(Object::Port(Port { link: VETH, master: BRIDGE, kind: None, options: vec![] }))];
    for _ in 0..2 {
        stage.tell(set(veth(0)), &networkd, Verdict::Foreign);
        assert_eq!(stage.write(), back, "at once");
        stage.own(set(veth(BRIDGE)));
        stage.now += 200_000_000;
    }
    stage.tell(set(veth(0)), &networkd, Verdict::Foreign);
    assert!(stage.write().is_empty(), "it has taken 200 ms twice, and needs them once more");
    assert_eq!(stage.reports.last().map(|report| report.outcome), Some(Outcome::Held));
    stage.now += 200_000_000;
    assert!(stage.write().is_empty(), "and somewhat longer");
    let due = stage.core.deadline().expect("a timer");
    stage.now = due.0;
    assert_eq!(stage.write(), back);
    assert_eq!(stage.reports.last().map(|report| report.outcome), Some(Outcome::Restored));
    stage.own(set(veth(BRIDGE)));
    // Somebody else who does it is none that starts over.
    stage.now += 200_000_000;
    stage.tell(set(veth(0)), &ip, Verdict::Foreign);
    assert_eq!(stage.write(), back, "at once");
}

/// Who is seen to have nothing more to do has finished; who takes it even then is given its time.
#[test]
fn who_is_let_finish_has_when_it_rests() {
    let mut stage = Stage::new(Settings::default(), &node());
    let networkd = someone(60, "/usr/lib/systemd/systemd-networkd");
    let process = networkd.process().expect("a process").id;
    let other = ProcessId { tgid: 61, ..process };
    let back = [Action::Add(Object::Port(Port { link: VETH, master: BRIDGE, kind: None, options: vec![] }))];
    for _ in 0..2 {
        assert_eq!(stage.core.waited_for(), None);
        stage.tell(set(veth(0)), &networkd, Verdict::Foreign);
        assert_eq!(stage.write(), back, "at once");
        stage.own(set(veth(BRIDGE)));
        stage.now += 200_000_000;
    }
    stage.tell(set(veth(0)), &networkd, Verdict::Foreign);
    assert!(stage.write().is_empty());
    assert_eq!(stage.core.waited_for(), Some(Waited { process, is_networkd: true }));
    stage.core.step(Stamp(stage.now), Input::Rests(other));
    assert!(stage.write().is_empty(), "somebody else");
    stage.now += 10_000_000;
    stage.core.step(Stamp(stage.now), Input::Rests(process));
    assert_eq!(stage.write(), back);
    stage.own(set(veth(BRIDGE)));
    assert_eq!(stage.core.waited_for(), None);

    stage.now += 5_000_000;
    stage.tell(set(veth(0)), &networkd, Verdict::Foreign);
    assert_eq!(stage.core.waited_for(), None, "it would be seen to rest too early again");
    stage.core.step(Stamp(stage.now), Input::Rests(process));
    assert!(stage.write().is_empty());
    stage.now = stage.core.deadline().expect("a timer").0;
    assert_eq!(stage.write(), back);
}

/// systemd-networkd says of each link when it has met it anew; nobody else does.
#[test]
fn a_port_that_networkd_has_met_anew_comes_back_before_it_rests() {
    for (exe, is_networkd) in [("/usr/lib/systemd/systemd-networkd", true), ("/usr/bin/bridger", false)] {
        let mut stage = Stage::new(Settings::default(), &node());
        let who = someone(60, exe);
        let process = who.process().expect("a process").id;
        let back =
            [Action::Add(Object::Port(Port { link: VETH, master: BRIDGE, kind: None, options: vec![] }))];
        for _ in 0..2 {
            stage.tell(set(veth(0)), &who, Verdict::Foreign);
            assert_eq!(stage.write(), back, "at once");
            stage.own(set(veth(BRIDGE)));
            stage.now += 200_000_000;
            stage.core.step(Stamp(stage.now), Input::Met(VETH));
            assert!(stage.write().is_empty(), "nothing is missing");
        }
        stage.tell(set(veth(0)), &who, Verdict::Foreign);
        assert_eq!(stage.core.waited_for(), Some(Waited { process, is_networkd }));
        stage.core.step(Stamp(stage.now), Input::Met(BRIDGE));
        assert!(stage.write().is_empty(), "another one");
        stage.core.step(Stamp(stage.now), Input::Met(VETH));
        assert_eq!(stage.write(), if is_networkd { &back[..] } else { &[] });
        if !is_networkd {
            continue;
        }
        stage.own(set(veth(BRIDGE)));
        // Who takes it even then is given its time.
        stage.now += 5_000_000;
        stage.tell(set(veth(0)), &who, Verdict::Foreign);
        stage.core.step(Stamp(stage.now), Input::Met(VETH));
        assert!(stage.write().is_empty());
        stage.now = stage.core.deadline().expect("a timer").0;
        assert_eq!(stage.write(), back);
    }
}

/// Who is gone cannot undo it any more; and what was held for another reason, longer than that, waits for nobody.
#[test]
fn who_is_let_finish_is_waited_for_as_long_as_it_is_there_and_no_longer() {
    let settings = Settings { absent_after: Some(Duration::from_secs(60)), ..Settings::default() };
    let mut stage = Stage::new(settings, &node());
    let networkd = someone(60, "/usr/lib/systemd/systemd-networkd");
    let process = networkd.process().expect("a process").id;
    let back = [Action::Add(Object::Port(Port { link: VETH, master: BRIDGE, kind: None, options: vec![] }))];
    let taken_twice = |stage: &mut Stage| {
        for _ in 0..2 {
            stage.tell(set(veth(0)), &networkd, Verdict::Foreign);
            assert_eq!(stage.write(), back, "at once");
            stage.own(set(veth(BRIDGE)));
            stage.now += 4_000_000_000;
        }
    };
    taken_twice(&mut stage);
    stage.tell(set(veth(0)), &networkd, Verdict::Foreign);
    assert!(stage.write().is_empty());
    stage.now += 1_000_000_000;
    stage.core.step(Stamp(stage.now), Input::Gone(process));
    assert_eq!(stage.write(), back, "it has ended");
    stage.own(set(veth(BRIDGE)));
    assert_eq!(stage.damped, 0, "nobody has undone it more often than damping allows");

    stage.now += 60_000_000_000;
    taken_twice(&mut stage);
    let since = Stamp(stage.now);
    stage.core.step(since, Input::Owner { alive: false, since: Stamp(since.0 - 61_000_000_000) });
    stage.tell(set(veth(0)), &networkd, Verdict::Foreign);
    assert!(stage.write().is_empty(), "nobody is there to withdraw it");
    stage.now += 3_600_000_000_000;
    stage.core.step(Stamp(stage.now), Input::Owner { alive: true, since: Stamp(stage.now) });
    assert_eq!(stage.write(), back, "it has long finished");
}

#[test]
fn without_an_owner_losses_are_held_until_one_is_there() {
    let settings = Settings { absent_after: Some(Duration::from_secs(60)), ..Settings::default() };
    let mut stage = Stage::new(settings, &node());
    let ip = someone(60, "/usr/sbin/ip");
    stage.core.step(Stamp(3), Input::Owner { alive: false, since: Stamp(3) });
    stage.tell(gone(rule()), &ip, Verdict::Foreign);
    assert_eq!(stage.write().len(), 1, "not yet long enough");
    stage.now += 61_000_000_000;
    stage.tell(gone(rule()), &ip, Verdict::Foreign);
    assert!(stage.write().is_empty());
    let last = stage.reports.last().expect("a report");
    assert_eq!(last.outcome, Outcome::Held);
    assert!(last.error.as_deref().is_some_and(|text| text.contains("no owner")), "{last:?}");
    assert_eq!(stage.core.counts(crate::model::record::ObjectKind::Rule, Some(rule().family)).held, 1);
    // Once it may be away for ever, they are not held either.
    stage.core.reconfigure(Stamp(stage.now), Settings { absent_after: None, ..settings }, guarded());
    assert_eq!(stage.write(), [Action::Add(rule().into())]);
    stage.core.reconfigure(Stamp(stage.now), settings, guarded());
    stage.tell(gone(rule()), &ip, Verdict::Foreign);
    assert!(stage.write().is_empty());
    stage.core.step(Stamp(stage.now), Input::Owner { alive: true, since: Stamp(stage.now) });
    assert_eq!(stage.write(), [Action::Add(rule().into())]);
}

#[test]
fn what_was_saved_and_is_missing_at_the_start_comes_back_after_the_settle_time() {
    let mut core = Core::new(Settings::default(), guarded());
    core.preset(vec![rule().into(), route("10.244.9.0/24", TUN).into()]);
    let objects = vec![link(TUN, "tun-a").into(), route("10.244.9.0/24", TUN).into()];
    core.step(Stamp(2), Input::Dump(Dump { started: Stamp(1), ended: Stamp(2), objects }));
    assert!(core.plan(Stamp(3), 10).is_empty());
    let later = core.deadline().expect("a timer");
    assert_eq!(core.plan(later, 10), [Action::Add(rule().into())]);
}

#[test]
fn a_nexthop_object_in_use_is_guarded_and_comes_before_its_route() {
    let nexthop = Nexthop { id: 9, family: 2, protocol: 0, flags: 0, oif: 1, attributes: vec![] };
    let mut by_nexthop = route("10.244.7.0/24", 1);
    by_nexthop.attributes = vec![Attribute { kind: rt::RTA_NH_ID, value: 9u32.to_ne_bytes().into() }];
    let mut objects = node();
    objects.extend([nexthop.clone().into(), by_nexthop.clone().into()]);
    let mut stage = Stage::new(Settings::default(), &objects);
    let ip = someone(60, "/usr/sbin/ip");
    stage.tell(gone(by_nexthop.clone()), &ip, Verdict::Foreign);
    stage.tell(gone(nexthop.clone()), &ip, Verdict::Foreign);
    assert_eq!(stage.write(), [Action::Add(nexthop.into()), Action::Add(by_nexthop.into())]);
    let route_report = stage.reports.iter().find(|report| report.object.route().is_some());
    assert_eq!(route_report.map(|report| report.cause), Some(Cause::NexthopRemoved));
}

#[test]
fn a_link_whose_name_another_has_taken_is_let_go() {
    let mut stage = Stage::new(Settings::default(), &node());
    let ip = someone(60, "/usr/sbin/ip");
    stage.tell(gone(link(TUN, "tun-a")), &ip, Verdict::Foreign);
    stage.tell(set(link(30, "tun-a")), &ip, Verdict::Foreign);
    let actions = stage.core.plan(Stamp(stage.now), 10);
    assert_eq!(actions, [Action::Add(link(TUN, "tun-a").into())]);
    stage.core.applied(vec![Applied::Exists], Stamp(stage.now), Stamp(stage.now));
    assert!(stage.core.missing().is_empty() && !stage.core.has_work());
    assert!(
        stage.core.desired().iter().any(|object| object.key() == Key::Link(30)),
        "the new one is guarded"
    );
}

#[test]
fn observing_reports_every_kind_and_writes_nothing() {
    let settings = Settings { mode: Mode::Observe, ..Settings::default() };
    let mut stage = Stage::new(settings, &node());
    let ip = someone(60, "/usr/sbin/ip");
    stage.tell(gone(rule()), &ip, Verdict::Foreign);
    stage.tell(gone(address("10.244.1.1", BRIDGE, 24)), &ip, Verdict::Foreign);
    stage.tell(set(Link { flags: 0, ..bridge() }), &ip, Verdict::Foreign);
    assert!(stage.write().is_empty());
    assert_eq!(stage.reports.len(), 3);
    assert!(stage.reports.iter().all(|report| report.outcome == Outcome::Observed));
}

/// Nobody puts it right meanwhile: each further change is one of its own.
#[test]
fn observing_reports_every_change_of_one_object() {
    let settings = Settings { mode: Mode::Observe, ..Settings::default() };
    let mut stage = Stage::new(settings, &node());
    let ip = someone(60, "/usr/sbin/ip");
    stage.tell(set(Link { mtu: 1400, ..bridge() }), &ip, Verdict::Foreign);
    stage.tell(set(Link { mtu: 1400, ..bridge() }), &ip, Verdict::Foreign);
    stage.tell(set(Link { mtu: 1300, ..bridge() }), &ip, Verdict::Foreign);
    stage.tell(gone(Link { mtu: 1300, ..bridge() }), &ip, Verdict::Foreign);
    let told: Vec<_> = stage
        .reports
        .iter()
        .filter(|report| report.object.key() == Key::Link(BRIDGE) && !report.again)
        .map(|report| {
            let mtu = match report.now.as_deref() {
                Some(Object::Link(link)) => Some(link.mtu),
                _ => None,
            };
            (report.change, mtu)
        })
        .collect();
    let changed = |mtu| (Change::Changed, Some(mtu));
    assert_eq!(told, [changed(1400), changed(1300), (Change::Deleted, None)]);
    // Of each the last word: only what is missing now is waited for.
    let last_words: std::collections::BTreeMap<u64, bool> =
        stage.reports.iter().map(|report| (report.seq, report.let_go)).collect();
    assert_eq!(last_words.into_values().collect::<Vec<_>>(), [true, true, false]);
}

/// The kernel lowers a bridge's MTU with a port that we put back; then its owner wants it so.
#[test]
fn what_the_kernel_made_of_a_link_is_no_surplus() {
    let mut stage = Stage::new(Settings::default(), &node());
    let owner = someone(7, "/usr/local/bin/kube-router");
    let low = |flags| Link { mtu: 1480, flags, ..bridge() };
    stage.own(set(low(1)));
    stage.write();
    stage.tell(set(low(1 | 0x40)), &owner, Verdict::Owner);
    for action in stage.write() {
        assert!(!matches!(action, Action::Remove(_)), "{action:?}");
    }
    assert!(stage.core.desired().iter().any(|object| object.key() == Key::Link(BRIDGE)));
}

/// In its last moment a route shows no lifetime: it is taken for one that is to stay, until its end says otherwise.
#[test]
fn a_route_that_runs_out_is_let_go() {
    let expiry = Arc::new(Actor::Kernel { what: "expiry".into() });
    let ip = someone(60, "/usr/sbin/ip");
    let seen = route("10.244.9.0/24", TUN);
    let mut stage = Stage::new(Settings::default(), &node());
    let guarded = stage.core.desired().len();
    stage.tell(set(seen.clone()), &ip, Verdict::Foreign);
    assert_eq!(stage.core.desired().len(), guarded + 1);
    stage.tell(gone(Route { expires: true, ..seen.clone() }), &expiry, Verdict::Kernel);
    assert!(stage.write().is_empty());
    assert_eq!(stage.core.desired().len(), guarded);
    assert!(stage.core.missing().is_empty());
    // What the kernel takes away without its having run out comes back.
    stage.tell(set(seen.clone()), &ip, Verdict::Foreign);
    stage.tell(gone(seen.clone()), &expiry, Verdict::Kernel);
    assert_eq!(stage.write(), [Action::Add(seen.into())]);
}

/// Somebody who gives a guarded route a lifetime takes it away, if later.
#[test]
fn a_guarded_route_that_somebody_lets_run_out_comes_back() {
    let expiry = Arc::new(Actor::Kernel { what: "expiry".into() });
    let guarded = route("10.244.1.0/24", BRIDGE);
    let back = [Action::Add(guarded.clone().into())];
    let temporary = Route { expires: true, ..guarded.clone() };
    // In silence, as by a request that the kernel refuses because the route is there.
    let mut stage = Stage::new(Settings::default(), &node());
    stage.now += 120_000_000_000;
    stage.tell(gone(temporary.clone()), &expiry, Verdict::Kernel);
    assert_eq!(stage.write(), back);
    // Or right after the start, announced.
    let mut stage = Stage::new(Settings::default(), &node());
    stage.tell(set(temporary.clone()), &someone(60, "/usr/sbin/ip"), Verdict::Foreign);
    stage.tell(gone(temporary.clone()), &expiry, Verdict::Kernel);
    assert_eq!(stage.write(), back);
    // What runs out in the place of one that is missing says nothing of that one.
    let mut stage = Stage::new(Settings::default(), &node());
    let other = Route { legs: route("10.244.1.0/24", TUN).legs, ..temporary };
    stage.tell(gone(guarded), &someone(60, "/usr/sbin/ip"), Verdict::Foreign);
    stage.tell(set(other.clone()), &someone(60, "/usr/sbin/ip"), Verdict::Foreign);
    stage.tell(gone(other), &expiry, Verdict::Kernel);
    assert_eq!(stage.write(), back);
}

/// systemd-networkd takes every foreign rule away once for each link that it configures. It is let finish with the rules; a
/// route that it takes a second time meanwhile comes back at once.
#[test]
fn who_insists_on_rules_is_not_waited_for_with_a_route() {
    let rules: Vec<Rule> = (0..3).map(|n| Rule { priority: 100 + n, ..rule() }).collect();
    let lost = route("10.244.9.0/24", TUN);
    let mut objects = node();
    objects.extend(rules.iter().cloned().map(Object::from));
    objects.push(lost.clone().into());
    let mut stage = Stage::new(Settings::default(), &objects);
    let networkd = someone(60, "/usr/lib/systemd/systemd-networkd");
    stage.tell(gone(lost.clone()), &networkd, Verdict::Foreign);
    assert_eq!(stage.write().len(), 1);
    let mut back = 1;
    while back > 0 {
        for rule in &rules {
            stage.tell(gone(rule.clone()), &networkd, Verdict::Foreign);
        }
        back = stage.write().len();
    }
    stage.tell(gone(lost.clone()), &networkd, Verdict::Foreign);
    assert_eq!(stage.write(), [Action::Add(lost.into())]);
    assert!(!stage.core.missing().is_empty(), "the rules wait");
}

/// An address that is taken twice takes its routes with it twice: that is not to insist on them.
#[test]
fn what_falls_with_an_address_is_not_insisted_on() {
    let routes: Vec<Route> = (0..9).map(|n| route(&format!("10.244.{}.0/24", 100 + n), BRIDGE)).collect();
    let mut objects = node();
    objects.extend(routes.iter().cloned().map(Object::from));
    let mut stage = Stage::new(Settings::default(), &objects);
    let networkd = someone(60, "/usr/lib/systemd/systemd-networkd");
    for _ in 0..2 {
        stage.tell(gone(address("10.244.1.1", BRIDGE, 24)), &networkd, Verdict::Foreign);
        for route in &routes {
            stage.tell(gone(route.clone()), &networkd, Verdict::Foreign);
        }
        let mut back = 0;
        while stage.core.has_work() {
            back += stage.write().len();
        }
        assert_eq!(back, 1 + routes.len());
    }
    assert!(stage.reports.iter().any(|report| report.cause == Cause::AddressRemoved), "{:?}", stage.reports);
}
