//! Routes of every shape come back exactly as they were.

use std::time::Duration;

use anyhow::Result;
use lab::{Lab, wait_for};

/// What `ip route` knows each by, and what else it is added with.
const SHAPES: &[(&str, &str)] = &[
    // IPv4: gateway, scope, preferred source, metric, tos, tables, protocols, types.
    ("10.60.1.0/24", "via 10.0.0.11 proto 17"),
    ("10.60.2.0/24", "dev {TUNNEL} scope link proto 17"),
    ("10.60.3.0/24", "dev {TUNNEL} scope global src 10.0.0.10 proto 17"),
    ("10.60.4.0/24 metric 77", "via 10.0.0.11 proto 17"),
    ("10.60.5.0/24 tos 0x10", "via 10.0.0.11 proto 17"),
    ("10.60.6.0/24 table 77", "via 10.0.0.11 proto boot"),
    ("10.60.7.0/24 table 1000", "via 10.0.0.11 proto 17"),
    ("10.60.8.0/24", "dev kube-bridge proto bird"),
    ("10.60.9.0/24", "dev kube-bridge proto 200 scope link"),
    ("blackhole 10.60.10.0/24", "proto 17"),
    ("unreachable 10.60.11.0/24", "proto 17"),
    ("prohibit 10.60.12.0/24", "proto 17"),
    ("throw 10.60.13.0/24 table 78", "proto 17"),
    ("local 10.60.14.1/32 table local", "dev kube-dummy-if proto kernel scope host src 10.0.0.10"),
    ("10.60.15.1/32", "via 10.0.0.11 proto 17"),
    // Flags and metrics.
    ("10.60.20.0/24", "via 172.31.0.1 dev eth0 onlink proto 17"),
    ("10.60.21.0/24", "via 10.0.0.11 mtu 1400 proto 17"),
    ("10.60.22.0/24", "via 10.0.0.11 mtu lock 1300 advmss 1200 proto 17"),
    ("10.60.23.0/24", "via 10.0.0.11 initcwnd 20 initrwnd 30 rto_min 50ms quickack 1 proto 17"),
    ("10.60.24.0/24", "via 10.0.0.11 hoplimit 33 window 60000 reordering 5 proto 17"),
    ("10.60.25.0/24", "via 10.0.0.11 congctl reno proto 17"),
    ("10.60.26.0/24", "via 10.0.0.11 features ecn proto 17"),
    ("10.60.27.0/24", "via 10.0.0.11 realm 5/7 proto 17"),
    // An IPv6 gateway for IPv4.
    ("10.60.28.0/24", "via inet6 fd00:10::11 dev eth0 proto 17"),
    // Several ways.
    ("10.60.30.0/24", "proto 17 nexthop via 10.0.0.11 weight 1 nexthop via 10.0.0.12 weight 5"),
    ("10.60.31.0/24", "proto 17 nexthop via 10.0.0.11 weight 256 nexthop dev {TUNNEL} weight 2"),
    (
        "10.60.32.0/24",
        "proto 17 mtu 1350 nexthop via 172.31.0.9 dev eth0 onlink weight 3 nexthop via 10.0.0.12",
    ),
    ("10.60.33.0/24", "proto 17 nexthop via inet6 fd00:10::11 dev eth0 nexthop via 10.0.0.12 dev eth0"),
    ("10.60.34.0/24", "proto 17 {LEGS}"),
    // Encapsulation, and nexthop objects. No options of an encapsulation (`geneve_opts` and the like): there are
    // kernels (6.18 with FORTIFY_SOURCE) that die of parsing them, with the lock of all network configuration held.
    ("10.60.40.0/24", "encap ip id 42 dst 10.9.9.9 ttl 9 dev {TUNNEL} proto 17"),
    ("10.60.41.0/24", "nhid 60 proto 17"),
    ("10.60.42.0/24", "nhid 62 proto 17"),
    // IPv6.
    ("fd00:60:1::/64", "via fd00:10::11 proto 17"),
    ("fd00:60:2::/64", "dev {TUNNEL} proto 17"),
    ("fd00:60:3::/64 metric 77", "via fd00:10::11 proto 17"),
    ("fd00:60:4::/64 table 1000", "via fd00:10::11 proto 17"),
    ("fd00:60:5::/64", "via fd00:10::11 src fd00:10::10 proto 17"),
    ("fd00:60:6::1/128", "via fd00:10::11 mtu 1400 hoplimit 20 proto 17"),
    ("fd00:60:7::/64", "via fd00:10::11 pref high proto 17"),
    ("blackhole fd00:60:8::/64", "proto 17"),
    ("unreachable fd00:60:9::/64", "proto 17"),
    ("fd00:60:a::/64", "via fd00:99::1 dev eth0 onlink proto 17"),
    ("fd00:60:b::/64", "proto 17 nexthop via fd00:10::11 weight 1 nexthop via fd00:10::12 weight 5"),
    ("fd00:60:c::/64 from fd00:244:9::/64", "via fd00:10::11 proto 17"),
    ("fd00:60:d::/64", "encap ip6 id 42 dst fd00::9 dev {TUNNEL} proto 17"),
    ("fd00:60:e::/64", "nhid 61 proto 17"),
    ("fd00:60:f::/64 table 77", "via fd00:10::11 proto static"),
];

