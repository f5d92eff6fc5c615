//! The node's own address while systemd-networkd is at it.

use std::{sync::Arc, time::Duration};

use super::{
    Dump, Effect, Input, Reason, Settings,
    plan::{Action, Applied},
    simulation::someone,
    stage::{Stage, TUN, node},
    testing::{address, gone, link, replaced, route, set},
};
use crate::model::{
    Actor, Address, Attribute, Link, Mode, Object, Port, Prefix, Route, Stamp,
    address::{ifa, lifetimes},
    record::{Outcome, Verdict},
    route::rt,
};

const CARD: u32 = 1;

/// The node's address, for as long as a DHCP server says.
fn own() -> Address {
    let broadcast = Attribute { kind: ifa::BROADCAST, value: [192, 0, 2, 255].into() };
    Address { expires: true, attributes: vec![broadcast], ..address("192.0.2.10", CARD, 24) }
}

fn lent() -> Address {
    let times = Attribute { kind: ifa::CACHEINFO, value: lifetimes(30, 30).into() };
    Address { expires: true, attributes: vec![times], ..address("192.0.2.10", CARD, 32) }
}

/// As the kernel tells it: with a label, and without a lifetime that runs.
fn as_told(address: &Address) -> Address {
    let label = Attribute { kind: ifa::LABEL, value: (*b"eth0\0").into() };
    Address { attributes: vec![label], ..address.clone() }
}

fn sourced(mut route: Route) -> Route {
    route.attributes = vec![Attribute { kind: rt::RTA_PREFSRC, value: [192, 0, 2, 10].into() }];
    route
}

/// The route to other nodes' pods, as kube-router makes it.
fn by_tunnel() -> Route {
    sourced(route("10.244.2.0/24", TUN))
}

/// What the kernel makes with the address.
fn connected() -> Route {
    let network = sourced(route("192.0.2.0/24", CARD));
    Route { protocol: rt::PROT_KERNEL, scope: rt::SCOPE_LINK, ..network }
}

fn networkd() -> Arc<Actor> {
    someone(300, "/usr/lib/systemd/systemd-networkd")
}

fn stage_with(settings: Settings) -> Stage {
    let mut objects = node();
    objects.push(by_tunnel().into());
    Stage::new(settings, &objects)
}

/// networkd has taken the address, with it the route that has it as its source, and has been lent it.
fn on_loan() -> Stage {
    let mut stage = stage_with(Settings::default());
    let networkd = networkd();
    stage.tell(gone(own()), &networkd, Verdict::Foreign);
    stage.tell(gone(by_tunnel()), &networkd, Verdict::Foreign);
    assert_eq!(stage.write(), [Action::Add(lent().into())]);
    assert_eq!(stage.write(), [Action::Add(by_tunnel().into()), Action::Add(connected().into())]);
    assert!(stage.write().is_empty() && stage.core.missing().is_empty());
    stage
}

#[test]
fn networkd_is_lent_the_address_that_a_tunnel_needs_with_the_way_to_its_network() {
    let stage = on_loan();
    let told = &stage.reports[0];
    assert_eq!((&*told.object, told.outcome), (&Object::from(own()), Outcome::Restored));
    let terms = told.error.as_deref().unwrap_or_default();
    assert!(terms.starts_with("lent for 30s"), "{terms}");
    assert_eq!(stage.reports.len(), 2, "{:?}", stage.reports);
    let is_own = |object: &Object| [Object::from(lent()), connected().into()].iter().any(|o| o.same(object));
    assert!(!stage.core.desired().iter().any(|object| is_own(object)), "not to be saved, nor compared");
}

#[test]
fn the_loan_is_over_when_networkd_has_set_the_address() {
    let mut stage = on_loan();
    stage.tell(set(own()), &networkd(), Verdict::Foreign);
    assert_eq!(stage.write(), [Action::Remove(lent().into())]);
    assert!(stage.write().is_empty() && stage.core.missing().is_empty());
    // And the next one begins anew.
    stage.tell(gone(own()), &networkd(), Verdict::Foreign);
    assert_eq!(stage.write(), [Action::Add(lent().into())]);
}

