//! Links, addresses, rules and nexthop objects, told one by one.

use std::{sync::Arc, time::Duration};

use super::{
    Core, Dump, Effect, Input, Settings,
    plan::{Action, Applied},
    simulation::{scope, someone},
    testing::{address, gone, link, route, set},
};
use crate::model::{
    Actor, Address, Attribute, Key, Link, Mode, Nexthop, Notice, Object, Port, Rule, Stamp,
    address::ifa,
    nexthop::nha,
    record::{Cause, Change, Outcome, Verdict},
    route::rt,
};

const TUN: u32 = 2;
const BRIDGE: u32 = 5;
const VETH: u32 = 6;

fn guarded() -> super::Scope {
    let mut scope = scope();
    scope.links.push(glob::Pattern::new("kube-*").unwrap());
    scope.tables.insert(77);
    scope
}

/// A core and the time.
struct Stage {
    core: Core,
    now: u64,
    reports: Vec<super::Report>,
}

impl Stage {
    fn new(settings: Settings, objects: &[Object]) -> Self {
        let mut core = Core::new(settings, guarded());
        core.step(
            Stamp(2),
            Input::Dump(Dump { started: Stamp(1), ended: Stamp(2), objects: objects.to_vec() }),
        );
        let _ = core.effects().count();
        Self { core, now: 1000, reports: vec![] }
    }

    fn tell(&mut self, notice: Notice, who: &Arc<Actor>, verdict: Verdict) {
        self.now += 1000;
        let (at, actor) = (Stamp(self.now), Arc::clone(who));
        self.core.step(at, Input::Notice { at, notice, port: 0, actor, verdict });
        self.collect();
    }

    fn own(&mut self, notice: Notice) {
        self.now += 1000;
        self.core.step(Stamp(self.now), Input::Own { at: Stamp(self.now), notice });
        self.collect();
    }

    fn collect(&mut self) {
        let reports = self.core.effects().filter_map(|effect| match effect {
            Effect::Report(report) => Some(*report),
            _ => None,
        });
        self.reports.extend(reports);
    }

    /// One round of writes, all of which the kernel accepts.
    fn write(&mut self) -> Vec<Action> {
        let actions = self.core.plan(Stamp(self.now), 100);
        self.now += 1000;
        let sent = Stamp(self.now);
        self.now += 1000;
        self.core.applied(vec![Applied::Verified; actions.len()], sent, Stamp(self.now));
        self.collect();
        actions
    }
}

fn bridge() -> Link {
    Link { kind: Some("bridge".into()), mtu: 1500, ..link(BRIDGE, "kube-bridge") }
}

fn veth(master: u32) -> Link {
    let port = (master != 0).then(|| Port { link: VETH, master, kind: None, options: vec![] });
    Link { kind: Some("veth".into()), port, ..link(VETH, "veth12ab") }
}

fn rule() -> Rule {
    Rule {
        family: crate::model::Family::Inet,
        priority: 32765,
        table: 77,
        action: 1,
        flags: 0,
        tos: 0,
        dst: None,
        src: Some("10.244.1.0/24".parse().unwrap()),
        attributes: vec![],
    }
}

fn node() -> Vec<Object> {
    vec![
        link(1, "eth0").into(),
        link(TUN, "tun-a").into(),
        bridge().into(),
        veth(BRIDGE).into(),
        address("10.244.1.1", BRIDGE, 24).into(),
        rule().into(),
        route("10.244.1.0/24", BRIDGE).into(),
    ]
}

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
    let (started, ended) = (Stamp(stage.now + 1), Stamp(stage.now + 2));
    stage.core.step(ended, Input::Dump(Dump { started, ended, objects }));
    stage.collect();
    assert!(stage.write().is_empty());
    assert!(stage.reports.iter().all(|report| report.outcome == Outcome::Restored), "{:?}", stage.reports);
    assert!(stage.core.missing().is_empty());
    let causes: Vec<Cause> = stage.reports.iter().map(|report| report.cause).collect();
    assert_eq!(causes, [Cause::Request, Cause::LinkRemoved, Cause::LinkRemoved], "bridge, port, address");
}

