//! Every shape of route comes back byte for byte.

use std::fmt::Write as _;

use super::{all_routes, in_netns, ip, try_ip};
use crate::{
    core::plan::{Action, Applied},
    model::{Family, Route},
    netlink::{Executor, dump_routes},
};

/// `ip` commands, separated by `;`, that make one or more routes.
///
/// Not among them: tunnel options (`encap ip ... geneve_opts`). Linux 6.18.44 with `CONFIG_FORTIFY_SOURCE`
/// dies in `ip_tun_parse_opts` when `ip` adds one, with the RTNL lock held: no namespace of the machine
/// can change its network until it is restarted.
const SHAPES: &[&str] = &[
    "route add default via 10.0.0.2",
    "route add 10.1.0.0/24 via 10.0.0.2",
    "route add 10.1.1.0/24 via 10.0.0.2 dev eth0 proto 17 metric 50 src 10.0.0.1",
    "route add blackhole 10.1.2.0/24",
    "route add unreachable 10.1.3.0/24",
    "route add prohibit 10.1.4.0/24 metric 9",
    "route add throw 10.1.5.0/24 table 77",
    "route add 10.1.6.0/24 via 10.0.0.2 tos 0x10; route add 10.1.6.0/24 via 10.0.1.2",
    "route add 10.1.7.0/24 via 10.0.0.2 table 300",
    "route add default via 10.0.0.2 table 77",
    "route add 10.1.8.0/24 via inet6 fd00::2 dev eth0",
    "route add 10.1.9.0/24 via 192.0.2.1 dev eth0 onlink",
    "route add 10.1.10.0/24 via 10.0.0.2 mtu 1400 advmss 1360 window 8000 hoplimit 33",
    "route add 10.1.11.0/24 via 10.0.0.2 mtu lock 1400",
    "route add 10.1.12.0/24 via 10.0.0.2 congctl cubic",
    "route add 10.1.13.0/24 via 10.0.0.2 congctl lock cubic features ecn",
    "route add 10.1.14.0/24 via 10.0.0.2 initcwnd 20 initrwnd 30 quickack 1 rto_min 20ms fastopen_no_cookie 1",
    "route add 10.1.15.0/24 via 10.0.0.2 rtt 30ms rttvar 4ms ssthresh 90 cwnd lock 70 reordering 4",
    "route add 10.1.16.0/24 nexthop via 10.0.0.2 weight 3 nexthop via 10.0.1.2 weight 7",
    "route add 10.1.17.0/24 nexthop via 10.0.1.2 weight 256 nexthop via inet6 fd00::2 dev eth0",
    "route add 10.1.18.0/24 proto 17 nexthop via 192.0.2.1 dev eth0 onlink nexthop via 10.0.1.2",
    "route add 10.1.19.0/24 via 10.0.0.2 realm 3/7",
    "route add 10.1.20.0/24 encap ip id 42 src 10.0.0.1 dst 10.0.0.9 ttl 9 via 10.0.0.2 dev eth0",
    "route add 10.1.22.0/24 encap mpls 100/200 via 10.0.0.2",
    "route add 10.1.23.0/24 nexthop encap ip id 1 dst 10.0.0.9 via 10.0.0.2 dev eth0 nexthop via 10.0.1.2",
    "nexthop add id 5 via 10.0.0.2 dev eth0; route add 10.1.30.0/24 nhid 5 proto 17",
    "nexthop add id 6 via 10.0.1.2 dev eth1; nexthop add id 7 group 5,3/6,2; route add 10.1.31.0/24 nhid 7",
    "nexthop add id 8 blackhole; route add 10.1.32.0/24 nhid 8",
    "nexthop add id 9 via 192.0.2.7 dev eth0 onlink; route add 10.1.33.0/24 nhid 9",
    "nexthop add id 10 via fd00::2 dev eth0; route add 10.1.34.0/24 nhid 10 src 10.0.0.1",
    "route add local 10.8.0.0/24 dev lo table local proto 17",
    "addr add 10.9.9.9/32 dev eth1",
    "route add broadcast 10.8.1.255 dev eth0 table local scope link",
    "route add multicast 239.0.0.0/8 dev eth0",
    "route add 10.1.40.0/24 dev eth0 scope link",
    "route add 10.1.41.0/24 dev eth0 scope 200 proto 200",
    "route add 10.1.42.0/24 via 10.0.0.2 metric 10; route add 10.1.42.0/24 via 10.0.0.2 metric 20",
    "route add 10.1.43.0/24 via 10.0.0.2; route append 10.1.43.0/24 via 10.0.1.2",
    "route add 10.1.44.1 dev eth0",
    "route add unicast 10.1.45.0/24 dev lo table 4000000000",
    "-6 route add default via fd00::2",
    "-6 route add fd10::/64 via fd00::2",
    "-6 route add fd10:1::/64 via fd00::2 metric 50 proto 17 src fd00::1",
    "-6 route add blackhole fd10:2::/64",
    "-6 route add unreachable fd10:3::/64 metric 7",
    "-6 route add prohibit fd10:4::/64 table 77",
    "-6 route add throw fd10:5::/64 table 300",
    "-6 route add fd10:6::/64 via fe80::1 dev eth0 pref high",
    "-6 route add fd10:7::/64 via fe80::1 dev eth0 pref low proto ra",
    "-6 route add fd10:8::/64 via fd77::1 dev eth0 onlink",
    "-6 route add fd10:9::/64 via fd00::2 mtu lock 1400 advmss 1300 hoplimit 5 congctl cubic features ecn",
    "-6 route add fd10:a::/64 nexthop via fd00::2 dev eth0 weight 3 nexthop via fd01::2 dev eth1 weight 9",
    "-6 route add fd10:b::/64 nexthop via fd77::1 dev eth0 onlink nexthop via fe80::2 dev eth1",
    "-6 nexthop add id 25 via fd00::2 dev eth0; -6 route add fd10:c::/64 nhid 25",
    "-6 nexthop add id 26 via fd01::2 dev eth1; nexthop add id 27 group 25/26,4; -6 route add fd10:d::/64 nhid 27 table 300",
    "-6 nexthop add id 28 blackhole; -6 route add fd10:e::/64 nhid 28",
    "-6 route add fd10:f::/64 from fd99::/48 via fd00::2",
    "-6 route add fd11::/64 encap seg6 mode encap segs fd00::8,fd00::9 dev eth0",
    "-6 route add fd11:1::/64 encap ip6 id 42 dst fd00::9 hoplimit 4 via fd00::2 dev eth0",
    "-6 route add fd11:2::/64 nexthop encap seg6 mode inline segs fd00::8 via fd00::2 dev eth0 nexthop via fd01::2 dev eth1",
    "-6 route add fd11:3::/64 dev eth0; -6 route append fd11:3::/64 dev eth1",
    "-6 route add local fd11:4::/64 dev lo table local metric 10",
    "-6 route add fd11:5::/64 via fd00::2 dev eth0 metric 5; -6 route add fd11:5::/64 via fd00::2 dev eth0 metric 6",
    "-6 route add fd11:6::1 dev eth0 proto 17",
];