/// Another network, or another metric: the kernel makes another route of it.
#[test]
fn the_way_to_a_network_that_the_card_is_in_no_longer_is_taken_back() {
    let mut stage = on_loan();
    stage.tell(set(address("192.0.2.10", CARD, 25)), &networkd(), Verdict::Foreign);
    assert_eq!(stage.write(), [Action::Remove(connected().into())]);
    assert_eq!(stage.write(), [Action::Remove(lent().into())]);
    assert!(stage.write().is_empty());
}

#[test]
fn an_address_that_is_there_again_before_it_was_lent_is_not() {
    let mut stage = stage_with(Settings::default());
    stage.tell(gone(own()), &networkd(), Verdict::Foreign);
    stage.tell(set(own()), &networkd(), Verdict::Foreign);
    assert!(stage.write().is_empty() && stage.core.missing().is_empty());
    let told = stage.reports.last().expect("a report");
    assert_eq!((told.outcome, told.error.as_deref()), (Outcome::AlreadyPresent, None), "{told:?}");
}

/// As it may be that it is not to have it any more.
#[test]
fn what_has_run_out_is_not_lent_again() {
    let mut stage = on_loan();
    stage.now += Duration::from_secs(31).as_nanos() as u64;
    assert!(stage.write().is_empty());
    let kernel = Arc::new(Actor::Kernel { what: "kworker/0:1".into() });
    stage.tell(gone(lent()), &kernel, Verdict::Kernel);
    assert!(stage.write().is_empty() && stage.core.missing().is_empty());
    let told = stage.reports.last().and_then(|report| report.error.clone()).unwrap_or_default();
    assert!(told.starts_with("the loan is over"), "{told}");
    // What fell with it waits for somebody to set the address.
    stage.tell(gone(by_tunnel()), &kernel, Verdict::Kernel);
    assert_eq!(stage.write(), [Action::Add(by_tunnel().into())]);
}

/// Each time for what is left of its time, and not for ever.
#[test]
fn networkd_that_takes_what_it_was_lent_is_lent_it_again_within_its_budget() {
    let mut stage = on_loan();
    let mut objects = node();
    objects.extend([by_tunnel().into(), connected().into(), as_told(&lent()).into()]);
    stage.dump(objects);
    for _ in 0..Settings::default().damping.burst {
        stage.tell(gone(as_told(&lent())), &networkd(), Verdict::Foreign);
        assert_eq!(stage.write(), [Action::Add(lent().into())]);
        assert_eq!(stage.write(), [Action::Add(connected().into())]);
    }
    stage.tell(gone(as_told(&lent())), &networkd(), Verdict::Foreign);
    assert!(stage.write().is_empty() && stage.core.missing().is_empty());
    let told = stage.reports.last().expect("a report");
    assert_eq!((told.outcome, told.let_go), (Outcome::Observed, true), "{told:?}");
}

#[test]
fn what_is_lent_again_runs_out_when_it_would_have() {
    let mut stage = on_loan();
    stage.now += Duration::from_millis(19_100).as_nanos() as u64;
    stage.tell(gone(lent()), &networkd(), Verdict::Foreign);
    let left = Attribute { kind: ifa::CACHEINFO, value: lifetimes(11, 11).into() };
    assert_eq!(stage.write(), [Action::Add(Address { attributes: vec![left], ..lent() }.into())]);
}

#[test]
fn somebody_else_takes_it_for_good() {
    let ip = someone(60, "/usr/sbin/ip");
    let mut stage = stage_with(Settings::default());
    stage.tell(gone(own()), &ip, Verdict::Foreign);
    assert!(stage.write().is_empty() && stage.reports.is_empty(), "an administrator's word");
    let mut stage = on_loan();
    stage.tell(gone(lent()), &ip, Verdict::Foreign);
    assert!(stage.write().is_empty() && stage.core.missing().is_empty());
}

#[test]
fn nothing_is_lent_that_nothing_depends_on() {
    let mut stage = Stage::new(Settings::default(), &node());
    stage.tell(gone(own()), &networkd(), Verdict::Foreign);
    assert!(stage.write().is_empty() && stage.reports.is_empty());
}

