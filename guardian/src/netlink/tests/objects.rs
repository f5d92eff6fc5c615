//! Every shape of address, rule and nexthop object comes back byte for byte.

use super::{in_netns, ip, try_ip};
use crate::{
    core::plan::{Action, Applied},
    model::{Object, address::ifa},
    netlink::{Executor, dump},
};

/// `ip` commands, separated by `;`, that make one or more addresses.
const ADDRESSES: &[&str] = &[
    "addr add 10.5.0.1/24 dev eth0",
    "addr add 10.5.1.1/24 brd + dev eth0 label eth0:one",
    "addr add 10.5.2.1/24 brd 10.5.2.77 dev eth0 scope link",
    "addr add 10.5.3.1/32 dev eth0 scope host noprefixroute",
    "addr add 10.5.4.1 peer 10.5.5.1/24 dev eth1",
    "addr add 10.5.6.1/24 metric 77 dev eth1",
    "addr add 10.5.7.1/24 dev eth1; addr add 10.5.7.2/24 dev eth1; addr add 10.5.7.3/24 dev eth1",
    "addr add 10.5.8.1/24 dev eth1 valid_lft forever preferred_lft 0",
    "addr add 10.5.9.1/24 dev eth1 proto 99",
    "addr add 127.0.0.9/8 dev lo scope host",
    "-6 addr add fd05::1/64 dev eth0 nodad",
    "-6 addr add fd05:1::1/64 dev eth0",
    "-6 addr add fd05:2::1 peer fd05:2::9/64 dev eth1 nodad",
    "-6 addr add fd05:3::1/64 dev eth1 home nodad noprefixroute",
    "-6 addr add fd05:4::1/64 dev eth1 nodad valid_lft forever preferred_lft 0",
    "-6 addr add fd05:5::1/64 dev eth1 metric 50 nodad proto 99",
    "-6 addr add fe80::77/64 dev eth1 scope link nodad",
    "-6 addr add fd05:6::1/128 dev lo",
];

const RULES: &[&str] = &[
    "rule add priority 0 from 10.6.0.0/24 table 77",
    "rule add from 10.6.0.0/16 to 10.7.0.0/16 table 300 priority 100",
    "rule add from 10.6.0.5/24 table 300 priority 101",
    "rule add from 10.6.0.1 lookup main",
    "rule add fwmark 0x10 table 77 priority 102",
    "rule add fwmark 0x10/0xf0 table 77 priority 103 protocol 17",
    "rule add fwmark 0/0xf0 table 77 priority 104",
    "rule add iif eth0 table 77 priority 105",
    "rule add oif eth1 table 77 priority 106",
    "rule add iif nowhere table 77 priority 107",
    "rule add uidrange 1000-2000 table 77 priority 108",
    "rule add ipproto tcp sport 1-100 dport 443 table 77 priority 109",
    "rule add tos 0x10 table 77 priority 110",
    "rule add table main suppress_prefixlength 0 priority 111",
    "rule add table main suppress_ifgroup 5 priority 112",
    "rule add priority 113 goto 32766",
    "rule add priority 114 from 10.6.1.0/24 unreachable",
    "rule add priority 115 from 10.6.1.0/24 blackhole",
    "rule add priority 116 from 10.6.1.0/24 prohibit",
    "rule add not from 10.6.2.0/24 table 77 priority 117",
    "rule add priority 118 nop",
    "rule add l3mdev priority 119",
    "rule add priority 120 table 4000000000",
    "rule add priority 121 table 77 tun_id 9",
    "rule add priority 122 from 10.6.3.0/24 realms 3/7",
    "rule add priority 123 table 77; rule add priority 123 table 78; rule add priority 123 from 10.6.4.0/24 table 77",
    "-6 rule add from fd06::/48 to fd07::/64 iif eth0 fwmark 5 table 300 priority 200",
    "-6 rule add priority 201 ipproto udp dport 53 table 77",
    "-6 rule add priority 202 not to fd08::/64 table main suppress_prefixlength 16",
    "-6 rule add priority 203 goto 32766",
    "-6 rule add priority 204 unreachable",
    "-6 rule add priority 205 tos 0x20 table 77",
];

const NEXTHOPS: &[&str] = &[
    "nexthop add id 10 dev eth0",
    "nexthop add id 11 via 10.0.0.2 dev eth0 protocol 17",
    "nexthop add id 12 via 192.0.2.1 dev eth0 onlink",
    "nexthop add id 13 blackhole",
    "nexthop add id 14 via fd00::2 dev eth0",
    "-6 nexthop add id 15 blackhole",
    "-6 nexthop add id 16 dev eth1",
    "nexthop add id 17 encap mpls 100/200 via 10.0.0.2 dev eth0",
    "nexthop add id 18 encap ip id 42 dst 10.0.0.9 ttl 9 via 10.0.0.2 dev eth0",
    "-6 nexthop add id 19 encap seg6 mode encap segs fd00::8,fd00::9 via fd00::2 dev eth0",
    "nexthop add id 20 via 10.0.0.2 fdb",
    "nexthop add id 30 group 11,3/12,7 protocol 17",
    "nexthop add id 31 group 11/12,4 type resilient buckets 16 idle_timer 50 unbalanced_timer 60",
    "nexthop add id 32 group 14",
    "nexthop add id 33 group 20 fdb",
];

