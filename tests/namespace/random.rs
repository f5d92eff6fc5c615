//! Whatever foreigners do, in whatever order: the scope is whole soon after, and nothing else is touched.

use std::{collections::BTreeMap, fmt, path::Path, thread, time::Duration};

use anyhow::Result;
use lab::{Guardian, Lab, PORTS, TUNNEL};
use proptest::{
    collection::vec,
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, TestCaseError, TestRunner},
};

const SOON: Duration = Duration::from_secs(2);

/// What a foreigner does.
#[derive(Clone)]
enum Deed {
    /// To what is in scope: a line for `ip`.
    Harm(String),
    /// To a route that is not: another gateway, or none.
    Own(u8, Option<u8>),
    /// Nothing, for so many milliseconds.
    Rest(u64),
}

/// A line each, as there are 200 to read.
impl fmt::Debug for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Harm(line) => f.write_str(line),
            Self::Own(n, Some(host)) => write!(f, "route replace 192.0.2.{n} via 10.0.0.{host}"),
            Self::Own(n, None) => write!(f, "route del 192.0.2.{n}"),
            Self::Rest(ms) => write!(f, "rest {ms} ms"),
        }
    }
}

fn routes() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "10.244.2.0/24".into(),
        "10.244.3.0/24".into(),
        "10.244.7.0/24".into(),
        "10.244.8.0/24".into(),
        "10.244.9.0/24".into(),
        "10.1.0.12/32 table 77".into(),
        "fd00:244:2::/64".into(),
        "fd00:244:3::/64".into(),
        "fd00:1::12/128 table 77".into(),
        "local default table 78".into(),
        String::from("local 10.96.0.1 dev kube-dummy-if table local"),
    ])
}

fn links() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![TUNNEL, "kube-bridge", "kube-dummy-if"])
}

fn harm() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => routes().prop_map(|route| format!("route del {route}")),
        2 => (0..2_usize, 60..70_u8).prop_map(|(n, host)| {
            let dst = ["10.244.2.0/24", "10.244.3.0/24"][n];
            format!("route replace {dst} via 10.0.0.{host} proto 17")
        }),
        1 => (60..70_u8).prop_map(|host| {
            format!("route replace fd00:244:2::/64 via fd00:10::{host} proto 17")
        }),
        2 => prop::sample::select(vec![
            "rule del from 10.244.1.0/24 lookup 77",
            "rule del prio 32764 fwmark 0x1234 lookup 78",
            "rule del prio 32765 lookup 79",
        ]).prop_map(Into::into),
        2 => prop::sample::select(vec![
            "addr del 10.244.1.1/24 dev kube-bridge",
            "addr del fd00:244:1::1/64 dev kube-bridge",
            "addr del 10.96.0.1/32 dev kube-dummy-if",
            "addr del 10.96.0.10/32 dev kube-dummy-if",
            "addr del fd00:96::1/128 dev kube-dummy-if",
        ]).prop_map(Into::into),
        1 => (17..20_u8).prop_map(|id| format!("nexthop del id {id}")),
        1 => Just("nexthop replace id 18 via 10.0.0.66 dev eth0 proto 17".into()),
        2 => links().prop_map(|link| format!("link set {link} down")),
        1 => links().prop_map(|link| format!("link del {link}")),
        1 => links().prop_map(|link| format!("link set {link} name was-{}", &link[..4])),
        1 => (links(), 1000..1400_u16).prop_map(|(link, mtu)| format!("link set {link} mtu {mtu}")),
        1 => (0..2_usize).prop_map(|n| format!("link set {} nomaster", PORTS[n])),
    ]
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        12 => harm().prop_map(Deed::Harm),
        3 => (0..8_u8, prop::option::of(20..30_u8)).prop_map(|(n, host)| Deed::Own(n, host)),
        2 => (1..8_u64).prop_map(Deed::Rest),
    ];
    vec(deed, 200)
}