/// A 64-way multipath route, IPv4 and IPv6.
fn wide() -> [String; 2] {
    let mut wide = ["route add 10.2.0.0/24".to_owned(), "-6 route add fd12::/64".to_owned()];
    for leg in 16..80 {
        let _ = write!(wide[0], " nexthop via 10.0.0.{leg} weight {}", leg - 15);
        let _ = write!(wide[1], " nexthop via fd00::{leg:x} dev eth0 weight {}", leg - 15);
    }
    wide
}

fn routes() -> Vec<Route> {
    let dump = dump_routes(None).unwrap();
    assert!(dump.complete);
    dump.routes
}

/// Removes the routes one by one and puts them back; each step must be verified by the kernel's echo.
fn remove_and_restore(executor: &mut Executor, made: &[Route], what: &str) {
    let before = all_routes();
    let count = routes().len();
    let removals: Vec<_> = made.iter().cloned().map(|route| Action::Remove(route.into())).collect();
    for (action, applied) in removals.iter().zip(executor.apply(&removals)) {
        assert_eq!(applied, Applied::Verified, "{what}: {action:#?}");
    }
    let left = routes();
    assert_eq!(left.len(), count - made.len(), "{what}: more than asked was removed");
    assert!(!made.iter().any(|route| left.iter().any(|other| other.same(route))), "{what}: still there");

    let restores: Vec<_> = made
        .iter()
        .enumerate()
        .map(|(index, route)| {
            let beside = made.iter().take(index).any(|earlier| earlier.key == route.key);
            if beside { Action::Append(route.clone().into()) } else { Action::Add(route.clone().into()) }
        })
        .collect();
    for (action, applied) in restores.iter().zip(executor.apply(&restores)) {
        assert_eq!(applied, Applied::Verified, "{what}: {action:#?}");
    }
    assert_eq!(all_routes(), before, "{what}");
}