/// What `ip` prints of all of it.
fn shown() -> String {
    let mut shown = String::new();
    for what in ["-d -j addr show", "-d -j rule show", "-6 -d -j rule show", "-d -j nexthop show"] {
        // The operating state is found out by itself, and so is what is left of a lifetime.
        let json: serde_json::Value = serde_json::from_str(&ip(what)).unwrap();
        for mut object in json.as_array().unwrap().clone() {
            if let Some(addresses) = object.get_mut("addr_info") {
                shown += &addresses.to_string();
            } else {
                if let Some(resilient) =
                    object.get_mut("resilient_args").and_then(|args| args.as_object_mut())
                {
                    resilient.remove("unbalanced_time");
                }
                shown += &object.to_string();
            }
            shown.push('\n');
        }
    }
    shown
}

fn objects() -> Vec<Object> {
    let state = dump().unwrap();
    assert!(state.complete);
    state.objects.into_iter().filter(|object| !matches!(object, Object::Link(_) | Object::Route(_))).collect()
}

fn each_comes_back(shapes: &'static [&'static str], at_least: usize) {
    in_netns(move || {
        let mut executor = Executor::open().unwrap();
        let mut tested = 0;
        for shape in shapes {
            let before = objects();
            if let Some(error) = shape.split(';').find_map(|command| try_ip(command).err()) {
                eprintln!("not tested, this kernel or ip refuses `{shape}`: {}", error.trim());
                continue;
            }
            // Duplicate address detection ends by itself.
            while objects().iter().any(|object| matches!(object, Object::Address(a) if a.tentative)) {
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            let text = shown();
            let made: Vec<_> = objects().into_iter().filter(|object| !before.contains(object)).collect();
            assert!(!made.is_empty(), "{shape} made nothing that a dump shows");
            // Secondary addresses first: with the first of its network the kernel removes them.
            for object in made.iter().rev() {
                let remove = Action::Remove(object.clone());
                let results = executor.apply(&[remove.clone(), remove]);
                assert_eq!(results, [Applied::Verified, Applied::Gone], "{shape}: {object:#?}");
            }
            assert_eq!(objects().len(), before.len(), "{shape}");
            for object in &made {
                let add = Action::Add(object.clone());
                let results = executor.apply(&[add.clone(), add]);
                assert_eq!(results, [Applied::Verified, Applied::Exists], "{shape}: {object:#?}");
            }
            while objects().iter().any(|object| matches!(object, Object::Address(a) if a.tentative)) {
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            assert_eq!(shown(), text, "{shape}");
            tested += 1;
        }
        eprintln!("{tested} of {}", shapes.len());
        assert!(tested >= at_least, "too many shapes were refused");
    });
}

#[test]
fn every_shape_of_address_comes_back() {
    each_comes_back(ADDRESSES, 15);
}

#[test]
fn every_shape_of_rule_comes_back() {
    each_comes_back(RULES, 25);
}

#[test]
fn every_shape_of_nexthop_comes_back() {
    each_comes_back(NEXTHOPS, 11);
}

#[test]
fn what_was_changed_is_changed_back() {
    in_netns(|| {
        let mut executor = Executor::open().unwrap();
        for [make, spoil] in [
            ["-6 addr add fd05::1/64 dev eth0 nodad", "-6 addr change fd05::1/64 dev eth0 preferred_lft 0"],
            ["addr add 10.5.0.1/24 metric 7 dev eth0", "addr change 10.5.0.1/24 metric 9 dev eth0"],
            ["nexthop add id 11 via 10.0.0.2 dev eth0", "nexthop replace id 11 via 10.0.1.2 dev eth1"],
            ["nexthop add id 12 group 11", "nexthop replace id 12 group 11,5"],
        ] {
            let before = objects();
            ip(make);
            let text = shown();
            let made: Vec<_> = objects().into_iter().filter(|object| !before.contains(object)).collect();
            ip(spoil);
            assert_ne!(shown(), text, "{spoil}");
            assert_eq!(executor.apply(&[Action::Replace(made[0].clone())]), [Applied::Verified], "{spoil}");
            assert_eq!(shown(), text, "{spoil}");
        }
        let nexthop =
            objects().into_iter().find(|object| matches!(object, Object::Nexthop(n) if n.id == 12)).unwrap();
        ip("nexthop del id 12");
        assert_eq!(executor.apply(&[Action::Replace(nexthop)]), [Applied::Gone]);
        let rule = objects().into_iter().find(|object| matches!(object, Object::Rule(_))).unwrap();
        let applied = executor.apply(&[Action::Replace(rule.clone()), Action::Append(rule)]);
        assert!(
            applied.iter().all(|a| matches!(a, Applied::Refused { errno: libc::EOPNOTSUPP, .. })),
            "{applied:?}"
        );
    });
}

#[test]
fn which_address_is_the_first_of_its_network_follows_the_order() {
    in_netns(|| {
        let mut executor = Executor::open().unwrap();
        ip("addr add 10.5.0.1/24 dev eth0");
        let before = objects();
        ip("addr add 10.5.0.2/24 dev eth0");
        let second: Vec<_> = objects().into_iter().filter(|object| !before.contains(object)).collect();
        let [Object::Address(second)] = second.as_slice() else { panic!("{second:?}") };
        assert!(second.flags & ifa::F_SECONDARY != 0);
        ip("addr del 10.5.0.1/24 dev eth0");
        // Alone it is the first: the kernel says so, and the difference is told.
        let _ = try_ip("addr del 10.5.0.2/24 dev eth0");
        let applied = executor.apply(&[Action::Add(Object::Address(second.clone()))]);
        let [Applied::Differs(Some(Object::Address(held)))] = applied.as_slice() else {
            panic!("{applied:?}")
        };
        assert!(held.is_primary());
    });
}