/// What the guardian knows of it, for a failure's text: what it misses itself, and its records.
fn told(guardian: &Guardian) -> Result<String> {
    let missing = String::from_utf8(guardian.ask("diff")?.stdout)?;
    let records: Vec<_> = guardian.events()?.iter().map(ToString::to_string).collect();
    Ok(format!(
        "the guardian's own diff:\n{missing}\nits records:\n{}\n{}",
        records.join("\n"),
        guardian.log()
    ))
}

/// Does it all, and says what is wrong afterwards.
fn endured(deeds: &[Deed]) -> Result<()> {
    let node = Lab::guarded()?;
    let lab = &node.lab;
    // Out of scope: what nobody touches, and what foreigners change for their own reasons.
    lab.batch(
        "link add other type bridge\nlink set other up\naddr add 172.16.0.1/24 dev other\n\
         route add 172.17.0.0/16 dev other\nrule add prio 100 from 172.16.0.0/16 lookup 100\n\
         route add default via 10.0.0.1 table 100\n",
    )?;
    let before = lab.state()?;
    let guardian = lab.guardian().set("damping.burst", "100000").start()?;
    let mut foreigner = lab.actor(Path::new("ip"))?;
    let mut own = BTreeMap::new();
    for deed in deeds {
        match deed {
            Deed::Harm(line) => foreigner.say(line)?,
            // Of no protocol: `ip -batch` takes a named one for the number of the line before (`rtnl_rtprot_a2n`
            // compares with a buffer that has changed since).
            Deed::Own(n, Some(host)) => {
                foreigner.say(&format!("route replace 192.0.2.{n} via 10.0.0.{host}"))?;
                own.insert(*n, *host);
            }
            Deed::Own(n, None) => {
                foreigner.say(&format!("route del 192.0.2.{n}"))?;
                own.remove(n);
            }
            Deed::Rest(ms) => thread::sleep(Duration::from_millis(*ms)),
        }
    }
    foreigner.finish()?;
    let not_own = |label: &str| !label.starts_with("route inet main 192.0.2.");
    let mut diff = String::new();
    let whole = lab::wait_for("the scope to be whole", SOON, || {
        diff = before.diff(&lab.state()?.only(not_own));
        Ok(diff.is_empty())
    });
    if whole.is_err() {
        anyhow::bail!("after {SOON:?}:\n{diff}\n{}", told(&guardian)?);
    }
    let now = lab.state()?;
    for n in 0..8 {
        let is = now.get(&format!("route inet main 192.0.2.{n}")).map(|route| route["gateway"].clone());
        let should = own.get(&n).map(|host| format!("10.0.0.{host}").into());
        anyhow::ensure!(
            is == should,
            "192.0.2.{n} by {is:?} instead of {should:?}: out of scope, and touched"
        );
    }
    let lost = guardian.metrics()?.sum("events_lost_total", &[]);
    anyhow::ensure!(lost == Some(0.0), "lost {lost:?}");
    Ok(())
}

#[test]
fn any_200_deeds_are_undone() -> Result<()> {
    // Shrinking would tell little: what fails is a race, and fails again only now and then.
    let config = Config { cases: 4, max_shrink_iters: 0, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&deeds(), |deeds| endured(&deeds).map_err(|error| TestCaseError::fail(format!("{error:#}"))))
        .map_err(|error| anyhow::anyhow!("{error}"))
}

/// Without a guardian, such deeds leave little whole.
#[test]
fn deeds_do_harm() -> Result<()> {
    let node = Lab::guarded()?;
    let before = node.lab.state()?;
    let mut foreigner = node.lab.actor(Path::new("ip"))?;
    let mut runner = TestRunner::deterministic();
    let tree = deeds().new_tree(&mut runner).map_err(|reason| anyhow::anyhow!("{reason}"))?;
    for deed in tree.current() {
        if let Deed::Harm(line) = deed {
            foreigner.say(&line)?;
        }
    }
    foreigner.finish()?;
    let lines = node.lab.changed(&before)?.lines().filter(|line| line.starts_with("- ")).count();
    assert!(lines > 20, "{lines} lines");
    Ok(())
}