#[test]
fn every_shape_comes_back_byte_for_byte() {
    in_netns(|| {
        let mut executor = Executor::open().unwrap();
        let wide = wide();
        let mut tested = 0;
        for shape in SHAPES.iter().copied().chain(wide.iter().map(String::as_str)) {
            let before = routes();
            let failed = shape.split(';').find_map(|command| try_ip(command).err());
            if let Some(error) = failed {
                eprintln!("not tested, this kernel or ip refuses `{shape}`: {}", error.trim());
                continue;
            }
            let made: Vec<_> = routes().into_iter().filter(|route| !before.contains(route)).collect();
            assert!(!made.is_empty(), "{shape} made no route that a dump shows");
            remove_and_restore(&mut executor, &made, shape);
            tested += 1;
        }
        eprintln!("{tested} of {} shapes", SHAPES.len() + wide.len());
        assert!(tested >= 50, "too many shapes were refused");
    });
}

#[test]
fn the_kernels_own_routes_come_back() {
    in_netns(|| {
        ip("addr add 10.0.0.7/24 dev eth0");
        ip("addr add 10.7.7.7 peer 10.7.7.8 dev eth1");
        let mut executor = Executor::open().unwrap();
        let (ours, kernels): (Vec<_>, Vec<_>) =
            routes().into_iter().partition(|route| route.family() == Family::Inet || route.key.metric != 0);
        assert!(ours.len() > 12 && !kernels.is_empty(), "{} {}", ours.len(), kernels.len());
        // The kernel takes a preferred source only when its local route is there: hosts first, and of
        // these the narrow ones.
        let mut ours = ours;
        ours.sort_by_key(|route| std::cmp::Reverse((route.scope, route.key.dst.len())));
        remove_and_restore(&mut executor, &ours, "all but addrconf's");

        let refused = executor.apply(&[Action::Add(kernels[0].clone().into())]);
        let [Applied::Refused { message: Some(message), .. }] = refused.as_slice() else {
            panic!("{refused:?}");
        };
        assert!(message.contains("metric 0"), "{message}");
    });
}

#[test]
fn replace_undoes_a_replace() {
    in_netns(|| {
        let mut executor = Executor::open().unwrap();
        for [make, spoil] in [
            ["route add 10.1.0.0/24 via 10.0.0.2 proto 17", "route replace 10.1.0.0/24 via 10.0.1.2"],
            [
                "-6 route add fd10::/64 nexthop via fd00::2 dev eth0 nexthop via fd01::2 dev eth1",
                "-6 route replace fd10::/64 via fd00::9 dev eth0",
            ],
            [
                "-6 route add fd11::/64 via fd00::2 dev eth0 mtu 1400",
                "-6 route replace fd11::/64 nexthop via fd00::3 dev eth0 nexthop via fd01::3 dev eth1",
            ],
        ] {
            let before = routes();
            ip(make);
            let text = all_routes();
            let made: Vec<_> = routes().into_iter().filter(|route| !before.contains(route)).collect();
            ip(spoil);
            assert_ne!(all_routes(), text);
            let undo = [Action::Replace(made[0].clone().into())];
            assert_eq!(executor.apply(&undo), [Applied::Verified], "{make}");
            assert_eq!(all_routes(), text, "{make}");
        }
    });
}

#[test]
fn a_leg_is_appended_to_an_ipv6_route() {
    in_netns(|| {
        let mut executor = Executor::open().unwrap();
        ip("-6 route add fd10::/64 nexthop via fd00::2 dev eth0 nexthop via fd01::2 dev eth1");
        let text = all_routes();
        let whole = routes().into_iter().find(|route| route.key.dst.to_string() == "fd10::/64").unwrap();
        let last = Route { legs: whole.legs[1..].to_vec(), ..whole };
        let steps = [Action::Remove(last.clone().into()), Action::Append(last.into())];
        assert_eq!(executor.apply(&steps), [Applied::Verified, Applied::Verified]);
        assert_eq!(all_routes(), text);
    });
}
