//! Many short-lived processes at once.

use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    net::Ipv4Addr,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lab::{Event, Guardian, Lab, PEER, slowness, wait_for};

use super::taker;

/// 50,000 deletions by 5,000 processes, one after the other; fewer on a slow machine, as everywhere here.
#[test]
fn fifty_thousand_deletions_by_five_thousand_processes() -> Result<()> {
    storm(5_000 / slowness() as usize, 10, 1)
}

/// Six at once: the CPUs are busy with starting processes and nothing else.
#[test]
fn six_thousand_processes_six_at_once() -> Result<()> {
    storm(6_000 / slowness() as usize, 1, 6)
}

/// Processes that execute nothing, as many as two CPUs can start: some thousands a second where these are fast. The
/// pid of each is compared.
#[test]
fn thousands_of_processes_a_second() -> Result<()> {
    let processes = 5_000 / slowness() as usize;
    let (lab, guardian) = watched(processes)?;
    let said = lab.dir().join("who");
    let begin = Instant::now();
    let status = Command::new(taker())
        .args(["forks", &processes.to_string()])
        .stdout(File::create(&said)?)
        .status()?;
    ensure!(status.success(), "{status}");
    let took = begin.elapsed();
    println!("{:.0} processes a second", processes as f64 / took.as_secs_f64());
    let mut who = HashMap::new();
    for line in fs::read_to_string(&said)?.lines() {
        let (pid, address) = line.split_once(' ').context("no pid")?;
        who.insert(format!("{address}/24"), pid.parse::<u64>()?);
    }
    assert_eq!(who.len(), processes);
    let mut seen = HashSet::new();
    for event in records(&guardian, processes)? {
        assert_eq!(event.text("/actor/confidence"), "exact", "{event}");
        assert_eq!(event.text("/actor/exe"), taker().to_string_lossy(), "{event}");
        assert_eq!(event.number("/actor/pid"), who.get(event.key()).copied(), "another one did it: {event}");
        seen.insert(event.key().to_owned());
    }
    assert_eq!(seen.len(), processes);
    Ok(())
}

/// A node with so many routes, under a guardian that touches nothing and keeps every record.
fn watched(routes: usize) -> Result<(Lab, Guardian)> {
    let lab = Lab::node()?;
    let mut batch = String::new();
    for n in 0..routes as u32 {
        let dst = Ipv4Addr::from(0x6440_0000 + (n << 8));
        let _ = writeln!(batch, "route add {dst}/24 via {PEER} proto 17");
    }
    lab.batch(&batch)?;
    let guardian = lab.guardian().args("--mode observe").set("state.journal_max", "\"1GiB\"").start()?;
    Ok((lab, guardian))
}

/// Its records, once it has told of so many deletions and lost none.
fn records(guardian: &Guardian, deletions: usize) -> Result<Vec<Event>> {
    wait_for("all records", Duration::from_secs(60), || {
        let metrics = guardian.metrics()?;
        Ok(metrics.sum("actor_deletions_total", &[]) >= Some(deletions as f64))
    })
    .with_context(|| guardian.metrics().map(|metrics| metrics.0).unwrap_or_default())?;
    let metrics = guardian.metrics()?;
    assert_eq!(metrics.sum("events_lost_total", &[]), Some(0.0), "{}", metrics.0);
    // `events` serves the last few thousand; the journal has all, in one file under this bound.
    let path = guardian.state().join("events.jsonl");
    let mut written = 0;
    wait_for("the journal", Duration::from_secs(20), || {
        let now = fs::metadata(&path)?.len();
        let quiet = now > 0 && now == std::mem::replace(&mut written, now);
        thread::sleep(Duration::from_millis(if quiet { 0 } else { 300 }));
        Ok(quiet)
    })?;
    let lines = BufReader::new(File::open(path)?).lines();
    lines.map(|line| Ok(Event(serde_json::from_str(&line?)?))).collect()
}

/// Deletions by processes that are gone before they are asked about, `together` of them at once: each deletion is
/// recorded, with exactly who did it, in bounded memory.
fn storm(processes: usize, each: usize, together: usize) -> Result<()> {
    let (_lab, guardian) = watched(processes * each)?;
    let before = guardian.resident_kib()?;
    let begin = Instant::now();
    let numbers = [processes, each, together].map(|number| number.to_string());
    let status = Command::new(taker()).arg("storm").args(numbers).status()?;
    ensure!(status.success(), "{status}");
    let took = begin.elapsed();
    let records = records(&guardian, processes * each)?;
    let after = guardian.resident_kib()?;
    let mut keys = HashSet::new();
    let mut actors: HashMap<(u64, u64), usize> = HashMap::new();
    for event in records {
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
        "{} deletions in {took:?}, {:.0} processes a second; resident {before} KiB before, {after} KiB after; {} records kept",
        processes * each,
        processes as f64 / took.as_secs_f64(),
        keys.len()
    );
    assert_eq!(keys.len(), processes * each);
    assert_eq!(actors.len(), processes);
    assert!(actors.values().all(|&count| count == each));
    assert!(after < before + 64 * 1024, "from {before} KiB to {after} KiB");
    Ok(())
}
