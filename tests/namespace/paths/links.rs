//! Links that are set down, deleted, renamed or changed, and what falls with them: rows 7 to 10, 34, 37 to 40.

use anyhow::Result;
use lab::{Lab, Pod, TUNNEL};

use super::{Path, SOON, calm, first, named, path, patient, script, told};

/// What lies on the tunnel.
const ON_THE_TUNNEL: &[&str] = &[
    "link tun-ab704e21df6",
    "route inet main 10.244.3.0/24",
    "route inet main 10.244.7.0/24",
    "route inet 77 10.1.0.12",
    "route inet6 main fd00:244:3::/64",
    "route inet6 77 fd00:1::12",
    "nexthop 17",
];

/// By whatever door the tunnel is set down: its routes go in silence, and all comes back.
fn down(path: Path<'_>) -> Result<()> {
    path.falls(ON_THE_TUNNEL).undone(&[
        ("link", TUNNEL, "down", "request"),
        ("route", "10.244.3.0/24", "deleted", "link_down"),
        ("route", "10.1.0.12/32", "deleted", "link_down"),
        ("route", "fd00:244:3::/64", "deleted", "link_down"),
        ("nexthop", "17", "deleted", "link_down"),
        ("route", "10.244.7.0/24", "deleted", "link_down"),
    ])
}

#[test]
fn row_7_link_down_by_netlink() -> Result<()> {
    down(path("ip link set tun-ab704e21df6 down"))
}

#[test]
fn row_7_link_down_by_ioctl() -> Result<()> {
    down(path("ifconfig tun-ab704e21df6 down"))
}

#[test]
fn row_7_link_down_by_sysfs() -> Result<()> {
    down(script("mount -t sysfs sysfs /sys; echo 0x1002 >/sys/class/net/tun-ab704e21df6/flags"))
}

#[test]
fn row_7_the_bridge_down() -> Result<()> {
    path("ip link set kube-bridge down")
        .after("route add 10.244.20.0/24 dev kube-bridge proto 17")
        .falls(&["link kube-bridge", "route inet main 10.244.1.0/24", "route inet main 10.244.20.0/24"])
        .undone(&[
            ("link", "kube-bridge", "down", "request"),
            ("route", "10.244.20.0/24", "deleted", "link_down"),
        ])
}

/// The kernel keeps IPv4 addresses and local routes of a link that is down, and drops IPv6 addresses.
#[test]
fn row_7_the_service_interface_down() -> Result<()> {
    path("ip link set kube-dummy-if down")
        .falls(&["link kube-dummy-if", "address kube-dummy-if fd00:96::1/128"])
        .undone(&[
            ("link", "kube-dummy-if", "down", "request"),
            ("address", "fd00:96::1/128", "deleted", "link_down"),
        ])
}

#[test]
fn row_8_link_down_without_a_word_of_inet6_routes() -> Result<()> {
    let silent = |lab: &Lab| lab.sysctl("net/ipv6/route/skip_notify_on_dev_down", "1");
    let node = Lab::guarded()?;
    silent(&node.lab)?;
    let before = node.lab.state()?;
    node.lab.ip(&format!("link set {TUNNEL} down"))?;
    assert!(node.lab.changed(&before)?.contains("- route inet6 main fd00:244:3::/64"));

    let node = Lab::guarded()?;
    silent(&node.lab)?;
    let before = node.lab.state()?;
    let guardian = patient(&node.lab)?;
    let path = path("ip link set tun-ab704e21df6 down");
    let pid = path.run()?;
    node.lab.whole_within(&before, SOON)?;
    let event = told(&guardian, "route", "fd00:244:3::/64", "restored")?;
    assert_eq!(event.text("/cause"), "link_down", "{event}");
    named(&event, pid, &path.argv);
    Ok(())
}

/// A pod's link is its own: whoever deletes it is told of, and nobody makes it again, for its peer is gone.
#[test]
fn row_9_a_pods_veth_deleted() -> Result<()> {
    let node = Lab::guarded()?;
    let guardian = patient(&node.lab)?;
    let path = path("ip link del veth0000a");
    let pid = path.run()?;
    let event = told(&guardian, "link", "veth0000a", "")?;
    assert_eq!(event.text("/change"), "deleted", "{event}");
    named(&event, pid, &path.argv);
    calm(&guardian)?;
    assert!(node.lab.ip("link show veth0000a").is_err());
    // The other one is still guarded.
    node.lab.ip("link set veth0000b nomaster")?;
    told(&guardian, "link", "veth0000b", "restored")?;
    Ok(())
}