#[test]
fn nothing_is_lent_where_that_is_not_wanted() {
    let never = Settings { lend: None, ..Settings::default() };
    let observe = Settings { mode: Mode::Observe, ..Settings::default() };
    for settings in [never, observe] {
        let mut stage = stage_with(settings);
        stage.tell(gone(own()), &networkd(), Verdict::Foreign);
        assert!(stage.write().is_empty() && stage.reports.is_empty(), "{settings:?}");
    }
    let mut stage = stage_with(Settings::default());
    let mut scope = stage.core.scope().clone();
    scope.exclude_prefixes.push("192.0.2.0/24".parse::<Prefix>().unwrap());
    stage.core.reconfigure(Stamp(stage.now), Settings::default(), scope);
    stage.tell(gone(own()), &networkd(), Verdict::Foreign);
    assert!(stage.write().is_empty(), "excluded");
}

#[test]
fn what_the_kernel_refuses_to_lend_is_written_off() {
    let mut stage = stage_with(Settings::default());
    stage.tell(gone(own()), &networkd(), Verdict::Foreign);
    assert_eq!(stage.core.plan(Stamp(stage.now), 10), [Action::Add(lent().into())]);
    let refused = Applied::Refused { errno: 1, message: None };
    stage.core.applied(vec![refused], Stamp(stage.now + 1), Stamp(stage.now + 2));
    stage.collect();
    assert!(stage.core.missing().is_empty());
    let told = stage.reports.last().expect("a report");
    assert_eq!(told.outcome, Outcome::Failed, "{told:?}");
}

/// It is nobody's to miss.
#[test]
fn what_a_dump_does_not_find_is_neither_missing_nor_written_again() {
    let mut stage = on_loan();
    let mut objects = node();
    objects.push(by_tunnel().into());
    stage.dump(objects);
    assert!(stage.write().is_empty() && stage.core.missing().is_empty());
    stage.now += Duration::from_secs(60).as_nanos() as u64;
    assert!(stage.write().is_empty(), "nor later");
}

/// Where the card has the address without its network, it is lent as it was.
#[test]
fn a_host_address_is_lent_in_its_own_place() {
    let mut stage = stage_with(Settings::default());
    let host = Address { expires: true, ..address("192.0.2.10", CARD, 32) };
    stage.tell(gone(host.clone()), &networkd(), Verdict::Foreign);
    assert_eq!(stage.write(), [Action::Add(lent().into())]);
    stage.tell(set(host), &networkd(), Verdict::Foreign);
    assert!(stage.write().is_empty() && stage.core.missing().is_empty());
}

/// It has what was there before the address went, and the route to its network among that.
#[test]
fn a_dump_that_began_before_tells_nothing_of_what_is_lent() {
    let mut stage = stage_with(Settings::default());
    let started = Stamp(stage.now + 10);
    stage.tell(gone(own()), &networkd(), Verdict::Foreign);
    let mut objects = node();
    objects.extend([by_tunnel().into(), connected().into(), own().into()]);
    let ended = Stamp(stage.now + 1);
    stage.core.step(ended, Input::Dump(Dump { started, ended, objects }));
    stage.collect();
    assert_eq!(stage.write(), [Action::Add(lent().into())]);
    assert_eq!(stage.write(), [Action::Add(connected().into())]);
}

/// The message that networkd has set its own was lost.
#[test]
fn a_dump_that_finds_the_address_ends_the_loan() {
    let mut stage = on_loan();
    let mut objects = node();
    objects.extend([by_tunnel().into(), connected().into(), as_told(&lent()).into(), own().into()]);
    stage.dump(objects);
    assert_eq!(stage.write(), [Action::Remove(lent().into())]);
}

#[test]
fn another_prefix_of_the_same_address_is_no_second_loan() {
    let mut stage = on_loan();
    stage.tell(gone(address("192.0.2.10", CARD, 25)), &networkd(), Verdict::Foreign);
    assert!(stage.write().is_empty());
    stage.tell(set(own()), &networkd(), Verdict::Foreign);
    assert_eq!(stage.write(), [Action::Remove(lent().into())]);
    assert!(stage.write().is_empty());
}

