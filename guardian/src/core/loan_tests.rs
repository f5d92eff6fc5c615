//! The node's own address while systemd-networkd is at it.

use std::{sync::Arc, time::Duration};

use super::{
    Settings,
    plan::{Action, Applied},
    simulation::someone,
    stage::{Stage, TUN, node},
    testing::{address, gone, route, set},
};
use crate::model::{
    Actor, Address, Attribute, Mode, Object, Prefix, Route, Stamp,
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
    let kernel = Arc::new(Actor::Kernel { what: "kworker/0:1".into() });
    stage.tell(gone(lent()), &kernel, Verdict::Kernel);
    assert!(stage.write().is_empty() && stage.core.missing().is_empty());
    // What fell with it waits for somebody to set the address.
    stage.tell(gone(by_tunnel()), &kernel, Verdict::Kernel);
    assert_eq!(stage.write(), [Action::Add(by_tunnel().into())]);
}

#[test]
fn networkd_that_takes_what_it_was_lent_is_lent_it_again_within_its_budget() {
    let mut stage = on_loan();
    for _ in 0..4 {
        stage.tell(gone(lent()), &networkd(), Verdict::Foreign);
        assert_eq!(stage.write(), [Action::Add(lent().into())]);
        assert_eq!(stage.write(), [Action::Add(connected().into())]);
    }
    while stage.damped == 0 {
        stage.tell(gone(lent()), &networkd(), Verdict::Foreign);
        stage.write();
        stage.write();
        assert!(stage.reports.len() < 50, "it is never damped");
    }
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

/// Messages were lost, and a dump does not have it any more.
#[test]
fn what_a_dump_does_not_find_is_written_off() {
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
