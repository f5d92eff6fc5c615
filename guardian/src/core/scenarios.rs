//! Single situations, told one by one.

use std::sync::Arc;

use super::{
    alternatives::Alternatives,
    flow::{Dump, Effect, Input},
    machine::{Core, Settings},
    plan::{Action, Applied},
    simulation::{Ask, DESTINATIONS, ETH, TUN, World, calling, patient, scope, someone},
    stage::{BRIDGE, Stage, node, rule},
    testing::{address, gone, link, route, set},
};
use crate::model::{
    Actor, Mode, Notice, Object, ProcessId, Route, Stamp,
    record::{Outcome, Verdict},
    route::rt,
};

#[test]
fn equal_states_need_no_plan() {
    let start: Vec<Route> = (0..4).map(|i| route(DESTINATIONS[i], TUN)).collect();
    let mut world = World::new(Settings::default(), &start, false);
    world.reread();
    assert!(world.core.plan(Stamp(u64::MAX), 100).is_empty());
    assert_eq!(world.routes().len(), 4);
    assert!(world.reports.is_empty());
}

#[test]
fn nothing_follows_on_a_single_route() {
    let mut stage = Stage::new(Settings::default(), &node());
    let ip = someone(99, "/usr/sbin/ip");
    for (lost, expected) in [
        (vec![gone(route("10.244.1.0/24", BRIDGE))], true),
        (vec![gone(rule())], false),
        (vec![gone(route("10.244.1.0/24", BRIDGE)), gone(rule())], false),
        (vec![], false),
    ] {
        for notice in lost {
            stage.tell(notice, &ip, Verdict::Foreign);
        }
        let actions = stage.core.plan(Stamp(stage.now), 100);
        assert_eq!(stage.core.writes_the_last(), expected, "{actions:?}");
        stage.core.applied(vec![Applied::Verified; actions.len()], Stamp(stage.now), Stamp(stage.now));
        assert!(!stage.core.writes_the_last(), "nothing is being written");
    }
    // More is to be written than goes into one plan.
    stage.tell(gone(route("10.244.1.0/24", BRIDGE)), &ip, Verdict::Foreign);
    stage.tell(gone(rule()), &ip, Verdict::Foreign);
    assert_eq!(stage.core.plan(Stamp(stage.now), 1).len(), 1);
    assert!(!stage.core.writes_the_last());

    // Of two routes of one key the second is written once the first is there.
    let both = [route("10.244.1.0/24", BRIDGE), route("10.244.1.0/24", super::stage::TUN)];
    let mut objects = node();
    objects.push(both[1].clone().into());
    let mut stage = Stage::new(Settings::default(), &objects);
    for lost in both {
        stage.tell(gone(lost), &ip, Verdict::Foreign);
    }
    for _ in 0..2 {
        assert_eq!(stage.core.plan(Stamp(stage.now), 100).len(), 1);
        assert!(!stage.core.writes_the_last());
        stage.core.applied(vec![Applied::Verified], Stamp(stage.now), Stamp(stage.now));
    }
    assert!(stage.core.missing().is_empty());
}

#[test]
fn a_process_that_insists_is_let_finish() {
    // `ip route flush` looks again after its first round and deletes what has come back.
    let start: Vec<Route> = (0..3).map(|i| route(DESTINATIONS[i], TUN)).collect();
    let mut world = World::new(Settings::default(), &start, false);
    let ip = someone(99, "/usr/sbin/ip");
    for _ in 0..10 {
        for r in &start {
            world.foreigner(r.clone(), &Ask::Delete, &ip);
        }
        world.deliver(10);
        world.write(64, &mut |_| {}, &mut |_| {});
    }
    // Three times three would be; five of the six that were undone came back.
    assert_eq!(world.actions.len(), 3 + 5, "{:?}", world.actions);
    assert!(world.kernel.held.is_empty());
    world.core.step(Stamp(world.kernel.clock), Input::Gone(ProcessId { tgid: 99, start_ns: 99 }));
    world.write(64, &mut |_| {}, &mut |_| {});
    assert_eq!(world.kernel.held.len(), 3);
    assert!(world.reports.iter().all(|report| report.outcome == Outcome::Restored));
}