/// The address is elsewhere, or the card has another: what is lent would be in the way.
#[test]
fn the_loan_is_over_when_networkd_has_moved() {
    let moved = [address("192.0.2.10", 9, 24), address("192.0.2.55", CARD, 24)];
    for address in moved {
        let mut stage = on_loan();
        stage.tell(set(address.clone()), &networkd(), Verdict::Foreign);
        assert_eq!(stage.write(), [Action::Remove(connected().into())], "{address:?}");
        assert_eq!(stage.write(), [Action::Remove(lent().into())], "{address:?}");
        assert!(stage.write().is_empty());
    }
    let mut stage = on_loan();
    let port = Port { link: CARD, master: 9, kind: Some("bridge".into()), options: vec![] };
    stage.tell(set(Link { port: Some(port), ..link(CARD, "eth0") }), &networkd(), Verdict::Foreign);
    assert_eq!(stage.write(), [Action::Remove(connected().into())], "a port has no address");
    assert_eq!(stage.write(), [Action::Remove(lent().into())]);
}

/// It has set the new address first: the old one is given up.
#[test]
fn an_address_that_networkd_has_replaced_is_not_lent() {
    let new = [address("192.0.2.10", CARD, 25), address("192.0.2.55", CARD, 24)];
    for address in new {
        let mut stage = stage_with(Settings::default());
        stage.tell(set(address.clone()), &networkd(), Verdict::Foreign);
        stage.tell(gone(own()), &networkd(), Verdict::Foreign);
        assert!(stage.write().is_empty(), "{address:?}");
    }
    // One that stood there before it came says nothing.
    let mut stage = stage_with(Settings::default());
    let before = someone(299, "/usr/lib/systemd/systemd-networkd");
    stage.tell(set(address("192.0.2.11", CARD, 24)), &before, Verdict::Foreign);
    stage.tell(gone(own()), &networkd(), Verdict::Foreign);
    assert_eq!(stage.write(), [Action::Add(lent().into())]);
}

/// With a new name the kernel announces a link's addresses again.
#[test]
fn a_card_that_is_renamed_keeps_what_it_was_lent() {
    let mut stage = on_loan();
    stage.tell(set(as_told(&lent())), &someone(61, "/usr/bin/udevadm"), Verdict::Foreign);
    assert!(stage.write().is_empty());
    stage.tell(set(own()), &networkd(), Verdict::Foreign);
    assert_eq!(stage.write(), [Action::Remove(lent().into())]);
}

/// The kernel makes the route to a network anew for an address that has one.
#[test]
fn a_card_that_was_down_gets_the_way_to_its_network_again() {
    let mut stage = on_loan();
    for flags in [0, 1] {
        stage.tell(set(Link { flags, ..link(CARD, "eth0") }), &networkd(), Verdict::Foreign);
    }
    assert_eq!(stage.write(), [Action::Add(connected().into())]);
}

#[test]
fn what_others_make_of_the_way_to_the_network_is_theirs() {
    let mut stage = on_loan();
    let other = Route { protocol: 4, ..connected() };
    stage.tell(replaced(other), &networkd(), Verdict::Foreign);
    assert!(stage.write().is_empty() && stage.reports.len() == 2, "{:?}", stage.reports);
}

#[test]
fn a_changed_configuration_ends_every_loan() {
    let mut stage = on_loan();
    let mut scope = stage.core.scope().clone();
    stage.core.reconfigure(Stamp(stage.now), Settings::default(), scope.clone());
    assert!(stage.write().is_empty(), "nothing is other than it was");
    scope.tables.insert(99);
    stage.core.reconfigure(Stamp(stage.now), Settings::default(), scope.clone());
    assert_eq!(stage.write(), [Action::Remove(connected().into())]);
    assert_eq!(stage.write(), [Action::Remove(lent().into())]);
    assert!(!stage.core.has_work());
    // One that was not written yet is told as it is.
    let mut stage = stage_with(Settings::default());
    stage.tell(gone(own()), &networkd(), Verdict::Foreign);
    stage.core.reconfigure(Stamp(stage.now), Settings::default(), scope.clone());
    stage.collect();
    assert!(stage.write().is_empty() && stage.reports.len() == 1, "{:?}", stage.reports);
    // An observer does not even take back.
    let mut stage = on_loan();
    let observe = Settings { mode: Mode::Observe, ..Settings::default() };
    stage.core.reconfigure(Stamp(stage.now), observe, scope);
    stage.tell(gone(lent()), &networkd(), Verdict::Foreign);
    assert!(stage.write().is_empty() && !stage.core.has_work() && stage.core.missing().is_empty());
}

