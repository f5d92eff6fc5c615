//! The lab without a guardian: what it is to protect from does happen. A test that cannot fail proves nothing.

use std::time::Duration;

use anyhow::Result;
use lab::{Lab, Networkd, netlink, wait_for};

#[test]
fn a_raw_client_deletes_a_route() -> Result<()> {
    let lab = Lab::node()?;
    let mut client = netlink::Client::open()?;
    let key = netlink::Key::main([10, 244, 2, 0].into(), 24);
    assert!(client.answers(key)?);
    client.delete(key)?;
    assert!(!client.answers(key)?);
    assert!(!lab.shows("route show 10.244.2.0/24")?);
    Ok(())
}

#[test]
fn the_comparison_sees_every_byte() -> Result<()> {
    let lab = Lab::node()?;
    let before = lab.routes()?;
    lab.ip("route replace 10.244.2.0/24 via 10.0.0.11 proto 17 mtu 1400")?;
    assert_ne!(before, lab.routes()?);
    lab.ip("route replace 10.244.2.0/24 via 10.0.0.11 proto 17")?;
    assert_eq!(before, lab.routes()?);
    lab.ip("route del fd00:244:2::/64")?;
    assert_ne!(before, lab.routes()?);
    Ok(())
}

#[test]
fn systemd_networkd_deletes_kube_routers_routes() -> Result<()> {
    let lab = Lab::new()?;
    let mut networkd = Networkd::on_node(&lab)?;
    assert!(lab.shows("route show 10.244.2.0/24")?);
    networkd.start()?;
    wait_for("systemd-networkd to delete routes", Duration::from_secs(5), || {
        Ok(!lab.shows("route show 10.244.2.0/24")? && !lab.shows("route show 10.244.3.0/24")?)
    })
}