/// What comes back amid a sweep it takes away again: more than a few routes wait until it has ended, from the first round on.
#[test]
fn a_sweep_is_let_finish() {
    let all: Vec<Route> = (0..20).map(|n| route(&format!("10.{n}.0.0/16"), TUN)).collect();
    // Whom it waits for, and how much comes back before.
    for (exe, argv, at_once) in [
        ("/usr/sbin/ip", &["ip", "route", "flush", "proto", "17"][..], 5),
        ("/bin/busybox", &["ip", "ro", "fl", "table", "77"], 5),
        ("/usr/sbin/ip", &["ip", "-batch", "flush.txt"], 20),
        ("/usr/sbin/ip", &["flush"], 20),
        ("/usr/bin/tool", &["tool", "flush"], 20),
    ] {
        let ip = calling(99, exe, argv);
        let mut world = World::new(Settings::default(), &all, false);
        for r in &all {
            world.foreigner(r.clone(), &Ask::Delete, &ip);
            world.deliver(1);
            world.write(64, &mut |_| {}, &mut |_| {});
        }
        assert_eq!(world.actions.len(), at_once, "{argv:?}");
        world.core.step(Stamp(world.kernel.clock), Input::Gone(ProcessId { tgid: 99, start_ns: 99 }));
        world.write(64, &mut |_| {}, &mut |_| {});
        assert_eq!((world.kernel.held.len(), world.actions.len()), (20, 20), "{argv:?}");
    }
}

/// Who sweeps again and again, each time as another process, is damped as anybody is.
#[test]
fn sweeps_are_damped() {
    let all: Vec<Route> = (0..20).map(|n| route(&format!("10.{n}.0.0/16"), TUN)).collect();
    let mut world = World::new(Settings::default(), &all, false);
    for pid in 100..110 {
        let ip = calling(pid, "/usr/sbin/ip", &["ip", "route", "flush", "proto", "17"]);
        for r in &all {
            world.foreigner(r.clone(), &Ask::Delete, &ip);
            world.deliver(1);
        }
        let ended = Input::Gone(ProcessId { tgid: pid, start_ns: pid.into() });
        world.core.step(Stamp(world.kernel.clock), ended);
        world.write(64, &mut |_| {}, &mut |_| {});
    }
    assert_eq!(world.actions.len(), 5 * 20, "the burst");
    world.finish();
    assert_eq!(world.kernel.held.len(), 20);
}

/// Who has stopped amid a sweep is not waited for.
#[test]
fn a_sweep_that_stands_still_is_over() {
    let all: Vec<Route> = (0..20).map(|n| route(&format!("10.{n}.0.0/16"), TUN)).collect();
    let mut world = World::new(Settings::default(), &all, false);
    let ip = calling(99, "/usr/sbin/ip", &["ip", "route", "flush", "proto", "17"]);
    for r in &all {
        world.foreigner(r.clone(), &Ask::Delete, &ip);
    }
    let begin = world.kernel.clock;
    world.finish();
    assert_eq!(world.kernel.held.len(), 20);
    let waited = world.kernel.clock - begin;
    assert!((100_000_000..200_000_000).contains(&waited), "{waited} ns");
}

/// An operator lets go of what waits for a process that insists. What it takes next, for the first time, waits for nobody: it
/// is no sweep.
#[test]
fn who_insisted_and_was_let_go_of_does_not_sweep() {
    let all: Vec<Route> = (0..8).map(|n| route(&format!("10.{n}.0.0/16"), TUN)).collect();
    let (last, others) = all.split_last().unwrap();
    let mut world = World::new(Settings::default(), &all, false);
    let tool = someone(99, "/usr/bin/tool");
    let delete = |world: &mut World, routes: &[Route]| {
        for r in routes {
            world.foreigner(r.clone(), &Ask::Delete, &tool);
        }
        world.deliver(routes.len());
        world.write(64, &mut |_| {}, &mut |_| {});
    };
    delete(&mut world, others);
    delete(&mut world, others);
    assert_eq!(world.kernel.held.len(), 1 + 5, "it is let finish with the others");
    assert_eq!(world.core.release(|_, _| true), 2);
    world.write(64, &mut |_| {}, &mut |_| {});
    assert_eq!(world.kernel.held.len(), 8);
    delete(&mut world, std::slice::from_ref(last));
    assert_eq!(world.kernel.held.len(), 8, "back at once");
}

