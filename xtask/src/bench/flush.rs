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

use super::{Output, machine, progress, text};
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

struct Row {
    name: &'static str,
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

fn measure(way: &Way, count: u32) -> Result<Row> {
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
    Ok(Row { name: way.name, added, deleted, back, lost })
}

/// Measures each way of deleting, in a namespace of its own.
pub fn run(count: u32, output: Output) -> Result<()> {
    let mut rows = Vec::new();
    for way in &WAYS {
        progress(way.name);
        rows.push(measure(way, count)?);
    }
    progress("");
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    let ratio = |row: &Row| row.back.as_secs_f64() / row.added.as_secs_f64();
    if output == Output::Json {
        let rows: Vec<_> = rows
            .iter()
            .map(|r| {
                json!({
                    "name": r.name, "added_ms": ms(r.added), "deleted_ms": ms(r.deleted), "back_ms": ms(r.back),
                    "times_added": ratio(r), "lost": r.lost,
                })
            })
            .collect();
        println!("{}", json!({ "bench": "flush", "machine": machine(), "routes": count, "rows": rows }));
        return Ok(());
    }
    let machine = machine();
    println!(
        "{count} routes deleted at once, in milliseconds from the first deletion until all are as they were"
    );
    println!("Linux {}, {}, {} CPUs\n", text(&machine, "kernel"), text(&machine, "cpu"), machine["cpus"]);
    println!(
        "{:<34} {:>13} {:>9} {:>9} {:>9} {:>6}",
        "deleted by", "ip -batch add", "deleted", "back", "× add", "lost"
    );
    for row in &rows {
        let (added, deleted, back) = (ms(row.added), ms(row.deleted), ms(row.back));
        let (name, times, lost) = (row.name, ratio(row), row.lost);
        println!("{name:<34} {added:>13.0} {deleted:>9.0} {back:>9.0} {times:>9.2} {lost:>6.0}");
    }
    Ok(())
}
