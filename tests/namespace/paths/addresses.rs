//! Addresses that are taken away, and the routes that fall with them: rows 12 to 16, 33 and 42.

use std::time::Duration;

use anyhow::Result;
use lab::Lab;

use super::{AFTER_A_FIGHT, SOON, calm, named, path, patient, script, told};

/// More than the one address and its route.
const MORE: &str = "addr add 10.244.1.2/24 dev kube-bridge\n\
                    route add 10.244.20.0/24 dev kube-bridge proto 17\n\
                    route add 10.244.21.0/24 via 10.244.1.9 proto 17\n";

/// The last address of its link takes every route of the link with it, in silence.
#[test]
fn row_12_the_only_address() -> Result<()> {
    path("ip addr del 10.244.1.1/24 dev kube-bridge")
        .after(
            "route add 10.244.20.0/24 dev kube-bridge proto 17\n\
             route add 10.244.21.0/24 via 10.244.1.9 proto 17",
        )
        .falls(&[
            "address kube-bridge 10.244.1.1/24",
            "route inet main 10.244.1.0/24",
            "route inet main 10.244.20.0/24",
            "route inet main 10.244.21.0/24",
        ])
        .undone(&[
            ("address", "10.244.1.1/24", "deleted", "request"),
            ("route", "10.244.20.0/24", "deleted", "address_removed"),
            ("route", "10.244.21.0/24", "deleted", "address_removed"),
        ])
}

/// Secondary addresses go with their primary one.
#[test]
fn row_12_a_primary_address() -> Result<()> {
    path("ip addr del 10.244.1.1/24 dev kube-bridge")
        .after(MORE)
        .falls(&[
            "address kube-bridge 10.244.1.1/24",
            "address kube-bridge 10.244.1.2/24",
            "route inet main 10.244.21.0/24",
        ])
        .undone(&[
            ("address", "10.244.1.1/24", "deleted", "request"),
            ("address", "10.244.1.2/24", "deleted", "address_removed"),
            ("route", "10.244.21.0/24", "deleted", "address_removed"),
        ])
}

/// Or take its place: the primary address has to be the primary one again.
#[test]
fn row_13_a_primary_address_with_promotion() -> Result<()> {
    let promoting = |lab: &Lab| {
        lab.batch(MORE)?;
        lab.sysctl("net/ipv4/conf/kube-bridge/promote_secondaries", "1")
    };
    let node = Lab::guarded()?;
    promoting(&node.lab)?;
    let before = node.lab.state()?;
    node.lab.ip("addr del 10.244.1.1/24 dev kube-bridge")?;
    assert!(node.lab.changed(&before)?.contains("/secondary true\n+   /secondary null"));

    let node = Lab::guarded()?;
    promoting(&node.lab)?;
    let before = node.lab.state()?;
    let guardian = patient(&node.lab)?;
    let path = path("ip addr del 10.244.1.1/24 dev kube-bridge");
    let pid = path.run()?;
    node.lab.whole_within(&before, SOON)?;
    let event = told(&guardian, "address", "10.244.1.1/24", "restored")?;
    assert_eq!(event.text("/change"), "deleted", "{event}");
    named(&event, pid, &path.argv);
    Ok(())
}

/// It deletes up to ten times what it finds.
#[test]
fn row_14_addr_flush() -> Result<()> {
    path("ip -loops 0 addr flush dev kube-bridge")
        .after(MORE)
        .falls(&[
            "address kube-bridge 10.244.1.1/24",
            "address kube-bridge fd00:244:1::1/64",
            "route inet main 10.244.20.0/24",
        ])
        .within(AFTER_A_FIGHT)
        .undone(&[
            ("address", "10.244.1.1/24", "deleted", "request"),
            ("address", "fd00:244:1::1/64", "deleted", "request"),
            ("route", "10.244.20.0/24", "deleted", "address_removed"),
        ])
}