#[test]
fn a_process_alone_against_one_route_gets_the_burst_and_is_then_waited_for() {
    let r = route(DESTINATIONS[0], TUN);
    let mut world = World::new(Settings::default(), std::slice::from_ref(&r), false);
    let ip = someone(99, "/usr/sbin/ip");
    for _ in 0..20 {
        world.foreigner(r.clone(), &Ask::Delete, &ip);
        world.deliver(1);
        world.write(64, &mut |_| {}, &mut |_| {});
    }
    assert_eq!(world.actions.len(), 5, "the burst");
    world.core.step(Stamp(world.kernel.clock), Input::Gone(ProcessId { tgid: 99, start_ns: 99 }));
    world.write(64, &mut |_| {}, &mut |_| {});
    assert_eq!(world.kernel.held.len(), 1, "back as soon as it had ended");
}

#[test]
fn who_has_used_up_one_objects_budget_is_waited_for_with_that_alone() {
    let [first, other, third] = [0, 1, 2].map(|i| route(DESTINATIONS[i], TUN));
    let mut world = World::new(Settings::default(), &[first.clone(), other.clone(), third.clone()], false);
    let ip = someone(99, "/usr/sbin/ip");
    let delete = |world: &mut World, route: &Route| {
        world.foreigner(route.clone(), &Ask::Delete, &ip);
        world.deliver(1);
        world.write(64, &mut |_| {}, &mut |_| {});
    };
    for _ in 0..6 {
        delete(&mut world, &first);
    }
    let waits = |world: &World| world.core.deadline().expect("it is waited for");
    let until = waits(&world);
    delete(&mut world, &other);
    assert!(world.kernel.held.values().eq([&other, &third]), "back at once: {:?}", world.kernel.held);
    assert!(waits(&world) > until, "but it is not quiet yet");
    // It goes on with what has come back: whatever it takes waits now.
    delete(&mut world, &other);
    delete(&mut world, &third);
    assert!(world.kernel.held.is_empty(), "{:?}", world.kernel.held);
    world.core.step(Stamp(world.kernel.clock), Input::Gone(ProcessId { tgid: 99, start_ns: 99 }));
    world.write(64, &mut |_| {}, &mut |_| {});
    assert_eq!(world.kernel.held.len(), 3);
}

#[test]
fn what_somebody_adds_they_may_take_away() {
    let mut world = World::new(Settings::default(), &[], false);
    let (daemon, other) = (someone(50, "/usr/sbin/daemon"), someone(51, "/usr/sbin/ip"));
    let r = route(DESTINATIONS[0], TUN);
    world.foreigner(r.clone(), &Ask::Add, &daemon);
    world.foreigner(r.clone(), &Ask::Delete, &daemon);
    world.finish();
    assert!(world.actions.is_empty() && world.kernel.held.is_empty());

    world.foreigner(r.clone(), &Ask::Add, &daemon);
    world.deliver(1);
    world.foreigner(r, &Ask::Delete, &other);
    world.finish();
    assert_eq!(world.kernel.held.len(), 1, "guarded against others");
}

#[test]
fn an_unknown_loss_waits_for_the_settle_time() {
    let r = route(DESTINATIONS[0], TUN);
    let mut world = World::new(Settings::default(), std::slice::from_ref(&r), false);
    world.kernel.ask(r, &Ask::Delete, Verdict::Unknown, &Arc::new(Actor::Unknown));
    world.deliver(1);
    world.write(64, &mut |_| {}, &mut |_| {});
    assert!(world.actions.is_empty());
    let deadline = world.core.deadline().expect("a timer");
    assert_eq!(deadline.since(Stamp(world.kernel.announced[0].0.0)), Settings::default().settle);
    world.finish();
    assert_eq!(world.kernel.held.len(), 1);
}

#[test]
fn a_replace_by_nobody_known_is_taken_for_the_owners() {
    let r = route(DESTINATIONS[0], TUN);
    let mut world = World::new(Settings::default(), &[r], false);
    let other = route(DESTINATIONS[0], 3);
    world.kernel.ask(other.clone(), &Ask::Replace(3), Verdict::Unknown, &Arc::new(Actor::Unknown));
    world.finish();
    assert!(world.actions.is_empty());
    assert_eq!(world.routes(), vec![other]);
}

