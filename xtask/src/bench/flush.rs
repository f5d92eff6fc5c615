//! How long many routes deleted at once take to come back, beside what adding them took.

use std::{
    fmt::Write as _,
    fs,
    net::Ipv4Addr,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lab::{Lab, netlink};
use serde_json::json;

use super::{Output, figures::Figures, machine, progress, text};
use crate::contained;

/// What does not come back within this has not worked.
const LIMIT: Duration = Duration::from_secs(120);

/// Of so many routes one is asked for.
const SAMPLE: usize = 20;

/// Somebody who deletes all routes.
struct Way {
    name: &'static str,
    delete: fn(&Lab, &[netlink::Key]) -> Result<()>,
}

const WAYS: [Way; 3] = [
    Way {
        name: "raw netlink, 400 requests a call",
        delete: |_, keys| Ok(netlink::Client::open()?.delete_all(keys)?),
    },
    Way {
        name: "ip -batch of `route del`",
        delete: |lab, keys| {
            let file = lab.dir().join("delete");
            fs::write(&file, lines("route del", "", keys))?;
            ip(&["-batch", &file.to_string_lossy()])
        },
    },
    Way { name: "ip route flush proto 17", delete: |_, _| ip(&["route", "flush", "proto", "17"]) },
];

/// What one deletion took.
struct Round {
    added: Duration,
    deleted: Duration,
    back: Duration,
    lost: f64,
}

fn lines(verb: &str, rest: &str, keys: &[netlink::Key]) -> String {
    keys.iter().fold(String::new(), |mut text, key| {
        let _ = writeln!(text, "{verb} {}/{} {rest}", key.dst, key.len);
        text
    })
}

fn ip(args: &[&str]) -> Result<()> {
    // `ip route flush` says when it has given up, and fails; the routes are deleted all the same.
    Command::new("ip")
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    Ok(())
}

/// When all routes are as they were, since `begin`. Asks for some of them, and reads the whole table only when
/// these are there: on a machine with two processors, reading it all the time would be half of what is measured.
fn await_return(
    client: &mut netlink::Client,
    keys: &[netlink::Key],
    before: &[Vec<u8>],
    begin: Instant,
) -> Result<Duration> {
    loop {
        for key in keys.iter().step_by(SAMPLE).chain(keys.last()) {
            while !client.answers(*key)? {
                ensure!(begin.elapsed() < LIMIT, "not all routes are back after {LIMIT:?}");
                thread::sleep(Duration::from_millis(1));
            }
        }
        let passed = begin.elapsed();
        if client.routes(libc::AF_INET)? == before {
            return Ok(passed);
        }
        ensure!(passed < LIMIT, "not all routes are as they were after {LIMIT:?}");
    }
}

fn measure(way: &Way, count: u32) -> Result<Round> {
    let lab = Lab::within(Path::new(contained::DIR))?;
    lab.links()?;
    let keys: Vec<_> =
        (0..count).map(|n| netlink::Key::main(Ipv4Addr::from(0x6440_0000 + (n << 8)).into(), 24)).collect();
    let file = lab.dir().join("add");
    fs::write(&file, lines("route add", &format!("via {} proto 17", lab::PEER), &keys))?;
    let begin = Instant::now();
    ip(&["-batch", &file.to_string_lossy()])?;
    let added = begin.elapsed();
    let mut client = netlink::Client::open()?;
    client.receive_buffer(64 << 20).context("cannot enlarge a receive buffer")?;
    let before = client.routes(libc::AF_INET)?;
    ensure!(before.len() > keys.len(), "ip -batch has not added all routes");

    let guardian = lab.guardian().start()?;
    let begin = Instant::now();
    (way.delete)(&lab, &keys)?;
    let deleted = begin.elapsed();
    let back = await_return(&mut client, &keys, &before, begin)?;
    let lost = guardian.metrics()?.sum("events_lost_total", &[]).unwrap_or(f64::NAN);
    guardian.stop()?;
    Ok(Round { added, deleted, back, lost })
}

impl Round {
    /// How many times as long as to add them it took until they were back.
    fn times_added(&self) -> f64 {
        self.back.as_secs_f64() / self.added.as_secs_f64()
    }
}

/// The middle one of these durations, in milliseconds.
fn middle(rounds: &[Round], of: impl Fn(&Round) -> Duration) -> f64 {
    Figures::of_durations(rounds.iter().map(of)).percentile(50) / 1e3
}

/// The relations to what adding took, each of one round, in which the machine was equally fast for both.
fn relations(rounds: &[Round]) -> Figures {
    Figures::new(rounds.iter().map(Round::times_added))
}

/// Measures each way of deleting so many times, turn about, each time in a namespace of its own.
pub fn run(count: u32, rounds: usize, output: Output) -> Result<()> {
    let mut rows = WAYS.map(|way| (way.name, Vec::with_capacity(rounds)));
    for round in 1..=rounds {
        for (way, (_, measured)) in WAYS.iter().zip(&mut rows) {
            progress(&format!("{}, {round} of {rounds}", way.name));
            measured.push(measure(way, count)?);
        }
    }
    progress("");
    let lost = |rounds: &[Round]| rounds.iter().map(|round| round.lost).sum::<f64>();
    if output == Output::Json {
        let rows: Vec<_> = rows
            .iter()
            .map(|(name, rounds)| {
                json!({
                    "name": name, "added_ms": middle(rounds, |r| r.added), "deleted_ms": middle(rounds, |r| r.deleted),
                    "back_ms": middle(rounds, |r| r.back), "times_added": relations(rounds).percentile(50),
                    "times_added_most": relations(rounds).percentile(100), "lost": lost(rounds),
                })
            })
            .collect();
        println!(
            "{}",
            json!({
                "bench": "flush", "machine": machine(), "routes": count, "rounds": rounds, "rows": rows,
            })
        );
        return Ok(());
    }
    let machine = machine();
    println!(
        "{count} routes deleted at once, in milliseconds from the first deletion until all are as they were; \
         the middle one of {rounds} rounds"
    );
    println!("Linux {}, {}, {} CPUs\n", text(&machine, "kernel"), text(&machine, "cpu"), machine["cpus"]);
    println!(
        "{:<34} {:>13} {:>9} {:>9} {:>9} {:>11} {:>6}",
        "deleted by", "ip -batch add", "deleted", "back", "× add", "from    to", "lost"
    );
    for (name, rounds) in &rows {
        let [added, deleted, back] =
            [|r: &Round| r.added, |r: &Round| r.deleted, |r: &Round| r.back].map(|of| middle(rounds, of));
        let [least, times, most] = [0, 50, 100].map(|percent| relations(rounds).percentile(percent));
        let range = format!("{least:.2} {most:>5.2}");
        let lost = lost(rounds);
        println!("{name:<34} {added:>13.0} {deleted:>9.0} {back:>9.0} {times:>9.2} {range:>11} {lost:>6.0}");
    }
    Ok(())
}
