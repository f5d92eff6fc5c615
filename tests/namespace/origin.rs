//! Whose request likely led to what the kernel did later, by itself.

use anyhow::Result;
use lab::{Lab, Pod};

/// The kernel takes a nexthop object away when its link has no carrier: because somebody took the other end down.
#[test]
fn a_carrier_that_drops_is_likely_due_to_who_took_the_other_end_down() -> Result<()> {
    let node = Lab::guarded()?;
    let guardian = node.lab.guardian().start()?;
    node.lab.ip("link set peer0 down")?;
    let event =
        guardian.event("the nexthop object", |e| e.text("/object/kind") == "nexthop" && e.key() == "18")?;
    assert_eq!(event.text("/actor/class"), "kernel", "{event}");
    assert_eq!(event.text("/verdict"), "kernel", "{event}");
    let argv: Vec<_> = event.list("/origin/argv").iter().filter_map(|word| word.as_str()).collect();
    assert_eq!(argv, ["ip", "link", "set", "peer0", "down"], "{event}");
    let explained = guardian.answer(&format!("explain {}", event.id()))?;
    assert!(explained.contains("likely after ip["), "{explained}");
    let wide = guardian.answer("events -o wide")?;
    assert!(wide.contains("likely after ip["), "{wide}");
    Ok(())
}

#[test]
fn an_address_that_expires_is_likely_due_to_who_gave_it_a_lifetime() -> Result<()> {
    let lab = Lab::node()?;
    let guardian = lab.guardian().args("--mode observe").start()?;
    lab.ip("addr change 10.244.1.1/24 dev kube-bridge valid_lft 2 preferred_lft 2")?;
    let event = guardian.event("the end of the address", |e| {
        e.text("/object/kind") == "address" && e.text("/actor/class") == "kernel"
    })?;
    let argv: Vec<_> = event.list("/origin/argv").iter().filter_map(|word| word.as_str()).collect();
    assert_eq!(argv.first(), Some(&"ip"), "{event}");
    assert!(argv.contains(&"valid_lft"), "{event}");
    Ok(())
}

/// A pod's own end is in its own namespace, where the guardian sees nothing: nobody is named.
#[test]
fn nothing_is_claimed_where_nothing_was_seen() -> Result<()> {
    let lab = Lab::node()?;
    let pod = Pod::new()?;
    lab.batch(&format!(
        "link add far0 type veth peer name eth0 netns {}\naddr add 10.9.2.1/24 dev far0\nlink set far0 up\n",
        pod.process.pid()
    ))?;
    pod.ip("link set eth0 up")?;
    lab.ip("nexthop add id 31 via 10.9.2.2 dev far0 proto 17")?;
    lab.ip("route add 10.244.31.0/24 nhid 31 proto 17")?;
    let guardian = lab.guardian().start()?;
    pod.ip("link set eth0 down")?;
    let event =
        guardian.event("the nexthop object", |e| e.text("/object/kind") == "nexthop" && e.key() == "31")?;
    assert_eq!(event.text("/actor/class"), "kernel", "{event}");
    assert!(event.0.pointer("/origin").is_none(), "{event}");
    Ok(())
}