/// What the kernel of this machine may have been built without: encapsulations.
const OPTIONAL: &[&str] = &["encap ip ", "encap ip6 "];

/// The words for `ip route add`.
fn words((key, rest): (&str, &str)) -> String {
    let legs: Vec<_> = (1..=64).map(|n| format!("nexthop via 10.0.0.{} weight {n}", 100 + n)).collect();
    format!("{key} {rest}").replace("{TUNNEL}", lab::TUNNEL).replace("{LEGS}", &legs.join(" "))
}

fn lab_with_shapes() -> Result<(Lab, Vec<&'static str>)> {
    let lab = Lab::node()?;
    lab.batch(
        "nexthop add id 60 via 10.0.0.11 dev eth0\n\
         nexthop add id 61 via fd00:10::11 dev eth0\n\
         nexthop add id 63 via 10.0.0.12 dev eth0\n\
         nexthop add id 62 group 60,3/63,7\n",
    )?;
    let mut keys = Vec::new();
    for &shape in SHAPES {
        match lab.ip(&format!("route add {}", words(shape))) {
            Ok(_) => keys.push(shape.0),
            Err(error) if OPTIONAL.iter().any(|o| shape.1.contains(o)) => {
                eprintln!("not on this kernel: {error}");
            }
            Err(error) => return Err(error),
        }
    }
    Ok((lab, keys))
}

/// One at a time, so that a failure names its shape.
#[test]
fn each_comes_back_byte_for_byte() -> Result<()> {
    let (lab, keys) = lab_with_shapes()?;
    let guardian = lab.guardian().start()?;
    let (before, text) = (lab.routes()?, lab.routes_text()?);
    let mut failed = Vec::new();
    for key in keys {
        lab.ip(&format!("route del {key}"))?;
        if wait_for(key, Duration::from_secs(2), || Ok(lab.routes()? == before)).is_err() {
            let now = lab.routes_text()?;
            let lines = |from: &str, not_in: &str| -> String {
                from.lines().filter(|l| !not_in.contains(l)).collect::<Vec<_>>().join("\n  ")
            };
            failed.push(format!("{key}\n  was {}\n  is  {}", lines(&text, &now), lines(&now, &text)));
            break;
        }
        guardian
            .event(key, |e| e.outcome() == "restored" && key.contains(e.key().trim_end_matches("/32")))?;
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    let metrics = guardian.metrics()?;
    assert_eq!(metrics.sum("events_lost_total", &[]), Some(0.0), "{}", metrics.0);
    Ok(())
}

/// All in one batch, deleted faster than they come back.
#[test]
fn all_at_once_come_back_byte_for_byte() -> Result<()> {
    let (lab, keys) = lab_with_shapes()?;
    let _guardian = lab.guardian().start()?;
    let (before, text) = (lab.routes()?, lab.routes_text()?);
    lab.batch(&keys.iter().fold(String::new(), |batch, key| batch + "route del " + key + "\n"))?;
    let back = wait_for("all routes", Duration::from_secs(5), || Ok(lab.routes()? == before));
    assert!(back.is_ok(), "before:\n{text}\nnow:\n{}", lab.routes_text()?);
    Ok(())
}

/// Without a guardian: the shapes are routes that this kernel takes, and the keys take exactly them away.
#[test]
fn the_shapes_are_added_and_deleted() -> Result<()> {
    let lab = Lab::node()?;
    let bare = lab.routes()?;
    drop(lab);
    let (lab, keys) = lab_with_shapes()?;
    assert_eq!(lab.routes()?.len(), bare.len() + keys.len());
    for key in &keys {
        lab.ip(&format!("route del {key}"))?;
    }
    assert_eq!(lab.routes()?.len(), bare.len());
    Ok(())
}
