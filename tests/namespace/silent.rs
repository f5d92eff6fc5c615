//! IPv4 routes that the kernel flushes without a message, with their link: each is told once, by whom, and is back.
//!
//! Where the kernel takes hooks on its FIB (sensor `fib`) they are told one by one as they fall; elsewhere they are found
//! by reading the tables again. What is told is the same.

use std::{collections::BTreeMap, fmt::Write as _, fs, time::Duration};

use anyhow::{Context as _, Result};
use lab::{Event, Lab, TUNNEL, wait_for};

const ROUTES: u32 = 10_000;

#[test]
fn ten_thousand_routes_that_fall_with_their_link_are_told_once_each() -> Result<()> {
    let lab = Lab::node()?;
    let key = |n: u32| format!("10.{}.{}.0/24", 100 + n / 256, n % 256);
    let mut batch = String::new();
    for n in 0..ROUTES {
        let _ = writeln!(batch, "route add {} dev {TUNNEL} proto 17", key(n));
    }
    lab.batch(&batch)?;
    let guardian = lab.guardian().start()?;
    let status = guardian.answer("status")?;
    println!("{}", status.lines().find(|line| line.contains("Sensors:")).unwrap_or_default());
    let before = lab.routes()?;
    lab.ip(&format!("link set {TUNNEL} down"))?;
    wait_for("all routes", Duration::from_secs(60), || Ok(lab.routes()? == before))?;
    wait_for("all records", Duration::from_secs(60), || {
        Ok(guardian.metrics()?.sum("missing_objects", &[]) == Some(0.0))
    })?;
    // Each in its last state; more than one answer of the daemon holds.
    let (state, metrics) = (guardian.state().to_owned(), guardian.metrics()?);
    guardian.stop()?;
    let journal = |n: u32| match n {
        0 => fs::read_to_string(state.join("events.jsonl")),
        n => fs::read_to_string(state.join(format!("events.{n}.jsonl"))),
    };
    let files: Vec<String> = (0..).map_while(|n| journal(n).ok()).collect();
    let mut events: BTreeMap<String, Event> = BTreeMap::new();
    for line in files.iter().rev().flat_map(|text| text.lines()) {
        let event = Event(serde_json::from_str(line).with_context(|| format!("not a record: {line}"))?);
        events.insert(event.id().to_owned(), event);
    }
    let mut told: BTreeMap<&str, u32> = BTreeMap::new();
    for event in events.values().filter(|event| event.text("/object/family") == "inet") {
        *told.entry(event.key()).or_default() += 1;
        assert_eq!(event.text("/change"), "deleted", "{event}");
        assert_eq!(event.text("/cause"), "link_down", "{event}");
        assert_eq!((event.text("/verdict"), event.outcome()), ("foreign", "restored"), "{event}");
        assert_eq!(event.text("/actor/confidence"), "exact", "{event}");
        assert_eq!(event.argv(), ["ip", "link", "set", TUNNEL, "down"], "{event}");
    }
    for n in 0..ROUTES {
        assert_eq!(told.get(&*key(n)), Some(&1), "{}", key(n));
    }
    assert_eq!(metrics.sum("events_lost_total", &[]), Some(0.0), "{}", metrics.0);
    Ok(())
}
