//! Ten thousand operations in and out of scope, in observe mode: what the guardian thinks is there is there.

use std::{collections::BTreeSet, fmt::Write as _, path::Path, time::Duration};

use anyhow::{Context, Result};
use lab::{Guardian, Lab, State, wait_for};
use serde_json::Value;

const OPERATIONS: u32 = 10_000;

/// Marsaglia's xorshift: the same numbers every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// A line for `ip -batch`. Half of what it asks for is refused, as there is or is not such a thing.
fn operation(dice: &mut Dice) -> String {
    let n = dice.below(24);
    let gateway = 11 + dice.below(40);
    let verb = ["add", "replace", "del", "append", "change"][dice.below(5) as usize];
    let add_or_del = ["add", "del"][dice.below(2) as usize];
    let proto = ["17", "static"][dice.below(2) as usize];
    let metric = ["", " metric 7", " metric 9"][dice.below(3) as usize];
    match dice.below(100) {
        0..40 => {
            let rest = if verb == "del" {
                metric.into()
            } else {
                format!(" via 10.0.0.{gateway} proto {proto}{metric}")
            };
            format!("route {verb} 10.100.{n}.0/24{rest}")
        }
        40..55 => {
            // No `append`: for IPv6 it makes several ways of one route.
            let verb = if verb == "append" { "replace" } else { verb };
            let rest = if verb == "del" {
                metric.into()
            } else {
                format!(" via fd00:10::{gateway} proto {proto}{metric}")
            };
            format!("route {verb} fd00:100:{n}::/64{rest}")
        }
        55..65 => {
            let table = [77, 78, 100][dice.below(3) as usize];
            format!("route {verb} 10.101.{n}.0/24 dev kube-bridge table {table}{metric}")
        }
        65..75 => {
            let link = ["kube-dummy-if", "kube-bridge", "other"][dice.below(3) as usize];
            format!("addr {add_or_del} 10.102.{n}.1/32 dev {link}")
        }
        75..80 => format!("addr {add_or_del} fd00:102:{n}::1/128 dev kube-dummy-if"),
        80..88 => {
            let table = [77, 79, 100][dice.below(3) as usize];
            format!("rule {add_or_del} prio {} from 10.103.{n}.0/24 lookup {table}", 20_000 + n)
        }
        88..92 => match add_or_del {
            "add" => format!("nexthop add id {} dev kube-bridge proto 17", 100 + n),
            _ => format!("nexthop del id {}", 100 + n),
        },
        92..94 => format!("route {verb} 10.104.{n}.0/24 nhid {} proto 17", 100 + n),
        94..97 => {
            let way = ["up", "down"][dice.below(2) as usize];
            format!("link set {} {way}", ["kube-dummy-if", "other", "kube-bridge"][dice.below(3) as usize])
        }
        97 => format!("link set tun-{} mtu {}", n % 4, 1300 + n),
        _ => match add_or_del {
            "add" => format!("link add tun-{0} type bridge", n % 4),
            _ => format!("link del tun-{}", n % 4),
        },
    }
}

/// An object of either side: kind, family, key, and table and metric where it has such.
type Known = (String, String, String, String);

fn guarded_link(name: &str) -> bool {
    name == "kube-bridge" || name == "kube-dummy-if" || name.starts_with("tun-")
}