#[test]
fn row_15_address_cleared_by_ioctl() -> Result<()> {
    path("ifconfig kube-bridge 0.0.0.0")
        .after("route add 10.244.20.0/24 dev kube-bridge proto 17")
        .falls(&["address kube-bridge 10.244.1.1/24", "route inet main 10.244.20.0/24"])
        .undone(&[
            ("address", "10.244.1.1/24", "deleted", "request"),
            ("route", "10.244.20.0/24", "deleted", "address_removed"),
        ])
}

#[test]
fn row_16_addr_del_inet6() -> Result<()> {
    path("ip addr del fd00:244:1::1/64 dev kube-bridge")
        .falls(&["address kube-bridge fd00:244:1::1/64", "route inet6 main fd00:244:1::/64"])
        .undone(&[("address", "fd00:244:1::1/64", "deleted", "request")])
}

#[test]
fn row_16_siocdifaddr() -> Result<()> {
    path("ifconfig kube-dummy-if inet6 del fd00:96::1/128")
        .falls(&["address kube-dummy-if fd00:96::1/128"])
        .undone(&[("address", "fd00:96::1/128", "deleted", "request")])
}

/// Its local route has another source, so that it stays; the kernel makes a second one with the address, which
/// was not there.
#[test]
fn a_service_address_deleted() -> Result<()> {
    path("ip addr del 10.96.0.10/32 dev kube-dummy-if")
        .falls(&["address kube-dummy-if 10.96.0.10/32"])
        .undone(&[("address", "10.96.0.10/32", "deleted", "request")])
}

/// While IPv6 is switched off nothing can be put back: told, and held without a loop. Switched on, all is whole.
#[test]
fn row_33_disable_ipv6() -> Result<()> {
    let off = "echo 1 >/proc/sys/net/ipv6/conf/kube-dummy-if/disable_ipv6";
    script(off).falls(&["address kube-dummy-if fd00:96::1/128"]).happens()?;
    let node = Lab::guarded()?;
    let before = node.lab.state()?;
    let guardian = patient(&node.lab)?;
    let path = script(off);
    let pid = path.run()?;
    let event = told(&guardian, "address", "fd00:96::1/128", "")?;
    assert_eq!(event.text("/change"), "deleted", "{event}");
    named(&event, pid, path.last_argv());
    calm(&guardian)?;
    node.lab.sysctl("net/ipv6/conf/kube-dummy-if/disable_ipv6", "0")?;
    node.lab.whole_within(&before, Duration::from_secs(10))
}

/// Routes of other links whose source it is go with it; these are announced.
#[test]
fn row_42_a_preferred_source() -> Result<()> {
    path("ip addr del 10.244.1.1/24 dev kube-bridge")
        .after(
            "route add 10.244.23.0/24 dev tun-ab704e21df6 src 10.244.1.1 proto 17 scope global\n\
             route add 10.244.24.0/24 via 10.0.0.11 src 10.244.1.1 proto 17",
        )
        .falls(&["route inet main 10.244.23.0/24", "route inet main 10.244.24.0/24"])
        .undone(&[
            ("address", "10.244.1.1/24", "deleted", "request"),
            ("route", "10.244.23.0/24", "deleted", "address_removed"),
            ("route", "10.244.24.0/24", "deleted", "address_removed"),
        ])
}

/// The node's own address is not in scope; the routes whose source it is are. They come back with it.
#[test]
fn row_42_the_nodes_own_address() -> Result<()> {
    let node = Lab::guarded()?;
    let before = node.lab.state()?;
    let guardian = patient(&node.lab)?;
    node.lab.ip("addr del 10.0.0.10/24 dev eth0")?;
    let event = told(&guardian, "route", "10.244.3.0/24", "")?;
    assert_eq!(event.text("/cause"), "address_removed", "{event}");
    assert!(!node.lab.shows("addr show dev eth0 to 10.0.0.10")?, "the guardian touched what is not its own");
    node.lab.ip("addr add 10.0.0.10/24 dev eth0")?;
    node.lab.whole_within(&before, SOON)
}
