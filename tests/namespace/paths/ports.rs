//! Ports that are taken out of `kube-bridge`, and guarded links that are put into another: row 36.

use anyhow::Result;
use lab::{Lab, wait_for};

use super::{SOON, path, patient, told};

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

/// The mode in which a pod reaches itself by a service address comes back with the port. (To write
/// `brport/hairpin_mode` itself is announced to listeners for bridges only, and not guarded.)
#[test]
fn a_port_that_was_out_is_in_hairpin_mode_again() -> Result<()> {
    let node = Lab::guarded()?;
    let hairpin = || -> Result<bool> {
        let link = node.lab.ip_json("-d link show veth0000b")?;
        Ok(link.pointer("/0/linkinfo/info_slave_data/hairpin") == Some(&true.into()))
    };
    assert!(hairpin()?);
    let guardian = patient(&node.lab)?;
    node.lab.ip("link set veth0000b nomaster")?;
    told(&guardian, "link", "veth0000b", "restored")?;
    wait_for("the hairpin mode", SOON, hairpin)
}

#[test]
fn row_36_the_tunnel_into_a_bridge() -> Result<()> {
    path("ip link set tun-ab704e21df6 master elsewhere")
        .after(ELSEWHERE)
        .falls(&["link tun-ab704e21df6"])
        .undone(&[("link", lab::TUNNEL, "changed", "request")])
}