#[test]
fn silent_losses_are_put_down_to_the_request_that_caused_them() {
    let r = route(DESTINATIONS[0], TUN);
    let mut world = World::new(Settings::default(), std::slice::from_ref(&r), false);
    // A link goes down; its IPv4 route goes without a word.
    world.kernel.held.clear();
    let at = world.kernel.tick();
    let mut down = link(TUN, "tun-a");
    down.flags = 0;
    let who = someone(60, "/usr/sbin/ip");
    world.kernel.announced.push((at, set(down), Verdict::Foreign, Arc::clone(&who)));
    world.deliver(1);
    let actions = world.core.plan(Stamp(world.kernel.clock), 10);
    assert_eq!(actions, vec![Action::Add(r.into())]);
    let refused = Applied::Refused { errno: 100, message: None };
    world.core.applied(vec![refused], Stamp(world.kernel.clock), Stamp(world.kernel.clock));
    world.effects();
    let report = world.reports.last().expect("a report");
    assert_eq!(report.cause, crate::model::record::Cause::LinkDown);
    assert_eq!(report.actor, who);
    assert_eq!(report.outcome, Outcome::Held);
    assert!(report.error.as_deref().is_some_and(|e| e.contains("Network is down")));

    // When the link is up again, it is tried at once.
    let at = world.kernel.tick();
    world.kernel.announced.push((at, set(link(TUN, "tun-a")), Verdict::Foreign, who));
    world.deliver(1);
    world.write(10, &mut |_| {}, &mut |_| {});
    assert_eq!(world.reports.last().map(|r| r.outcome), Some(Outcome::Restored));
}

#[test]
fn alternatives_are_compared_as_lists() {
    let list: Alternatives = [Arc::new(Object::Route(route(DESTINATIONS[0], 2)))].into_iter().collect();
    assert!(list.first_missing_in(&list).is_none());
}

#[test]
fn a_withdrawal_around_our_own_write_is_found_out() {
    let r = route(DESTINATIONS[0], TUN);
    let mut world = World::new(patient(), std::slice::from_ref(&r), false);
    world.foreigner(r.clone(), &Ask::Delete, &someone(99, "/usr/sbin/ip"));
    world.deliver(1);
    world.owner(r.clone(), &Ask::Add);
    world.write(64, &mut |w| w.owner(r.clone(), &Ask::Delete), &mut |_| {});
    world.deliver(10);
    world.finish();
    assert!(world.kernel.held.is_empty(), "withdrawn");
}

#[test]
fn what_is_announced_while_a_dump_is_read_keeps_its_author() {
    let (a, b) = (route(DESTINATIONS[0], TUN), route(DESTINATIONS[1], 3));
    let mut world = World::new(Settings::default(), &[a.clone(), b.clone()], false);
    let who = someone(60, "/usr/sbin/ip");
    // The dump reads the routes, then a link goes down with one of them, and only then is the dump fed.
    let started = world.kernel.tick();
    let objects = world.kernel.objects();
    world.kernel.held.remove(&a.key);
    let at = world.kernel.tick();
    let link = crate::model::Link { flags: 0, ..link(TUN, "tun-a") };
    let actor = Arc::clone(&who);
    let input = Input::Notice { at, notice: set(link), port: 0, actor, verdict: Verdict::Foreign };
    world.core.step(at, input);
    let ended = world.kernel.tick();
    world.core.step(ended, Input::Dump(Dump { started, ended, objects }));
    world.effects();
    world.write(10, &mut |_| {}, &mut |_| {});
    let report = world.reports.last().expect("a report");
    assert_eq!((report.cause, &report.actor), (crate::model::record::Cause::LinkDown, &who));
}

