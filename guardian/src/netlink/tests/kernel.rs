//! Refusals, overruns and interruptions, as the real kernel makes them.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use super::{PATIENCE, comes, in_netns, ip};
use crate::{
    core::plan::{Action, Applied},
    model::{Attribute, Key, Notice, Object, Route, route::rt},
    netlink::{Executor, Listener, Received, decode, dump, dump_routes, frames, listener::RECEIVE_BUFFER},
};

fn named(prefix: &str) -> Route {
    let routes = dump_routes(None).unwrap().routes;
    routes.into_iter().find(|route| route.key.dst.to_string() == prefix).unwrap()
}

/// As many routes like `model` as asked, to prefixes of their own.
fn many(model: &Route, count: u32) -> Vec<Route> {
    (0..count)
        .map(|index| {
            let mut route = model.clone();
            route.key.dst = format!("11.{}.{}.0/24", index / 256, index % 256).parse().unwrap();
            route
        })
        .collect()
}

#[test]
fn refusals_come_with_the_kernels_words() {
    in_netns(|| {
        ip("route add 10.1.0.0/24 via 10.0.0.2 proto 17");
        let mut executor = Executor::open().unwrap();
        let route = named("10.1.0.0/24");
        let mut nowhere = route.clone();
        nowhere.key.dst = "10.3.0.0/24".parse().unwrap();
        nowhere.legs[0].oif = 0;
        nowhere.legs[0].attributes = vec![Attribute { kind: rt::RTA_GATEWAY, value: [192, 0, 2, 9].into() }];
        let mut other = route.clone();
        other.legs[0].attributes = vec![Attribute { kind: rt::RTA_GATEWAY, value: [10, 0, 0, 3].into() }];
        let mut huge = route.clone();
        huge.attributes.push(Attribute { kind: 99, value: vec![0; 70_000].into() });

        let applied = executor.apply(&[
            Action::Add(route.clone().into()),
            Action::Add(nowhere.clone().into()),
            Action::Remove(other.into()),
            Action::Add(huge.into()),
            Action::Remove(route.clone().into()),
            Action::Remove(route.clone().into()),
            Action::Add(route.into()),
        ]);
        assert_eq!(applied[0], Applied::Exists);
        let gateway = Some("Nexthop has invalid gateway".to_owned());
        assert_eq!(applied[1], Applied::Refused { errno: libc::ENETUNREACH, message: gateway });
        assert_eq!(applied[2], Applied::Gone);
        assert!(matches!(applied[3], Applied::Refused { errno: libc::EMSGSIZE, message: Some(_) }));
        assert_eq!(applied[4..], [Applied::Verified, Applied::Gone, Applied::Verified]);
    });
}

#[test]
fn ten_thousand_actions_keep_their_order() {
    in_netns(|| {
        ip("route add 10.1.0.0/24 via 10.0.0.2 proto 17");
        let mut executor = Executor::open().unwrap();
        let routes = many(&named("10.1.0.0/24"), 10_000);
        assert!(executor.apply(&[Action::Add(routes[777].clone().into())]) == [Applied::Verified]);
        let adds: Vec<_> = routes.iter().cloned().map(|route| Action::Add(route.into())).collect();
        let applied = executor.apply(&adds);
        assert_eq!(applied.len(), adds.len());
        for (index, applied) in applied.into_iter().enumerate() {
            let expected = if index == 777 { Applied::Exists } else { Applied::Verified };
            assert_eq!(applied, expected, "{index}");
        }
        let held = dump_routes(Some(rt::TABLE_MAIN)).unwrap();
        assert!(routes.iter().all(|route| held.routes.contains(route)));
    });
}

#[test]
fn a_lost_answer_is_a_refusal_and_the_next_apply_works() {
    in_netns(|| {
        ip("route add 10.1.0.0/24 via 10.0.0.2 proto 17");
        let mut executor = Executor::with_receive_buffer(4096).unwrap();
        let port = executor.port();
        let routes = many(&named("10.1.0.0/24"), 100);
        let adds: Vec<_> = routes.iter().cloned().map(|route| Action::Add(route.into())).collect();
        let started = std::time::Instant::now();
        let applied = executor.apply(&adds);
        assert!(started.elapsed() < Duration::from_millis(500), "it waited for what was lost");
        let lost = applied
            .iter()
            .filter(|applied| matches!(applied, Applied::Refused { errno: libc::ENOBUFS, .. }))
            .count();
        assert!(lost > 50 && applied[0] == Applied::Verified, "{lost} lost, {:?}", applied[0]);

        let removals: Vec<_> = routes.into_iter().map(|route| Action::Remove(route.into())).collect();
        let applied = executor.apply(&removals);
        assert!(applied.iter().all(|applied| *applied == Applied::Verified), "{applied:?}");
        assert_eq!(executor.port(), port);
    });
}

#[test]
fn notifications_carry_the_executors_port() {
    in_netns(|| {
        ip("route add 10.1.0.0/24 via 10.0.0.2 proto 17");
        let route = named("10.1.0.0/24");
        let mut executor = Executor::open().unwrap();
        let mut listener = Listener::open(RECEIVE_BUFFER).unwrap();
        executor.apply(&[Action::Remove(route.clone().into())]);
        ip("link set eth1 down");
        let mut seen = Vec::new();
        while seen.len() < 2 {
            assert!(comes(&listener, PATIENCE), "{seen:?}");
            let Some(Received::Datagram(datagram)) = listener.recv().unwrap() else { panic!("overrun") };
            for frame in frames(datagram).map(Result::unwrap) {
                match decode(&frame).unwrap() {
                    Some(Notice::Gone { object }) if object.route() == Some(&route) => {
                        assert_eq!(frame.header.port, executor.port());
                        seen.push("route");
                    }
                    Some(Notice::Set { object: Object::Link(link), .. })
                        if link.name == "eth1" && !link.is_up() =>
                    {
                        assert_ne!(frame.header.port, executor.port());
                        seen.push("link");
                    }
                    _ => {}
                }
            }
        }
        assert_eq!(seen, ["route", "link"]);
    });
}

