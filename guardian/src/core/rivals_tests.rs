//! Routes of one key: what is put in another's place, and what stands beside it.

use super::{
    Dump, Effect, Input, Settings,
    plan::{Action, Applied},
    simulation::someone,
    stage::{Stage, TUN, node},
    testing::{address, gone, link, route, set},
};
use crate::model::{
    Attribute, Key, Link, Object, Stamp,
    record::{Cause, Change, Verdict},
    route::rt,
};

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
    objects.push(kernels.clone().into());
    stage.dump(objects);
    assert_eq!(stage.write(), [Action::Remove(kernels.into())]);
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

/// A route that the kernel has made for each of several links, of one key.
fn multicast(oif: u32) -> crate::model::Route {
    let mut route = route("ff00::/8", oif);
    (route.key.table, route.key.metric) = (rt::TABLE_LOCAL, 256);
    (route.kind, route.protocol) = (rt::RTN_MULTICAST, rt::PROT_KERNEL);
    route
}

/// Links have a multicast route each, of one key: what stands on a link that is not guarded has replaced nothing, and is
/// not replaced either, as the kernel takes the first of the key for that.
#[test]
fn the_multicast_route_of_a_link_comes_back_beside_those_of_others() {
    let mut objects = node();
    objects.extend([multicast(1).into(), multicast(TUN).into()]);
    let mut stage = Stage::new(Settings::default(), &objects);
    let ip = someone(60, "/usr/sbin/ip");
    let down = || Link { flags: 0, ..link(TUN, "tun-a") };
    stage.tell(set(down()), &ip, Verdict::Foreign);
    let mut held = node();
    held.retain(|object| object.key() != Key::Link(TUN));
    held.extend([down().into(), multicast(1).into()]);
    stage.dump(held);
    assert_eq!(stage.write(), [Action::Replace(link(TUN, "tun-a").into())]);
    assert_eq!(stage.write(), [Action::Append(multicast(TUN).into())]);
    let told = stage.reports.iter().find(|report| report.object.route().is_some()).expect("the route");
    assert_eq!((told.change, told.cause), (Change::Deleted, Cause::LinkDown), "{told:?}");
}

/// Somebody puts another route on our own link in its place: that one goes, and not the first of the key, which is that
/// of a link which nobody guards.
#[test]
fn what_stands_in_place_of_a_kernels_route_goes_and_not_that_of_another_link() {
    let mut objects = node();
    objects.extend([multicast(1).into(), multicast(TUN).into()]);
    let mut stage = Stage::new(Settings::default(), &objects);
    let ip = someone(60, "/usr/sbin/ip");
    let theirs = crate::model::Route { protocol: rt::PROT_STATIC, ..multicast(TUN) };
    stage.tell(gone(multicast(TUN)), &ip, Verdict::Foreign);
    stage.tell(set(theirs.clone()), &ip, Verdict::Foreign);
    assert_eq!(stage.write(), [Action::Remove(theirs.into())]);
    assert_eq!(stage.write(), [Action::Append(multicast(TUN).into())]);
    assert!(stage.write().is_empty() && stage.core.missing().is_empty());
}

/// The owner takes its route away, after a write of ours that the kernel took otherwise: those of other links stay.
#[test]
fn what_the_owner_takes_away_is_not_taken_from_other_links() {
    let mut objects = node();
    objects.extend([multicast(1).into(), multicast(TUN).into()]);
    let mut stage = Stage::new(Settings::default(), &objects);
    let (ip, owner) = (someone(60, "/usr/sbin/ip"), someone(7, "/usr/local/bin/kube-router"));
    stage.tell(gone(multicast(TUN)), &ip, Verdict::Foreign);
    let asked = stage.core.plan(Stamp(stage.now), 10);
    assert_eq!(asked, [Action::Append(multicast(TUN).into())]);
    let held = crate::model::Route { scope: 7, ..multicast(TUN) };
    stage.now += 1000;
    let (sent, done) = (Stamp(stage.now), Stamp(stage.now + 1));
    stage.core.applied(vec![Applied::Differs(Some(held.clone().into()))], sent, done);
    stage.tell(gone(held), &owner, Verdict::Owner);
    assert!(stage.write().is_empty(), "of the key there is only that of eth0");
}