#[test]
fn what_its_adder_takes_away_while_a_dump_is_read_stays_away() {
    let r = route(DESTINATIONS[0], TUN);
    let mut world = World::new(Settings::default(), &[], false);
    let who = someone(60, "/usr/sbin/keepalived");
    world.foreigner(r.clone(), &Ask::Add, &who);
    world.deliver(1);
    // The dump reads it, then it goes, and only then is the dump fed.
    let started = world.kernel.tick();
    let objects = world.kernel.objects();
    world.foreigner(r, &Ask::Delete, &who);
    world.deliver(1);
    let ended = world.kernel.tick();
    world.core.step(ended, Input::Dump(Dump { started, ended, objects }));
    world.effects();
    world.reread();
    world.finish();
    assert!(world.kernel.held.is_empty() && world.actions.is_empty(), "{:?}", world.reports);
}

/// What goes while the very first dump is read is not known yet when its message comes.
#[test]
fn what_goes_while_the_first_dump_is_read_is_put_down_to_who_took_it() {
    for verdict in [Verdict::Owner, Verdict::Foreign] {
        let r = route(DESTINATIONS[0], TUN);
        let mut core = Core::new(Settings::default(), scope());
        let node = |routes: &[Route]| -> Vec<Object> {
            let links = [link(ETH, "eth0").into(), link(TUN, "tun-a").into()];
            links.into_iter().chain(routes.iter().cloned().map(Object::from)).collect()
        };
        let actor = someone(60, "/usr/sbin/ip");
        core.step(
            Stamp(20),
            Input::Notice {
                at: Stamp(20),
                notice: gone(r.clone()),
                port: 7,
                actor: Arc::clone(&actor),
                verdict,
            },
        );
        let first = Dump { started: Stamp(10), ended: Stamp(30), objects: node(std::slice::from_ref(&r)) };
        core.step(Stamp(30), Input::Dump(first));
        let again = core.effects().any(|effect| matches!(effect, Effect::Reread(_)));
        assert!(again, "the first dump cannot be the last word");
        core.step(Stamp(50), Input::Dump(Dump { started: Stamp(40), ended: Stamp(50), objects: node(&[]) }));
        let actions = core.plan(Stamp(51), 10);
        if verdict == Verdict::Owner {
            assert!(actions.is_empty(), "{actions:?}");
        } else {
            assert_eq!(actions, [Action::Add(r.clone().into())]);
            core.applied(vec![Applied::Verified], Stamp(52), Stamp(53));
            let report = core.effects().find_map(|effect| match effect {
                Effect::Report(report) => Some(report),
                _ => None,
            });
            assert_eq!(report.map(|report| report.actor), Some(actor));
        }
    }
}

#[test]
fn from_restore_to_observe_and_back() {
    let r = route(DESTINATIONS[0], TUN);
    let mut world = World::new(Settings::default(), std::slice::from_ref(&r), false);
    world.kernel.ask(r, &Ask::Delete, Verdict::Unknown, &Arc::new(Actor::Unknown));
    world.deliver(1);
    let now = Stamp(world.kernel.clock);
    world.core.reconfigure(now, Settings { mode: Mode::Observe, ..Settings::default() }, scope());
    world.finish();
    assert!(world.actions.is_empty(), "observing writes nothing, whatever was under way");
    let now = Stamp(world.kernel.clock);
    world.core.reconfigure(now, Settings::default(), scope());
    world.finish();
    assert_eq!(world.kernel.held.len(), 1, "what was missing meanwhile comes back");
}

#[test]
fn another_route_of_the_same_destination_is_left_alone() {
    let ours = route(DESTINATIONS[0], TUN);
    let mut world = World::new(Settings::default(), std::slice::from_ref(&ours), false);
    let (mut theirs, who) = (route(DESTINATIONS[0], ETH), someone(70, "/usr/sbin/ip"));
    theirs.protocol = 4;
    for notice in [Notice::Set { object: theirs.into(), replaced: false, appended: true }, gone(ours.clone())]
    {
        let (at, actor) = (world.kernel.tick(), Arc::clone(&who));
        world.core.step(at, Input::Notice { at, notice, port: 7, actor, verdict: Verdict::Foreign });
    }
    let actions = world.core.plan(Stamp(world.kernel.clock), 10);
    assert_eq!(actions, [Action::Prepend(ours.into())], "before it, where it was, and not in its place");
}