fn field(value: &Value, name: &str) -> String {
    match value.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

/// What is in scope in the kernel.
fn in_kernel(state: &State) -> BTreeSet<Known> {
    let mut known = BTreeSet::new();
    for label in state.labels() {
        let words: Vec<&str> = label.split(' ').collect();
        match words[..] {
            ["link", name] if guarded_link(name) => {
                known.insert(("link".into(), String::new(), name.into(), String::new()));
            }
            ["address", link, key] if guarded_link(link) => {
                let family = if key.contains(':') { "inet6" } else { "inet" };
                known.insert(("address".into(), family.into(), key.into(), String::new()));
            }
            ["nexthop", id] => {
                known.insert(("nexthop".into(), String::new(), id.into(), String::new()));
            }
            _ => {}
        }
    }
    for (label, value) in state.objects() {
        let family = label.split(' ').nth(1).unwrap_or_default();
        if label.starts_with("rule ") && ["77", "78", "79"].contains(&field(value, "table").as_str()) {
            let key = ("rule".into(), family.into(), field(value, "priority"), field(value, "table"));
            known.insert(key);
        }
        if label.starts_with("route ") && guarded_route(family, value) {
            let host = if family == "inet" { 32 } else { 128 };
            let dst = match field(value, "dst") {
                all if all == "default" => if family == "inet" { "0.0.0.0/0" } else { "::/0" }.into(),
                dst if dst.contains('/') => dst,
                dst => format!("{dst}/{host}"),
            };
            let table = match field(value, "table").as_str() {
                "" | "main" => "254".into(),
                "local" => "255".into(),
                other => String::from(other),
            };
            let metric = field(value, "metric");
            known.insert(("route".into(), family.into(), dst, format!("{table} {}", metric_of(&metric))));
        }
    }
    known
}

fn metric_of(text: &str) -> &str {
    if text.is_empty() { "0" } else { text }
}

fn guarded_route(family: &str, route: &Value) -> bool {
    let of_an_address = family == "inet6"
        && field(route, "protocol") == "kernel"
        && ["local", "anycast"].contains(&field(route, "type").as_str());
    !of_an_address
        && (guarded_link(&field(route, "dev"))
            || field(route, "protocol") == "17"
            || ["77", "78", "79"].contains(&field(route, "table").as_str()))
}

/// What the guardian says is there, but for ports.
fn in_mirror(guardian: &Guardian) -> Result<BTreeSet<Known>> {
    let answer: Value = serde_json::from_str(&guardian.answer("snapshot --observed -o json")?)?;
    let objects = answer.get("objects").and_then(Value::as_array).context("no objects")?;
    let mut known = BTreeSet::new();
    for object in objects {
        let (kind, key, text) = (field(object, "kind"), field(object, "key"), field(object, "text"));
        let family = match field(object, "family") {
            family if family == "null" => String::new(),
            family => family,
        };
        let table = field(object, "table");
        let rest = match kind.as_str() {
            "route" => {
                let metric = text.split(" metric ").nth(1).and_then(|rest| rest.split(' ').next());
                format!("{table} {}", metric.unwrap_or("0"))
            }
            "rule" => table,
            "link" if !guarded_link(&key) => continue,
            _ => String::new(),
        };
        known.insert((kind, family, key, rest));
    }
    Ok(known)
}

#[test]
fn the_mirror_is_the_kernel() -> Result<()> {
    let node = Lab::guarded()?;
    let lab = &node.lab;
    lab.batch("link add other type bridge\nlink set other up\n")?;
    let guardian = lab.guardian().args("--mode observe").start()?;
    let mut foreigner = lab.actor(Path::new("ip"))?;
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for _ in 0..OPERATIONS / 100 {
        let lines = (0..100).fold(String::new(), |mut lines, _| {
            let _ = writeln!(lines, "{}", operation(&mut dice));
            lines
        });
        foreigner.say(&lines)?;
    }
    foreigner.finish()?;
    let kernel = in_kernel(&lab.state()?);
    assert!(kernel.len() > 50, "too little is left to say anything: {kernel:?}");
    let mut mirror = BTreeSet::new();
    let same = wait_for("the mirror to be the kernel", Duration::from_secs(5), || {
        mirror = in_mirror(&guardian)?;
        Ok(mirror == kernel)
    });
    let (missing, extra): (Vec<_>, Vec<_>) =
        (kernel.difference(&mirror).collect(), mirror.difference(&kernel).collect());
    assert!(same.is_ok(), "{same:?}; not in the mirror: {missing:#?}\nonly in the mirror: {extra:#?}");
    let metrics = guardian.metrics()?;
    assert_eq!(metrics.sum("events_lost_total", &[]), Some(0.0), "{}", metrics.0);
    assert_eq!(metrics.sum("restores_total", &["outcome=\"restored\""]), Some(0.0), "{}", metrics.0);
    Ok(())
}
