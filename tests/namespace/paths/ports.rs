//! Ports that are taken out of `kube-bridge`, and guarded links that are put into another: row 36.

use anyhow::Result;

use super::{path, script};

/// A bridge that does not take its address and MTU from its ports.
const ELSEWHERE: &str =
    "link add elsewhere address 02:00:00:00:00:01 type bridge\nlink set elsewhere mtu 1400";

#[test]
fn row_36_nomaster() -> Result<()> {
    path("ip link set veth0000a nomaster").falls(&["link veth0000a"]).undone(&[(
        "link",
        "veth0000a",
        "changed",
        "request",
    )])
}

#[test]
fn row_36_into_another_bridge() -> Result<()> {
    path("ip link set veth0000a master elsewhere").after(ELSEWHERE).falls(&["link veth0000a"]).undone(&[(
        "link",
        "veth0000a",
        "changed",
        "request",
    )])
}

#[test]
fn row_36_brctl_delif() -> Result<()> {
    path("brctl delif kube-bridge veth0000b").falls(&["link veth0000b"]).undone(&[(
        "link",
        "veth0000b",
        "changed",
        "request",
    )])
}

/// The mode in which a pod reaches itself by a service address.
#[test]
fn a_port_without_hairpin() -> Result<()> {
    script("mount -t sysfs sysfs /sys; echo 0 >/sys/class/net/veth0000b/brport/hairpin_mode")
        .falls(&["link veth0000b"])
        .undone(&[("link", "veth0000b", "changed", "request")])
}

#[test]
fn row_36_the_tunnel_into_a_bridge() -> Result<()> {
    path("ip link set tun-ab704e21df6 master elsewhere")
        .after(ELSEWHERE)
        .falls(&["link tun-ab704e21df6"])
        .undone(&[("link", lab::TUNNEL, "changed", "request")])
}