#[test]
fn what_the_kernel_makes_with_an_address_is_not_written_again() {
    let mut stage = Stage::new(Settings::default(), &node());
    let ip = someone(60, "/usr/sbin/ip");
    stage.tell(gone(route("10.244.1.0/24", BRIDGE)), &ip, Verdict::Foreign);
    stage.tell(gone(address("10.244.1.1", BRIDGE, 24)), &ip, Verdict::Foreign);
    assert_eq!(stage.write(), [Action::Add(address("10.244.1.1", BRIDGE, 24).into())]);
    stage.own(set(route("10.244.1.0/24", BRIDGE)));
    assert!(stage.write().is_empty(), "the kernel has made it");
    assert_eq!(stage.reports.last().map(|report| report.outcome), Some(Outcome::Restored));
    assert!(stage.core.missing().is_empty());
}

/// The kernel makes its own local route with an address; what its owner wants there is another one. When that comes back
/// by other hands, the kernel's does not stay beside it.
#[test]
fn what_the_kernel_makes_besides_goes_even_if_somebody_else_restores() {
    let vip = address("10.96.0.1", TUN, 32);
    let local = |source: [u8; 4]| {
        let mut local = route("10.96.0.1/32", TUN);
        local.key.table = rt::TABLE_LOCAL;
        (local.kind, local.protocol, local.scope) = (rt::RTN_LOCAL, rt::PROT_KERNEL, rt::SCOPE_HOST);
        local.attributes = vec![Attribute { kind: rt::RTA_PREFSRC, value: source.into() }];
        local
    };
    let (ours, kernels) = (local([10, 0, 0, 10]), local([10, 96, 0, 1]));
    let mut objects = node();
    objects.extend([vip.clone().into(), ours.clone().into()]);
    let mut stage = Stage::new(Settings::default(), &objects);
    let ip = someone(60, "/usr/sbin/ip");
    stage.tell(gone(ours.clone()), &ip, Verdict::Foreign);
    stage.tell(gone(vip.clone()), &ip, Verdict::Foreign);
    assert_eq!(stage.write(), [Action::Add(vip.into())]);
    stage.own(set(kernels.clone()));
    let (started, ended) = (Stamp(stage.now + 1), Stamp(stage.now + 2));
    objects.push(kernels.clone().into());
    stage.core.step(ended, Input::Dump(Dump { started, ended, objects }));
    assert_eq!(stage.write(), [Action::Remove(kernels.into())]);
}

/// An address whose label was changed is taken away to be added again: the route that the kernel drops with it is put
/// down to who changed the label.
#[test]
fn what_falls_with_an_address_that_we_take_away_is_put_down_to_who_made_that_necessary() {
    let labelled = |label: &str| {
        let label = Attribute { kind: ifa::LABEL, value: label.as_bytes().into() };
        Address { attributes: vec![label], ..address("10.96.0.10", TUN, 32) }
    };
    let local = route("10.96.0.10/32", TUN);
    let mut objects = node();
    objects.extend([labelled("tun-a").into(), local.clone().into()]);
    let mut stage = Stage::new(Settings::default(), &objects);
    let ip = someone(60, "/usr/sbin/ip");
    stage.tell(set(labelled("other:2")), &ip, Verdict::Foreign);
    assert_eq!(stage.write(), [Action::Remove(labelled("other:2").into())]);
    stage.own(gone(local.clone()));
    assert_eq!(stage.write(), [Action::Add(labelled("tun-a").into())]);
    stage.own(set(local));
    let told = stage.reports.iter().find(|report| report.object.route().is_some()).expect("the route");
    assert_eq!((told.verdict, told.cause), (Verdict::Foreign, Cause::AddressRemoved), "{told:?}");
    assert!(Arc::ptr_eq(&told.actor, &ip) && told.outcome == Outcome::Restored, "{told:?}");
    assert!(stage.write().is_empty() && stage.core.missing().is_empty());
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
    let (started, ended) = (Stamp(stage.now + 1), Stamp(stage.now + 2));
    stage.core.step(ended, Input::Dump(Dump { started, ended, objects: node() }));
    for _ in 0..5 {
        stage.write();
    }
    let told = stage.reports.iter().find(|report| report.object.route().is_some()).expect("the route");
    assert_eq!((told.cause, told.verdict), (Cause::NexthopRemoved, Verdict::Foreign), "{told:?}");
}