#[test]
fn row_10_the_tunnel_deleted() -> Result<()> {
    path("ip link del tun-ab704e21df6").falls(ON_THE_TUNNEL).undone(&[
        ("link", TUNNEL, "deleted", "request"),
        ("route", "10.244.3.0/24", "deleted", "link_removed"),
        ("route", "10.1.0.12/32", "deleted", "link_removed"),
        ("route", "fd00:244:3::/64", "deleted", "link_removed"),
        ("nexthop", "17", "deleted", "link_removed"),
        ("route", "10.244.7.0/24", "deleted", "link_removed"),
    ])
}

#[test]
fn row_10_the_service_interface_deleted() -> Result<()> {
    path("ip link del kube-dummy-if")
        .falls(&[
            "link kube-dummy-if",
            "address kube-dummy-if 10.96.0.1/32",
            "address kube-dummy-if fd00:96::1/128",
            "route inet local 10.96.0.1",
        ])
        .undone(&[
            ("link", "kube-dummy-if", "deleted", "request"),
            ("address", "10.96.0.1/32", "deleted", "link_removed"),
            ("address", "10.96.0.10/32", "deleted", "link_removed"),
            ("address", "fd00:96::1/128", "deleted", "link_removed"),
            // It falls without a word. When a dump finds that out, the kernel has made one of its own in its place,
            // with the address that was put back.
            ("route", "10.96.0.1/32", "replaced", "link_removed"),
        ])
}

/// With its pods in it: they are ports of the new one.
#[test]
fn row_10_the_bridge_deleted() -> Result<()> {
    path("ip link del kube-bridge")
        .after("route add 10.244.20.0/24 dev kube-bridge proto 17")
        .falls(&[
            "link kube-bridge",
            "link veth0000a",
            "link veth0000b",
            "address kube-bridge 10.244.1.1/24",
            "route inet main 10.244.1.0/24",
        ])
        .undone(&[
            ("link", "kube-bridge", "deleted", "request"),
            ("address", "10.244.1.1/24", "deleted", "link_removed"),
            ("address", "fd00:244:1::1/64", "deleted", "link_removed"),
            ("route", "10.244.20.0/24", "deleted", "link_removed"),
        ])
}

/// `SIOCBRDELBR` takes only a bridge that is down. It is recorded as down first, by `ip`.
#[test]
fn row_10_brctl_delbr() -> Result<()> {
    script("ip link set kube-dummy-if down; exec brctl delbr kube-dummy-if")
        .falls(&["link kube-dummy-if", "address kube-dummy-if 10.96.0.1/32"])
        .happens()?;
    let node = Lab::guarded()?;
    let before = node.lab.state()?;
    let guardian = patient(&node.lab)?;
    // The guardian sets it up again in between: until one of the two is too late.
    let text = "for n in $(seq 1000); do
            ip link set kube-dummy-if down; brctl delbr kube-dummy-if 2>/dev/null && exit 0
        done; exit 1";
    let status = std::process::Command::new("sh").args(["-c", text]).status()?;
    anyhow::ensure!(status.success(), "the guardian is too fast for brctl, always");
    node.lab.whole_within(&before, super::AFTER_A_FIGHT)?;
    // Each change is laid at the door of who made it.
    for (change, argv) in [
        ("down", ["ip", "link", "set", "kube-dummy-if", "down"].as_slice()),
        ("deleted", &["brctl", "delbr", "kube-dummy-if"]),
    ] {
        let event = first(&guardian, &format!("the bridge {change}"), |e| {
            e.key() == "kube-dummy-if" && e.text("/object/kind") == "link" && e.text("/change") == change
        })?;
        assert_eq!(event.argv(), argv, "{event}");
        assert_eq!(event.text("/actor/confidence"), "exact", "{event}");
        assert_eq!(event.text("/verdict"), "foreign", "{event}");
    }
    Ok(())
}

/// A link on another that goes: both come back, the lower one first. (A bridge without ports that is given its
/// address has no carrier, so that of those in the lab only `kube-bridge` is good for this.)
#[test]
fn row_10_the_lower_link_deleted() -> Result<()> {
    path("ip link del kube-bridge")
        .after(
            "link add link kube-bridge name tun-upper type macvlan mode bridge\n\
             link set tun-upper up\n\
             route add 10.244.21.0/24 dev tun-upper proto 17\n",
        )
        .falls(&["link kube-bridge", "link tun-upper", "route inet main 10.244.21.0/24"])
        .undone(&[
            ("link", "kube-bridge", "deleted", "request"),
            ("link", "tun-upper", "deleted", "link_removed"),
            ("route", "10.244.21.0/24", "deleted", "link_removed"),
        ])
}