/// Nobody withdraws what needs it.
#[test]
fn nothing_is_lent_without_an_owner() {
    let mut stage =
        stage_with(Settings { absent_after: Some(Duration::from_secs(1)), ..Settings::default() });
    stage.core.step(Stamp(stage.now), Input::Owner { alive: false, since: Stamp(1) });
    stage.now += Duration::from_secs(2).as_nanos() as u64;
    stage.tell(gone(own()), &networkd(), Verdict::Foreign);
    assert!(stage.write().is_empty());
    stage.core.step(Stamp(stage.now), Input::Owner { alive: true, since: Stamp(stage.now) });
    assert!(stage.write().is_empty(), "nor later");
}

/// A guardian that was restarted in the middle finds what it has lent before.
#[test]
fn what_is_there_already_is_not_taken_back() {
    let mut stage = stage_with(Settings::default());
    stage.tell(gone(own()), &networkd(), Verdict::Foreign);
    assert_eq!(stage.core.plan(Stamp(stage.now), 10), [Action::Add(lent().into())]);
    stage.core.applied(vec![Applied::Exists], Stamp(stage.now + 1), Stamp(stage.now + 2));
    assert_eq!(stage.write(), [Action::Add(connected().into())]);
    stage.tell(set(own()), &networkd(), Verdict::Foreign);
    assert!(stage.write().is_empty() && !stage.core.has_work());
}

/// Such as an address that another node may have taken over meanwhile.
#[test]
fn what_networkd_will_not_set_again_is_not_lent() {
    let keepalived = someone(70, "/usr/sbin/keepalived");
    let mut stage = stage_with(Settings::default());
    stage.tell(set(own()), &keepalived, Verdict::Foreign);
    stage.tell(gone(own()), &networkd(), Verdict::Foreign);
    assert!(stage.write().is_empty(), "somebody else has set it");
    // Routes leave by the card; they fall with its last address.
    let mut objects = node();
    objects.extend([own().into(), route("10.244.3.0/24", CARD).into()]);
    for flags in [0, ifa::F_SECONDARY] {
        let mut stage = Stage::new(Settings::default(), &objects);
        let floating = Address { flags, ..address("192.0.2.100", CARD, 24) };
        stage.tell(gone(floating), &networkd(), Verdict::Foreign);
        assert!(stage.write().is_empty(), "nothing depends on it");
    }
    let mut stage = Stage::new(Settings::default(), &objects);
    stage.tell(gone(own()), &networkd(), Verdict::Foreign);
    assert_eq!(stage.write(), [Action::Add(lent().into())], "the last one");
}

/// It has set both long ago: neither is in the other's place.
#[test]
fn one_of_two_addresses_is_lent_when_a_card_is_configured_anew() {
    let mut stage = stage_with(Settings::default());
    for address in [own(), address("198.51.100.7", CARD, 24)] {
        stage.tell(set(address), &networkd(), Verdict::Foreign);
    }
    stage.now += Duration::from_secs(3600).as_nanos() as u64;
    stage.tell(gone(own()), &networkd(), Verdict::Foreign);
    assert_eq!(stage.write(), [Action::Add(lent().into())]);
    stage.tell(set(address("169.254.7.7", CARD, 16)), &networkd(), Verdict::Foreign);
    assert_eq!(stage.write(), [Action::Add(connected().into())], "a card may have more than one");
}

#[test]
fn what_somebody_has_made_permanent_is_theirs() {
    let mut stage = on_loan();
    stage.tell(set(address("192.0.2.10", CARD, 32)), &someone(60, "/usr/sbin/ip"), Verdict::Foreign);
    stage.tell(set(own()), &networkd(), Verdict::Foreign);
    assert!(stage.write().is_empty() && !stage.core.has_work());
}

/// The address is taken back by others before it is by us; the route would stay, as it stands otherwise.
#[test]
fn the_way_to_the_network_does_not_outlive_the_loan() {
    let mut stage = on_loan();
    stage.tell(set(address("192.0.2.10", CARD, 25)), &networkd(), Verdict::Foreign);
    stage.tell(gone(as_told(&lent())), &networkd(), Verdict::Foreign);
    assert_eq!(stage.write(), [Action::Remove(connected().into())]);
    assert!(!stage.core.has_work());
}

