//! Many short-lived processes at once.

use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use lab::{Lab, PEER, wait_for};

use super::{run, taker};

const PROCESSES: usize = 5_000;
const EACH: usize = 10;

/// 50,000 deletions by 5,000 processes that are gone before they are asked about: each is recorded, with exactly
/// who did it, in bounded memory.
#[test]
fn fifty_thousand_deletions_by_five_thousand_processes() -> Result<()> {
    let lab = Lab::node()?;
    let mut batch = String::new();
    for n in 0..(PROCESSES * EACH) as u32 {
        let dst = std::net::Ipv4Addr::from(0x6440_0000 + (n << 8));
        let _ = writeln!(batch, "route add {dst}/24 via {PEER} proto 17");
    }
    lab.batch(&batch)?;
    let guardian = lab.guardian().args("--mode observe").set("state.journal_max", "\"1GiB\"").start()?;
    let before = guardian.resident_kib()?;
    let begin = Instant::now();
    run(Command::new(taker()).arg("storm"))?;
    let took = begin.elapsed();
    wait_for("all records", Duration::from_secs(60), || {
        let metrics = guardian.metrics()?;
        Ok(metrics.sum("actor_deletions_total", &[]) >= Some((PROCESSES * EACH) as f64))
    })
    .with_context(|| guardian.metrics().map(|metrics| metrics.0).unwrap_or_default())?;
    let after = guardian.resident_kib()?;
    let metrics = guardian.metrics()?;
    assert_eq!(metrics.sum("events_lost_total", &[]), Some(0.0), "{}", metrics.0);

    let mut keys = HashSet::new();
    let mut actors: HashMap<(u64, u64), usize> = HashMap::new();
    // `events` serves the last few thousand; the journal has all, in one file under this bound.
    let path = guardian.state().join("events.jsonl");
    let mut written = 0;
    wait_for("the journal", Duration::from_secs(20), || {
        let now = fs::metadata(&path)?.len();
        let quiet = now > 0 && now == std::mem::replace(&mut written, now);
        thread::sleep(Duration::from_millis(if quiet { 0 } else { 300 }));
        Ok(quiet)
    })?;
    let journal = File::open(path)?;
    for line in BufReader::new(journal).lines() {
        let event = lab::Event(serde_json::from_str(&line?)?);
        assert_eq!(event.text("/actor/confidence"), "exact", "{event}");
        assert_eq!(event.text("/actor/exe"), taker().to_string_lossy(), "{event}");
        let argv = event.argv();
        let address = event.key().strip_suffix("/24").context("not a /24")?;
        assert!(argv.get(1) == Some(&"plain") && argv.contains(&address), "another one did it: {event}");
        let run = (event.number("/actor/pid"), event.number("/actor/start_ns"));
        let (Some(pid), Some(start)) = run else { panic!("{event}") };
        *actors.entry((pid, start)).or_default() += 1;
        keys.insert(event.key().to_owned());
    }
    println!(
        "{} deletions in {took:?}; resident {before} KiB before, {after} KiB after; {} records kept",
        PROCESSES * EACH,
        keys.len()
    );
    assert_eq!(keys.len(), PROCESSES * EACH);
    assert_eq!(actors.len(), PROCESSES);
    assert!(actors.values().all(|&count| count == EACH));
    assert!(after < before + 64 * 1024, "from {before} KiB to {after} KiB");
    Ok(())
}
