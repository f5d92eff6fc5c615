//! Routes of one key: what is put in another's place, and what stands beside it.

use super::{
    Dump, Effect, Input, Settings,
    plan::{Action, Applied},
    simulation::someone,
    stage::{Stage, TUN, node},
    testing::{address, appended, gone, link, replaced, route, set, via},
};
use crate::model::{
    Attribute, Key, Link, Object, Route, Stamp,
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
fn multicast(oif: u32) -> Route {
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
    let theirs = Route { protocol: rt::PROT_STATIC, ..multicast(TUN) };
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
    let held = Route { scope: 7, ..multicast(TUN) };
    stage.now += 1000;
    let (sent, done) = (Stamp(stage.now), Stamp(stage.now + 1));
    stage.core.applied(vec![Applied::Differs(Some(held.clone().into()))], sent, done);
    stage.tell(gone(held), &owner, Verdict::Owner);
    assert!(stage.write().is_empty(), "of the key there is only that of eth0");
}

/// A route that nobody guards, of the key of `X`.
fn bystander(destination: &str) -> Route {
    Route { protocol: rt::PROT_STATIC, ..route(destination, 1) }
}

/// A route that somebody puts into the place of one of this key, by a link that is not there otherwise.
fn rival(destination: &str, oif: u32) -> Route {
    Route { protocol: rt::PROT_BOOT, ..route(destination, oif) }
}

const X: &str = "10.244.9.0/24";
const X6: &str = "fd00:244:9::/64";

/// Somebody deletes a route and appends another behind one that nobody guards: that goes, and nothing else.
#[test]
fn what_comes_after_a_rival_is_no_rival() {
    for x in [X, X6] {
        let (b, ours, rival) = (bystander(x), route(x, TUN), rival(x, 9));
        let mut objects = node();
        objects.extend([b.into(), ours.clone().into()]);
        let mut stage = Stage::new(Settings::default(), &objects);
        let ip = someone(60, "/usr/sbin/ip");
        stage.tell(gone(ours.clone()), &ip, Verdict::Foreign);
        stage.tell(appended(rival.clone()), &ip, Verdict::Foreign);
        assert_eq!(stage.write(), [Action::Remove(rival.into())], "{x}");
        let back = stage.write();
        assert!(
            matches!(&*back, [Action::Append(o) | Action::Prepend(o)] if *o == ours.clone().into()),
            "{back:?}"
        );
        assert!(stage.write().is_empty() && stage.core.missing().is_empty());
    }
}

/// The kernel replaces the first route that is like the new one, which is not the first of the key: the new one goes.
#[test]
fn what_was_announced_is_the_rival_and_not_what_stood_before_it() {
    let b = Route { protocol: rt::PROT_STATIC, ..via(X6, 1, "fe80::9") };
    let ours = route(X6, TUN);
    let rival = rival(X6, 9);
    let mut objects = node();
    objects.extend([b.into(), ours.clone().into()]);
    let mut stage = Stage::new(Settings::default(), &objects);
    let ip = someone(60, "/usr/sbin/ip");
    stage.tell(replaced(rival.clone()), &ip, Verdict::Foreign);
    assert_eq!(stage.write(), [Action::Replace(ours.into())], "the kernel takes the rival for it");
    let told = stage.reports.last().expect("a report");
    assert_eq!(told.now.as_deref(), Some(&rival.into()), "{told:?}");
}

/// What stood there all the time has not taken the place of what is gone, whether or not it is known who took that.
#[test]
fn a_dump_takes_no_bystander_for_a_rival() {
    for known in [true, false] {
        let (b, ours) = (bystander(X), route(X, TUN));
        let mut objects = node();
        objects.extend([b.clone().into(), ours.clone().into()]);
        let mut stage = Stage::new(Settings::default(), &objects);
        if known {
            let ip = someone(60, "/usr/sbin/ip");
            stage.tell(set(Link { flags: 0, ..link(TUN, "tun-a") }), &ip, Verdict::Foreign);
            stage.write();
        }
        let mut held = node();
        held.push(b.into());
        stage.dump(held);
        stage.now += 3_000_000_000;
        let back = stage.write();
        assert!(
            matches!(&*back, [Action::Append(o) | Action::Prepend(o)] if *o == ours.clone().into()),
            "{back:?}"
        );
        assert!(stage.write().is_empty() && stage.core.missing().is_empty());
    }
}

/// A foreigner takes a link down; before a dump tells what fell with it, the owner deletes one address there: the routes
/// are still the foreigner's to answer for.
#[test]
fn an_address_of_the_owners_does_not_excuse_a_link_of_somebody_elses() {
    let ours = route(X, TUN);
    let vip = address("10.96.0.77", TUN, 32);
    let mut objects = node();
    objects.extend([vip.clone().into(), ours.clone().into()]);
    let mut stage = Stage::new(Settings::default(), &objects);
    let (ip, owner) = (someone(60, "/usr/sbin/ip"), someone(7, "/usr/local/bin/kube-router"));
    stage.tell(set(Link { flags: 0, ..link(TUN, "tun-a") }), &ip, Verdict::Foreign);
    stage.tell(gone(vip), &owner, Verdict::Owner);
    stage.write();
    stage.dump(node());
    assert!(
        stage.write().iter().any(|action| *action.object() == ours.clone().into()),
        "{:?}",
        stage.reports
    );
}

/// A rival comes and another goes while ours is held: what stands there is still the first one.
#[test]
fn a_second_rival_that_goes_again_changes_nothing() {
    let ours = route(X6, TUN);
    let rivals = [9, 10].map(|oif| rival(X6, oif));
    let mut objects = node();
    objects.push(ours.clone().into());
    let mut stage = Stage::new(Settings::default(), &objects);
    let ip = someone(60, "/usr/sbin/ip");
    stage.tell(replaced(rivals[0].clone()), &ip, Verdict::Foreign);
    stage.tell(set(rivals[1].clone()), &ip, Verdict::Foreign);
    stage.tell(gone(rivals[1].clone()), &ip, Verdict::Foreign);
    assert_eq!(stage.write(), [Action::Replace(ours.into())]);
}

/// The kernel matched another route than the one that we wanted away: that it is gone is known, and it is not ours.
#[test]
fn a_removal_that_hit_another_route_is_no_possession() {
    let (b, ours) = (bystander(X6), route(X6, TUN));
    let rival = rival(X6, 9);
    let mut objects = node();
    objects.extend([b.clone().into(), ours.clone().into()]);
    let mut stage = Stage::new(Settings::default(), &objects);
    let ip = someone(60, "/usr/sbin/ip");
    stage.tell(gone(ours), &ip, Verdict::Foreign);
    stage.tell(set(rival.clone()), &ip, Verdict::Foreign);
    assert_eq!(stage.core.plan(Stamp(stage.now), 10), [Action::Remove(rival.into())]);
    let (sent, done) = (Stamp(stage.now + 1), Stamp(stage.now + 2));
    stage.core.applied(vec![Applied::Differs(Some(b.into()))], sent, done);
    assert!(
        stage.core.effects().any(|effect| matches!(effect, Effect::Reread(_))),
        "a dump tells what is there"
    );
    assert!(stage.core.plan(done, 10).is_empty(), "until then nothing is done");
}

/// Where nobody knows who replaced it, what is put there is desired, and not what stood beside it.
#[test]
fn an_unknown_replacement_brings_no_bystander_along() {
    let (ours, b) = (route(X, TUN), bystander(X));
    let theirs = route(X, 3);
    let mut objects = node();
    objects.extend([ours.into(), b.clone().into()]);
    let mut stage = Stage::new(Settings::default(), &objects);
    let nobody = std::sync::Arc::default();
    stage.tell(replaced(theirs.clone()), &nobody, Verdict::Unknown);
    let desired = stage.desired(&theirs);
    assert!(desired.contains(&theirs.into()) && !desired.contains(&b.into()), "{desired:?}");
}

/// The owner replaces: the kernel takes the first of the key for that, which nobody guards. What it had besides stays.
#[test]
fn an_owner_that_replaces_a_bystander_keeps_what_it_had() {
    let (b, ours) = (bystander(X), route(X, TUN));
    let theirs = Route { protocol: 17, ..route(X, 3) };
    let mut objects = node();
    objects.extend([b.into(), ours.clone().into()]);
    let mut stage = Stage::new(Settings::default(), &objects);
    let owner = someone(7, "/usr/local/bin/kube-router");
    stage.tell(replaced(theirs.clone()), &owner, Verdict::Owner);
    let desired = stage.desired(&theirs);
    assert!(desired.contains(&theirs.into()) && desired.contains(&ours.into()), "{desired:?}");
}

/// Every cable of a pod brings a route of the key of the guarded links' own: they are not all remembered.
#[test]
fn routes_of_links_out_of_scope_are_not_remembered_for_ever() {
    let mut objects = node();
    objects.push(multicast(TUN).into());
    let mut stage = Stage::new(Settings::default(), &objects);
    let cni = someone(61, "/opt/cni/bin/bridge");
    for oif in 100..400 {
        stage.tell(set(multicast(oif)), &cni, Verdict::Foreign);
    }
    assert!(stage.held(&multicast(TUN)) < 10, "{}", stage.held(&multicast(TUN)));
    objects.extend((100..400).map(|oif| Object::from(multicast(oif))));
    stage.dump(objects);
    assert!(stage.held(&multicast(TUN)) < 10, "{}", stage.held(&multicast(TUN)));
    let ip = someone(60, "/usr/sbin/ip");
    stage.tell(gone(multicast(TUN)), &ip, Verdict::Foreign);
    assert_eq!(stage.write(), [Action::Append(multicast(TUN).into())]);
}

/// The owner sets another route while ours is on its way: what we wrote gives way to it, and does not stand beside it.
#[test]
fn what_the_owner_set_before_our_write_takes_its_place() {
    for x in [X, X6] {
        let (ours, mine) = (route(x, TUN), route(x, 3));
        let mut objects = node();
        objects.push(ours.clone().into());
        let mut stage = Stage::new(Settings::default(), &objects);
        let (ip, owner) = (someone(60, "/usr/sbin/ip"), someone(7, "/usr/local/bin/kube-router"));
        stage.tell(gone(ours.clone()), &ip, Verdict::Foreign);
        assert_eq!(stage.core.plan(Stamp(stage.now), 10), [Action::Add(ours.into())]);
        let (sent, done) = (Stamp(stage.now + 5000), Stamp(stage.now + 6000));
        stage.core.applied(vec![Applied::Verified], sent, done);
        stage.tell(set(mine.clone()), &owner, Verdict::Owner);
        stage.now = done.0;
        assert_eq!(stage.write(), [Action::Replace(mine.into())], "{x}");
        assert!(stage.write().is_empty() && stage.core.missing().is_empty());
    }
}

/// A route of a link out of scope goes that is not remembered: nothing is said of the guarded one, whoever took it.
#[test]
fn a_route_of_another_link_that_goes_unremembered_says_nothing() {
    let mut objects = node();
    objects.push(multicast(TUN).into());
    let mut stage = Stage::new(Settings::default(), &objects);
    let owner = someone(7, "/opt/cni/bin/bridge");
    stage.tell(gone(multicast(99)), &owner, Verdict::Owner);
    assert_eq!(stage.desired(&multicast(TUN)), [Object::from(multicast(TUN))]);
    assert!(!stage.core.effects().any(|effect| matches!(effect, Effect::Reread(_))));
    stage.tell(gone(multicast(TUN)), &someone(60, "/usr/sbin/ip"), Verdict::Foreign);
    assert_eq!(stage.write().len(), 1);
}
