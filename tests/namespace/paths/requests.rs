//! Routes that somebody asks the kernel to delete or replace: rows 1 to 6, 41 and 43.

use anyhow::Result;
use lab::{Lab, netlink};

use super::{AFTER_A_FIGHT, SOON, calm, nothing_lost, path, patient, told};

#[test]
fn row_1_route_del() -> Result<()> {
    path("ip route del 10.244.2.0/24").falls(&["route inet main 10.244.2.0/24"]).undone(&[(
        "route",
        "10.244.2.0/24",
        "deleted",
        "request",
    )])
}

#[test]
fn row_1_route_del_inet6() -> Result<()> {
    path("ip -6 route del fd00:244:2::/64").falls(&["route inet6 main fd00:244:2::/64"]).undone(&[(
        "route",
        "fd00:244:2::/64",
        "deleted",
        "request",
    )])
}

#[test]
fn row_1_route_del_in_the_local_table() -> Result<()> {
    path("ip route del local 10.96.0.1 dev kube-dummy-if table local src 10.0.0.10")
        .falls(&["route inet local 10.96.0.1"])
        .undone(&[("route", "10.96.0.1/32", "deleted", "request")])
}

/// The kernel makes it anew only when the link gets another IPv6 address (`addrconf_add_dev`): until then nobody on the
/// link finds a neighbour.
#[test]
fn row_1_route_del_of_the_multicast_route() -> Result<()> {
    path("ip -6 route del multicast ff00::/8 dev kube-bridge table local")
        .falls(&["route inet6 local ff00::/8 kube-bridge"])
        .undone(&[("route", "ff00::/8", "deleted", "request")])
}

#[test]
fn row_2_route_flush_dev() -> Result<()> {
    path("ip route flush dev kube-bridge")
        .after("route add 10.244.20.0/24 dev kube-bridge proto 17")
        .falls(&["route inet main 10.244.20.0/24", "route inet main 10.244.1.0/24"])
        .within(AFTER_A_FIGHT)
        .undone(&[
            ("route", "10.244.20.0/24", "deleted", "request"),
            ("route", "10.244.1.0/24", "deleted", "request"),
        ])
}

#[test]
fn row_2_route_flush_table() -> Result<()> {
    path("ip route flush table 78").falls(&["route inet 78 default"]).within(AFTER_A_FIGHT).undone(&[(
        "route",
        "0.0.0.0/0",
        "deleted",
        "request",
    )])
}

#[test]
fn row_3_route_replace() -> Result<()> {
    path("ip route replace 10.244.2.0/24 via 10.0.0.66 proto 17")
        .falls(&["route inet main 10.244.2.0/24"])
        .undone(&[("route", "10.244.2.0/24", "replaced", "replace")])
}

#[test]
fn row_3_route_change() -> Result<()> {
    path("ip route change 10.244.3.0/24 via 10.0.0.66").falls(&["route inet main 10.244.3.0/24"]).undone(&[(
        "route",
        "10.244.3.0/24",
        "replaced",
        "replace",
    )])
}

#[test]
fn row_4_route_replace_of_two_paths_inet6() -> Result<()> {
    path("ip -6 route replace fd00:244:9::/64 via fd00:10::66 proto 17")
        .after("route add fd00:244:9::/64 proto 17 nexthop via fd00:10::11 nexthop via fd00:10::12")
        .falls(&["route inet6 main fd00:244:9::/64"])
        .undone(&[("route", "fd00:244:9::/64", "replaced", "replace")])
}

#[test]
fn row_5_route_del_of_the_second_metric() -> Result<()> {
    path("ip route del 10.244.2.0/24 metric 50")
        .after("route add 10.244.2.0/24 via 10.0.0.12 metric 50 proto 17")
        .falls(&["route inet main 10.244.2.0/24"])
        .undone(&[("route", "10.244.2.0/24", "deleted", "request")])
}

#[test]
fn row_6_siocdelrt() -> Result<()> {
    path("route del -net 10.244.2.0/24").falls(&["route inet main 10.244.2.0/24"]).undone(&[(
        "route",
        "10.244.2.0/24",
        "deleted",
        "request",
    )])
}

#[test]
fn row_6_siocdelrt_inet6() -> Result<()> {
    path("route -A inet6 del fd00:244:2::/64 metric 1024")
        .falls(&["route inet6 main fd00:244:2::/64"])
        .undone(&[("route", "fd00:244:2::/64", "deleted", "request")])
}

#[test]
fn row_41_several_requests_in_one_message() -> Result<()> {
    let node = Lab::guarded()?;
    let before = node.lab.state()?;
    let keys = [
        netlink::Key::main([10, 244, 2, 0].into(), 24),
        netlink::Key::main([10, 244, 3, 0].into(), 24),
        netlink::Key { dst: [10, 1, 0, 12].into(), len: 32, table: 77 },
    ];
    netlink::Client::open()?.delete_all(&keys)?;
    assert!(!node.lab.changed(&before)?.is_empty(), "without a guardian they go");

    let node = Lab::guarded()?;
    let before = node.lab.state()?;
    let guardian = patient(&node.lab)?;
    netlink::Client::open()?.delete_all(&keys)?;
    node.lab.whole_within(&before, SOON)?;
    for key in ["10.244.2.0/24", "10.244.3.0/24", "10.1.0.12/32"] {
        let event = told(&guardian, "route", key, "restored")?;
        assert_eq!(event.text("/cause"), "request", "{event}");
        assert_eq!(event.number("/actor/pid"), Some(std::process::id().into()), "{event}");
    }
    nothing_lost(&guardian)
}

/// What the kernel refuses has not happened.
#[test]
fn row_43_failed_requests() -> Result<()> {
    let node = Lab::guarded()?;
    let before = node.lab.state()?;
    let guardian = patient(&node.lab)?;
    for words in [
        "route del 10.244.99.0/24",
        "route del 10.244.2.0/24 via 10.0.0.99",
        "route add 10.244.2.0/24 via 10.0.0.99 proto 17",
        "link set kube-bridge mtu 5",
        "link set kube-bridge name eth0",
        "address del 10.96.0.77/32 dev kube-dummy-if",
        "rule del prio 32764 fwmark 0x99 lookup 78",
        "nexthop del id 99",
    ] {
        assert!(node.lab.ip(words).is_err(), "{words} should have failed");
    }
    node.lab.assert_whole(&before)?;
    calm(&guardian)?;
    let events = guardian.events()?;
    assert!(events.is_empty(), "{events:?}");
    node.lab.assert_whole(&before)
}