/// The owner's word on an IPv6 route by one link says nothing of that by another: `fe80::/64` stands on every link.
#[test]
fn what_the_owner_sets_on_one_link_does_not_let_go_of_another() {
    let of_kernel = |link| Route { protocol: rt::PROT_KERNEL, ..route("fe80::/64", link) };
    let [here, there] = [TUN, 3].map(of_kernel);
    let mut world = World::new(Settings::default(), &[here.clone(), there.clone()], false);
    let step = |world: &mut World, notice, verdict| {
        let (at, actor) = (world.kernel.tick(), someone(60, "/usr/sbin/ip"));
        world.core.step(at, Input::Notice { at, notice, port: 7, actor, verdict });
    };
    step(&mut world, gone(there.clone()), Verdict::Foreign);
    step(&mut world, gone(here.clone()), Verdict::Foreign);
    step(&mut world, set(here), Verdict::Owner);
    let actions = world.core.plan(Stamp(world.kernel.clock), 10);
    assert_eq!(actions.iter().map(Action::object).collect::<Vec<_>>(), [&Object::from(there)]);
    // Of its own routes the one that it sets stands for all.
    for destination in DESTINATIONS {
        let [here, there] = [TUN, 3].map(|link| route(destination, link));
        let mut world = World::new(Settings::default(), std::slice::from_ref(&there), false);
        step(&mut world, gone(there), Verdict::Foreign);
        step(&mut world, set(here), Verdict::Owner);
        assert!(world.core.plan(Stamp(world.kernel.clock), 10).is_empty());
    }
}

#[test]
fn a_route_that_went_with_its_address_and_its_link_went_with_the_link() {
    let r = route(DESTINATIONS[3], TUN);
    let mut world = World::new(Settings::default(), std::slice::from_ref(&r), false);
    let who = someone(60, "/usr/sbin/ip");
    let address = address("fe80::1", TUN, 64);
    let down = crate::model::Link { flags: 0, ..link(TUN, "tun-a") };
    // What one `ip link set down` announces, in the kernel's order.
    for notice in [gone(r), gone(address), set(down)] {
        let (at, actor) = (world.kernel.tick(), Arc::clone(&who));
        world.core.step(at, Input::Notice { at, notice, port: 0, actor, verdict: Verdict::Foreign });
    }
    let actions = world.core.plan(Stamp(world.kernel.clock), 10);
    assert_eq!(actions, [Action::Replace(link(TUN, "tun-a").into())], "the link first");
    world.core.applied(vec![Applied::Verified], Stamp(world.kernel.clock), Stamp(world.kernel.clock));
    assert_eq!(world.core.plan(Stamp(world.kernel.clock), 10).len(), 1);
    let refused = Applied::Refused { errno: 100, message: None };
    world.core.applied(vec![refused.clone()], Stamp(world.kernel.clock), Stamp(world.kernel.clock));
    world.effects();
    assert!(world.reports.iter().all(|r| r.outcome != Outcome::Held), "the request may not be over");
    world.kernel.clock += 20_000_000;
    assert_eq!(world.core.plan(Stamp(world.kernel.clock), 10).len(), 1);
    world.core.applied(vec![refused], Stamp(world.kernel.clock), Stamp(world.kernel.clock));
    world.effects();
    let told = world.reports.last().map(|r| (r.cause, r.outcome));
    assert_eq!(told, Some((crate::model::record::Cause::LinkDown, Outcome::Held)));
}

/// A foreigner replaces; while we undo that, the owner takes its route away and sets another: what it took away is not
/// its last word.
#[test]
fn a_withdrawal_and_another_route_around_our_own_write() {
    let (old, new) = (route(DESTINATIONS[0], TUN), route(DESTINATIONS[0], 3));
    let mut world = World::new(patient(), std::slice::from_ref(&old), false);
    world.foreigner(route(DESTINATIONS[0], 4), &Ask::Replace(4), &someone(99, "/usr/sbin/ip"));
    world.deliver(1);
    let meanwhile = |w: &mut World| {
        w.owner(old.clone(), &Ask::Delete);
        w.owner(new.clone(), &Ask::Replace(3));
    };
    world.write(64, &mut { meanwhile }, &mut |_| {});
    world.finish();
    assert_eq!(world.kernel.held.get(&old.key), Some(&new));
}