#[test]
fn an_overrun_is_reported_and_the_listener_goes_on() {
    in_netns(|| {
        ip("route add 10.1.0.0/24 via 10.0.0.2 proto 17");
        let mut executor = Executor::open().unwrap();
        let mut listener = Listener::open(4096).unwrap();
        let adds: Vec<_> =
            many(&named("10.1.0.0/24"), 100).into_iter().map(|route| Action::Add(route.into())).collect();
        executor.apply(&adds);
        let mut overran = false;
        while !overran {
            assert!(comes(&listener, PATIENCE), "no overrun was reported");
            overran = listener.recv().unwrap() == Some(Received::Overrun);
        }
        while listener.recv().unwrap().is_some() {}
        ip("route del 10.1.0.0/24");
        assert!(comes(&listener, PATIENCE));
        assert!(matches!(listener.recv().unwrap(), Some(Received::Datagram(_))));
    });
}

#[test]
fn a_dump_has_links_addresses_and_one_table() {
    in_netns(|| {
        ip("route add 10.1.0.0/24 via 10.0.0.2 table 300");
        ip("link add br0 type bridge");
        ip("link set peer1 master br0");
        ip("nexthop add id 7 via 10.0.0.2 dev eth0");
        let state = dump().unwrap();
        assert!(state.complete);
        // A kernel with the modules for it puts fallback tunnels into every namespace.
        let fallback =
            ["tunl0", "ip6tnl0", "gre0", "gretap0", "erspan0", "ip6gre0", "ip_vti0", "ip6_vti0", "sit0"];
        let links = state.links();
        let names = links.iter().map(|link| link.name.as_str());
        let mut names: Vec<_> = names.filter(|name| !fallback.contains(name)).collect();
        names.sort_unstable();
        assert_eq!(names, ["br0", "eth0", "eth1", "lo", "peer0", "peer1"]);
        let port = links.named("peer1").and_then(|link| link.port.clone()).unwrap();
        assert_eq!(Some(port.master), links.named("br0").map(|link| link.index));
        let addresses: Vec<_> = state
            .objects
            .iter()
            .filter_map(|object| match object {
                Object::Address(address) => Some(address.text(&links)),
                _ => None,
            })
            .collect();
        assert!(addresses.contains(&"10.0.0.1/24 dev eth0".to_owned()), "{addresses:?}");
        assert!(addresses.contains(&"fd01::1/64 dev eth1".to_owned()), "{addresses:?}");
        assert!(
            state.objects.iter().any(|object| matches!(object, Object::Nexthop(nexthop) if nexthop.id == 7))
        );
        let rules = state.objects.iter().filter(|object| matches!(object, Object::Rule(_)));
        assert_eq!(rules.count(), 5, "three of IPv4, two of IPv6");
        let mut kinds: Vec<_> = state.objects.iter().map(|object| object.key().kind()).collect();
        kinds.dedup();
        assert_eq!(kinds.len(), 5, "each kind in one piece: {kinds:?}");
        let routes = state.objects.iter().filter(|object| object.route().is_some()).count();
        assert_eq!(dump_routes(Some(300)).unwrap().routes, [named("10.1.0.0/24")]);
        assert!(dump_routes(Some(4711)).unwrap().routes.is_empty());
        assert!(routes > dump_routes(Some(rt::TABLE_LOCAL)).unwrap().routes.len());
    });
}

#[test]
fn a_dump_amid_churn_is_whole_or_says_it_is_not() {
    in_netns(|| {
        ip("route add 10.1.0.0/24 via 10.0.0.2 proto 17");
        let mut executor = Executor::open().unwrap();
        let stable = many(&named("10.1.0.0/24"), 3000);
        let adds: Vec<_> = stable.iter().cloned().map(|route| Action::Add(route.into())).collect();
        executor.apply(&adds);

        let churn = "while :; do echo 'address add 10.5.0.1/24 dev eth1'; echo 'link add x0 type bridge'; \
                     echo 'route add 9.9.9.0/24 via 10.0.0.2'; echo 'link del x0'; \
                     echo 'address del 10.5.0.1/24 dev eth1'; echo 'route del 9.9.9.0/24'; done | ip -force -batch -";
        let mut child = Command::new("timeout")
            .args(["3", "sh", "-c", churn])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (mut dumps, mut interrupted) = (0, 0);
        while child.try_wait().unwrap().is_none() {
            let state = dump().unwrap();
            dumps += 1;
            interrupted += state.interrupted;
            assert!(state.complete || state.interrupted > 8);
            let held: std::collections::HashSet<_> = state.objects.iter().map(Object::key).collect();
            let missing = stable.iter().filter(|route| !held.contains(&Key::Route(route.key))).count();
            assert!(missing == 0 || !state.complete, "{missing} missing from a dump said to be complete");
        }
        eprintln!("{dumps} dumps, {interrupted} interruptions");
        assert!(dumps > 3);
    });
}
