//! Addresses: their order, what falls with them, and what is reason to take one away.

use std::sync::Arc;

use super::{
    Settings,
    plan::{Action, Applied},
    simulation::someone,
    stage::{BRIDGE, Stage, TUN, node},
    testing::{address, gone, route, set},
};
use crate::model::{
    Address, Attribute, Stamp,
    address::ifa,
    record::{Cause, Outcome, Verdict},
    route::rt,
};

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

fn broadcast(last: u8) -> Address {
    let broadcast = Attribute { kind: ifa::BROADCAST, value: [10, 96, 0, last].into() };
    Address { attributes: vec![broadcast], ..address("10.96.0.10", TUN, 32) }
}

/// A broadcast address cannot be changed where it stands: the address is taken away to be added again, and the route that
/// the kernel drops with it is put down to who made that necessary.
#[test]
fn what_falls_with_an_address_that_we_take_away_is_put_down_to_who_made_that_necessary() {
    let local = route("10.96.0.10/32", TUN);
    let mut objects = node();
    objects.extend([broadcast(255).into(), local.clone().into()]);
    let mut stage = Stage::new(Settings::default(), &objects);
    let ip = someone(60, "/usr/sbin/ip");
    stage.tell(set(broadcast(99)), &ip, Verdict::Foreign);
    assert_eq!(stage.write(), [Action::Remove(broadcast(99).into())]);
    stage.own(gone(local.clone()));
    assert_eq!(stage.write(), [Action::Add(broadcast(255).into())]);
    stage.own(set(local));
    let told = stage.reports.iter().find(|report| report.object.route().is_some()).expect("the route");
    assert_eq!((told.verdict, told.cause), (Verdict::Foreign, Cause::AddressRemoved), "{told:?}");
    assert!(Arc::ptr_eq(&told.actor, &ip) && told.outcome == Outcome::Restored, "{told:?}");
    assert!(stage.write().is_empty() && stage.core.missing().is_empty());
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

/// Our removal found nothing: whoever took it away is behind what falls with it.
#[test]
fn a_removal_that_finds_nothing_explains_nothing() {
    let by_address = {
        let mut route = route("10.244.9.0/24", 1);
        route.attributes = vec![Attribute { kind: rt::RTA_PREFSRC, value: [10, 96, 0, 10].into() }];
        route
    };
    let mut objects = node();
    objects.extend([broadcast(255).into(), by_address.into()]);
    let ip = someone(60, "/usr/sbin/ip");
    let (owner, other) = (someone(7, "/usr/local/bin/kube-router"), someone(61, "/usr/bin/python3"));
    for (who, verdict) in [(owner, Verdict::Owner), (other, Verdict::Foreign)] {
        let mut stage = Stage::new(Settings::default(), &objects);
        stage.tell(set(broadcast(99)), &ip, Verdict::Foreign);
        assert_eq!(stage.core.plan(Stamp(stage.now), 10), [Action::Remove(broadcast(99).into())]);
        let (sent, done) = (Stamp(stage.now + 5000), Stamp(stage.now + 6000));
        stage.core.applied(vec![Applied::Gone], sent, done);
        stage.tell(gone(broadcast(99)), &who, verdict);
        stage.now = done.0;
        stage.dump(node());
        while !stage.write().is_empty() {}
        let told = stage.reports.iter().find(|report| report.object.route().is_some()).expect("the route");
        assert!(Arc::ptr_eq(&told.actor, &who) && told.cause == Cause::AddressRemoved, "{told:?}");
        assert_eq!(told.outcome == Outcome::Allowed, verdict == Verdict::Owner, "{told:?}");
    }
}

/// A secondary address that is deleted by name is not a consequence of its own deletion.
#[test]
fn a_secondary_address_explains_itself() {
    let secondary = Address { flags: ifa::F_SECONDARY, ..address("10.244.1.2", BRIDGE, 24) };
    let mut objects = node();
    objects.push(secondary.clone().into());
    let mut stage = Stage::new(Settings::default(), &objects);
    let ip = someone(60, "/usr/sbin/ip");
    stage.tell(gone(secondary), &ip, Verdict::Foreign);
    stage.write();
    let told = stage.reports.last().expect("a report");
    assert_eq!(told.cause, Cause::Request, "{told:?}");
}

/// A label is no reason to take an address away, with all that the kernel would take with it; it comes back with the
/// address, as it was before the kernel changed it.
#[test]
fn a_label_is_no_reason_to_take_an_address_away() {
    let labelled = |label: &str| {
        let label = Attribute { kind: ifa::LABEL, value: label.as_bytes().into() };
        Address { attributes: vec![label], ..address("10.96.0.10", TUN, 32) }
    };
    let mut objects = node();
    objects.push(labelled("tun-a").into());
    let mut stage = Stage::new(Settings::default(), &objects);
    let ip = someone(60, "/usr/sbin/ip");
    stage.tell(set(labelled("tun-a:2")), &ip, Verdict::Foreign);
    assert!(stage.write().is_empty() && stage.core.missing().is_empty());
    stage.tell(gone(labelled("tun-a:2")), &ip, Verdict::Foreign);
    assert_eq!(stage.write(), [Action::Add(labelled("tun-a").into())]);
}
