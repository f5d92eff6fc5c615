//! Policy rules and nexthop objects: rows 17 to 21.

use anyhow::Result;
use lab::{Lab, TUNNEL};

use super::{SOON, named, path, patient, script, told};

#[test]
fn row_17_rule_del() -> Result<()> {
    path("ip rule del from 10.244.1.0/24 lookup 77")
        .falls(&["rule inet 32765"])
        .undone(&[("rule", "32765", "deleted", "request")])
}

#[test]
fn row_17_rule_del_by_priority() -> Result<()> {
    path("ip rule del prio 32764 fwmark 0x1234")
        .falls(&["rule inet 32764"])
        .undone(&[("rule", "32764", "deleted", "request")])
}

#[test]
fn row_17_rule_del_inet6() -> Result<()> {
    path("ip -6 rule del from fd00:244:1::/64")
        .falls(&["rule inet6 32765"])
        .undone(&[("rule", "32765", "deleted", "request")])
}

#[test]
fn row_17_rule_flush_of_a_table() -> Result<()> {
    path("ip rule flush table 78")
        .falls(&["rule inet 32764"])
        .undone(&[("rule", "32764", "deleted", "request")])
}

/// It takes the rules to `main` and `default` too, which are not in scope: they stay away until somebody else
/// brings them back.
#[test]
fn row_17_rule_flush() -> Result<()> {
    let node = Lab::guarded()?;
    let before = node.lab.state()?;
    let guardian = patient(&node.lab)?;
    let path = path("ip rule flush");
    let pid = path.run()?;
    let guarded = |label: &str| label != "rule inet 32766" && label != "rule inet 32767";
    lab::wait_for(
        "the rules in scope",
        SOON,
        || Ok(before.only(guarded) == node.lab.state()?.only(guarded)),
    )?;
    assert!(!node.lab.shows("rule list prio 32766")?, "the guardian touched what is not its own");
    for key in ["32764", "32765"] {
        let event = told(&guardian, "rule", key, "restored")?;
        assert_eq!(event.text("/cause"), "request", "{event}");
        named(&event, pid, &path.argv);
    }
    node.lab.batch("rule add prio 32766 lookup main protocol kernel\nrule add prio 32767 lookup default protocol kernel\n")?;
    node.lab.whole_within(&before, SOON)
}

/// Two rules of one priority come back in the order in which the kernel looks at them.
#[test]
fn rules_of_one_priority_keep_their_order() -> Result<()> {
    path("ip rule flush table 77")
        .after(
            "rule add prio 20000 from 10.244.1.7 lookup 77\n\
             rule add prio 20000 from 10.244.1.0/28 lookup 77\n\
             rule add prio 20000 from 10.244.1.9 lookup 77\n",
        )
        .falls(&["rule inet 20000"])
        .undone(&[("rule", "20000", "deleted", "request")])
}

/// No word of the rule: it stays, and finds no packets while its link is away.
#[test]
fn row_18_a_rule_whose_link_goes() -> Result<()> {
    path("ip link del kube-dummy-if")
        .after("rule add prio 20000 iif kube-dummy-if lookup 77")
        .falls(&["rule inet 20000", "link kube-dummy-if"])
        .undone(&[("link", "kube-dummy-if", "deleted", "request")])
}

#[test]
fn row_19_nexthop_del() -> Result<()> {
    path("ip nexthop del id 17").falls(&["nexthop 17", "nexthop 19", "route inet main 10.244.7.0/24"]).undone(
        &[("nexthop", "17", "deleted", "request"), ("route", "10.244.7.0/24", "deleted", "nexthop_removed")],
    )
}

#[test]
fn row_19_nexthop_del_of_a_group() -> Result<()> {
    path("ip nexthop del id 19").falls(&["nexthop 19", "route inet main 10.244.9.0/24"]).undone(&[
        ("nexthop", "19", "deleted", "request"),
        ("route", "10.244.9.0/24", "deleted", "nexthop_removed"),
    ])
}

#[test]
fn row_19_nexthop_flush() -> Result<()> {
    path("ip nexthop flush proto 17")
        .falls(&["nexthop 17", "nexthop 18", "nexthop 19", "route inet main 10.244.8.0/24"])
        .within(super::AFTER_A_FIGHT)
        .undone(&[
            ("nexthop", "17", "deleted", "request"),
            ("route", "10.244.8.0/24", "deleted", "nexthop_removed"),
        ])
}

/// With `nexthop_compat_mode` 0 the routes of IPv6 go in silence as those of IPv4 do.
#[test]
fn row_19_nexthop_del_without_a_word_of_routes() -> Result<()> {
    script("echo 0 >/proc/sys/net/ipv4/nexthop_compat_mode; exec ip nexthop del id 27")
        .after(
            "nexthop add id 27 via fd00:10::11 dev eth0 proto 17\n\
             route add fd00:244:7::/64 nhid 27 proto 17",
        )
        .falls(&["nexthop 27", "route inet6 main fd00:244:7::/64"])
        .happens()?;
    let node = Lab::guarded()?;
    node.lab.batch(
        "nexthop add id 27 via fd00:10::11 dev eth0 proto 17\n\
         route add fd00:244:7::/64 nhid 27 proto 17\n",
    )?;
    node.lab.sysctl("net/ipv4/nexthop_compat_mode", "0")?;
    let before = node.lab.state()?;
    let guardian = patient(&node.lab)?;
    let path = path("ip nexthop del id 27");
    let pid = path.run()?;
    node.lab.whole_within(&before, SOON)?;
    let event = told(&guardian, "route", "fd00:244:7::/64", "restored")?;
    assert_eq!(event.text("/cause"), "nexthop_removed", "{event}");
    named(&event, pid, &path.argv);
    Ok(())
}

#[test]
fn row_20_nexthop_replace() -> Result<()> {
    path("ip nexthop replace id 18 via 10.0.0.66 dev eth0 proto 17")
        .falls(&["nexthop 18"])
        .undone(&[("nexthop", "18", "replaced", "replace")])
}

#[test]
fn row_20_nexthop_replace_without_a_word_of_routes() -> Result<()> {
    let node = Lab::guarded()?;
    node.lab.sysctl("net/ipv4/nexthop_compat_mode", "0")?;
    let before = node.lab.state()?;
    let guardian = patient(&node.lab)?;
    let path = path("ip nexthop replace id 18 via 10.0.0.66 dev eth0 proto 17");
    let pid = path.run()?;
    node.lab.whole_within(&before, SOON)?;
    let event = told(&guardian, "nexthop", "18", "restored")?;
    named(&event, pid, &path.argv);
    Ok(())
}

/// The kernel removes nexthop objects of a link that goes down without a word.
#[test]
fn row_21_the_link_of_a_nexthop_down() -> Result<()> {
    path("ip link set tun-ab704e21df6 down")
        .falls(&["nexthop 17", "nexthop 19", "route inet main 10.244.7.0/24"])
        .undone(&[
            ("link", TUNNEL, "down", "request"),
            ("nexthop", "17", "deleted", "link_down"),
            ("route", "10.244.7.0/24", "deleted", "link_down"),
        ])
}