/// What fell with the link is not ours any more, and what is there then is the kernel's, with a metric of networkd's.
#[test]
fn a_way_that_fell_with_the_link_is_not_taken_back() {
    let mut stage = on_loan();
    for flags in [0, 1] {
        stage.tell(set(Link { flags, ..link(CARD, "eth0") }), &networkd(), Verdict::Foreign);
    }
    let metric = Attribute { kind: ifa::RT_PRIORITY, value: Box::from(1024_u32.to_ne_bytes()) };
    stage.tell(set(Address { attributes: vec![metric], ..own() }), &networkd(), Verdict::Foreign);
    assert_eq!(stage.write(), [Action::Remove(lent().into())]);
}

/// It was there when the dump was read.
#[test]
fn what_was_taken_back_while_a_dump_was_read_does_not_stand() {
    let mut stage = on_loan();
    let started = Stamp(stage.now + 1);
    let mut objects = node();
    objects.extend([by_tunnel().into(), connected().into(), as_told(&lent()).into()]);
    stage.tell(set(own()), &networkd(), Verdict::Foreign);
    assert_eq!(stage.write(), [Action::Remove(lent().into())]);
    let ended = Stamp(stage.now + 1);
    stage.core.step(ended, Input::Dump(Dump { started, ended, objects }));
    stage.now += 1000;
    stage.collect();
    stage.tell(gone(own()), &networkd(), Verdict::Foreign);
    assert_eq!(stage.write(), [Action::Add(lent().into())]);
}

#[test]
fn what_is_taken_again_before_it_was_taken_back_stays() {
    let mut stage = on_loan();
    stage.tell(set(own()), &networkd(), Verdict::Foreign);
    stage.tell(gone(own()), &networkd(), Verdict::Foreign);
    assert_eq!(stage.write(), [Action::Add(connected().into())]);
    let told = stage.reports.last().expect("a report");
    assert_eq!(told.outcome, Outcome::AlreadyPresent, "{told:?}");
    stage.tell(set(own()), &networkd(), Verdict::Foreign);
    assert_eq!(stage.write(), [Action::Remove(lent().into())]);
}

#[test]
fn what_networkd_takes_when_its_time_is_over_is_gone() {
    let mut stage = on_loan();
    stage.now += Duration::from_secs(31).as_nanos() as u64;
    stage.tell(gone(lent()), &networkd(), Verdict::Foreign);
    assert!(stage.write().is_empty());
}

/// The routes with that source may have fallen, where the address does not stand otherwise.
#[test]
fn what_is_taken_back_may_have_taken_routes_along() {
    let mut stage = on_loan();
    stage.tell(set(address("192.0.2.55", CARD, 24)), &networkd(), Verdict::Foreign);
    let _ = (stage.write(), stage.core.effects().count());
    stage.now += 1000;
    let actions = stage.core.plan(Stamp(stage.now), 10);
    assert_eq!(actions, [Action::Remove(lent().into())]);
    stage.core.applied(vec![Applied::Verified], Stamp(stage.now + 1), Stamp(stage.now + 2));
    assert!(stage.core.effects().any(|effect| effect == Effect::Reread(Reason::Silent)));
}

/// The message that it had run out was lost.
#[test]
fn what_ran_out_long_ago_is_forgotten() {
    let mut stage = on_loan();
    stage.now += Duration::from_secs(41).as_nanos() as u64;
    assert!(stage.write().is_empty());
    stage.tell(set(own()), &networkd(), Verdict::Foreign);
    assert!(stage.write().is_empty(), "there is nothing to be taken back");
}

#[test]
fn what_the_owner_makes_of_the_way_to_the_network_is_not_lent() {
    let mut stage = stage_with(Settings::default());
    stage.tell(gone(own()), &networkd(), Verdict::Foreign);
    let owner = someone(7, "/usr/local/bin/kube-router");
    stage.tell(set(route("192.0.2.0/24", CARD)), &owner, Verdict::Owner);
    assert_eq!(stage.write(), [Action::Add(lent().into())]);
    assert!(stage.write().is_empty() && !stage.core.has_work());
}