#[test]
fn row_34_an_mtu_too_small_for_inet6() -> Result<()> {
    path("ip link set tun-ab704e21df6 mtu 1000")
        .falls(&["link tun-ab704e21df6", "route inet6 main fd00:244:3::/64", "route inet6 77 fd00:1::12"])
        .undone(&[("link", TUNNEL, "changed", "request")])
}

/// Moved away, it is deleted here. The one elsewhere still has the tunnel's id, so that it may not be possible to
/// make it again: whatever comes of it, it is told, and there is no loop.
#[test]
fn row_37_moved_to_another_namespace() -> Result<()> {
    let node = Lab::guarded()?;
    let guardian = patient(&node.lab)?;
    let other = Pod::new()?;
    let words = format!("ip link set {TUNNEL} netns {}", other.process.pid());
    let path = path(&words);
    let pid = path.run()?;
    let event = told(&guardian, "link", TUNNEL, "")?;
    assert_eq!(event.text("/change"), "deleted", "{event}");
    named(&event, pid, &path.argv);
    calm(&guardian)
}

/// Whether this kernel renames a link that is up, as all do since 6.2 (`dev_change_name` in `net/core/dev.c`); before,
/// a guarded link that is up cannot be renamed, and there is nothing to undo.
fn renames() -> Result<bool> {
    let node = Lab::guarded()?;
    let renamed = node.lab.ip(&format!("link set {TUNNEL} name gone"));
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    match renamed {
        Ok(_) => Ok(true),
        Err(error) if version < (6, 2) && format!("{error:#}").contains("busy") => {
            println!("Linux {} renames no link that is up: {error:#}", release.trim());
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

#[test]
fn row_38_renamed() -> Result<()> {
    if !renames()? {
        return Ok(());
    }
    path("ip link set tun-ab704e21df6 name gone")
        .falls(&["link tun-ab704e21df6"])
        .undone(&[("link", TUNNEL, "changed", "request")])
}

/// The kernel numbers the labels of all IPv4 addresses but the first, and keeps the numbers when the name comes back
/// (`inetdev_changename` in `net/ipv4/devinet.c`). A label changes with the address alone, and is no reason to take one
/// away.
#[test]
fn row_38_renamed_with_several_addresses() -> Result<()> {
    if !renames()? {
        return Ok(());
    }
    path("ip link set kube-dummy-if name was-kube")
        .falls(&[
            "link kube-dummy-if",
            "address kube-dummy-if 10.96.0.1/32",
            "address kube-dummy-if 10.96.0.10/32",
        ])
        .undone(&[("link", "kube-dummy-if", "changed", "request")])
}

#[test]
fn row_39_one_way_of_two_down() -> Result<()> {
    path("ip link set tun-ab704e21df6 down")
        .after("route add 10.244.22.0/24 proto 17 nexthop via 10.0.0.11 nexthop dev tun-ab704e21df6 weight 3")
        .falls(&["route inet main 10.244.22.0/24"])
        .undone(&[("link", TUNNEL, "down", "request")])
}

#[test]
fn row_40_one_way_of_two_deleted() -> Result<()> {
    path("ip link del tun-ab704e21df6")
        .after(
            "route add 10.244.22.0/24 proto 17 nexthop via 10.0.0.11 nexthop dev tun-ab704e21df6 weight 3\n\
             route add fd00:244:22::/64 proto 17 nexthop via fd00:10::11 dev eth0 \
             nexthop via fd00:99::1 dev tun-ab704e21df6 onlink",
        )
        .falls(&["route inet main 10.244.22.0/24", "route inet6 main fd00:244:22::/64"])
        .undone(&[
            ("link", TUNNEL, "deleted", "request"),
            ("route", "10.244.22.0/24", "deleted", "link_removed"),
        ])
}

#[test]
fn the_queue_length_and_the_group_come_back_with_the_link() -> Result<()> {
    path("ip link del tun-ab704e21df6")
        .after("link set tun-ab704e21df6 txqueuelen 77 group 5 alias to-ten")
        .falls(&["link tun-ab704e21df6"])
        .undone(&[("link", TUNNEL, "deleted", "request")])
}