#[test]
fn the_owners_link_takes_everything_with_it() {
    let mut stage = Stage::new(Settings::default(), &node());
    let owner = someone(7, "/usr/local/bin/kube-router");
    stage.tell(gone(address("10.244.1.1", BRIDGE, 24)), &owner, Verdict::Owner);
    stage.tell(gone(bridge()), &owner, Verdict::Owner);
    stage.tell(gone(rule()), &owner, Verdict::Owner);
    let objects = vec![link(1, "eth0").into(), link(TUN, "tun-a").into(), veth(0).into()];
    let (started, ended) = (Stamp(stage.now + 1), Stamp(stage.now + 2));
    stage.core.step(ended, Input::Dump(Dump { started, ended, objects }));
    stage.collect();
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

#[test]
fn the_first_address_of_a_network_becomes_the_first_again() {
    let first = address("10.244.1.1", BRIDGE, 24);
    let second = Address { flags: ifa::F_SECONDARY, ..address("10.244.1.2", BRIDGE, 24) };
    let promoted = Address { flags: 0, ..second.clone() };
    let mut objects = node();
    objects.push(second.clone().into());
    let mut stage = Stage::new(Settings::default(), &objects);
    let ip = someone(60, "/usr/sbin/ip");
    stage.tell(gone(first.clone()), &ip, Verdict::Foreign);
    stage.tell(set(promoted.clone()), &ip, Verdict::Foreign);
    assert_eq!(stage.write(), [Action::Remove(promoted.into())]);
    assert_eq!(stage.write(), [Action::Add(first.into()), Action::Add(second.into())]);
    assert!(stage.core.missing().is_empty());
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

/// A link goes down with its route, and somebody puts another in its place before a dump has told: that the route went
/// is not forgotten with a dump that began too early.
#[test]
fn a_route_set_in_place_of_one_that_went_silently_is_undone() {
    let ours = route("10.244.3.0/24", TUN);
    let mut objects = node();
    objects.push(ours.clone().into());
    let mut stage = Stage::new(Settings::default(), &objects);
    let ip = someone(60, "/usr/sbin/ip");
    stage.tell(set(Link { flags: 0, ..link(TUN, "tun-a") }), &ip, Verdict::Foreign);
    let started = Stamp(stage.now + 1);
    stage.write();
    let theirs = route("10.244.3.0/24", 1);
    stage.tell(set(theirs.clone()), &ip, Verdict::Foreign);
    let mut held = node();
    held.push(theirs.into());
    let dump = |started, ended, objects: &[Object]| Dump { started, ended, objects: objects.to_vec() };
    stage.core.step(Stamp(stage.now), Input::Dump(dump(started, Stamp(stage.now), &held)));
    assert!(stage.core.effects().any(|effect| matches!(effect, Effect::Reread(_))), "one more is asked for");
    let (started, ended) = (Stamp(stage.now + 1), Stamp(stage.now + 2));
    stage.core.step(ended, Input::Dump(dump(started, ended, &held)));
    assert_eq!(stage.write(), [Action::Replace(ours.into())]);
}

/// Links have a multicast route each, of one key: what stands on a link that is not guarded has replaced nothing, and is
/// not replaced either, as the kernel takes the first of the key for that.
#[test]
fn the_multicast_route_of_a_link_comes_back_beside_those_of_others() {
    let multicast = |oif| {
        let mut route = route("ff00::/8", oif);
        (route.key.table, route.key.metric) = (rt::TABLE_LOCAL, 256);
        (route.kind, route.protocol) = (rt::RTN_MULTICAST, rt::PROT_KERNEL);
        route
    };
    let mut objects = node();
    objects.extend([multicast(1).into(), multicast(TUN).into()]);
    let mut stage = Stage::new(Settings::default(), &objects);
    let ip = someone(60, "/usr/sbin/ip");
    let down = || Link { flags: 0, ..link(TUN, "tun-a") };
    stage.tell(set(down()), &ip, Verdict::Foreign);
    let mut held = node();
    held.retain(|object| object.key() != Key::Link(TUN));
    held.extend([down().into(), multicast(1).into()]);
    let (started, ended) = (Stamp(stage.now + 1), Stamp(stage.now + 2));
    stage.core.step(ended, Input::Dump(Dump { started, ended, objects: held }));
    assert_eq!(stage.write(), [Action::Replace(link(TUN, "tun-a").into())]);
    assert_eq!(stage.write(), [Action::Append(multicast(TUN).into())]);
    let told = stage.reports.iter().find(|report| report.object.route().is_some()).expect("the route");
    assert_eq!((told.change, told.cause), (Change::Deleted, Cause::LinkDown), "{told:?}");
}
