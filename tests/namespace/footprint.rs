//! What the guardian costs, and how it fares with many routes.

use std::{
    fmt::Write as _,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use lab::{Lab, netlink, wait_for};

/// `count` routes below 100.64.0.0/10, as keys and as lines for `ip -batch`.
fn many(count: u32) -> (Vec<netlink::Key>, String) {
    let mut batch = String::new();
    let keys = (0..count)
        .map(|n| {
            let dst = std::net::Ipv4Addr::from(0x6440_0000 + (n << 8));
            let _ = writeln!(batch, "route add {dst}/24 via {} proto 17", lab::PEER);
            netlink::Key::main(dst.into(), 24)
        })
        .collect();
    (keys, batch)
}

#[test]
fn memory_stays_small_with_a_thousand_routes() -> Result<()> {
    let lab = Lab::node()?;
    let (keys, batch) = many(1000);
    lab.batch(&batch)?;
    let guardian = lab.guardian().start()?;
    let before = lab.routes()?;
    netlink::Client::open()?.delete_all(&keys)?;
    wait_for("all routes", Duration::from_secs(10), || Ok(lab.routes()? == before))?;
    let kib = guardian.resident_kib()?;
    println!("resident with 1,000 guarded routes, all restored once: {kib} KiB");
    assert!(kib < 20 * 1024, "{kib} KiB");
    Ok(())
}

#[test]
fn it_sleeps_when_nothing_changes() -> Result<()> {
    let lab = Lab::node()?;
    let guardian = lab.guardian().start()?;
    // Start-up is over when a second has passed without a switch.
    let mut last = 0;
    wait_for("a quiet second", Duration::from_secs(20), || {
        let now = guardian.switches()?;
        let quiet = now == last;
        last = now;
        thread::sleep(Duration::from_secs(u64::from(!quiet)));
        Ok(quiet)
    })?;
    guardian.sleeps_for(Duration::from_secs(3))
}

/// The benchmark reports the true figure; this only sees that nothing is lost and no order of magnitude is.
#[test]
fn ten_thousand_routes_deleted_at_once_come_back() -> Result<()> {
    let lab = Lab::node()?;
    let (keys, batch) = many(10_000);
    let begin = Instant::now();
    lab.batch(&batch)?;
    let added = begin.elapsed();
    let guardian = lab.guardian().start()?;
    let before = lab.routes()?;
    let mut client = netlink::Client::open()?;
    client.receive_buffer(64 << 20)?;
    let begin = Instant::now();
    client.delete_all(&keys)?;
    let deleted = begin.elapsed();
    wait_for("all routes", Duration::from_secs(60), || Ok(client.routes(libc::AF_INET)?.len() >= 10_000))?;
    let back = begin.elapsed();
    wait_for("all routes as they were", Duration::from_secs(5), || Ok(lab.routes()? == before))?;
    println!("10,000 routes: added by ip -batch in {added:?}, deleted in {deleted:?}, back after {back:?}");
    assert!(back < 4 * added, "back after {back:?}, added in {added:?}");
    let metrics = guardian.metrics()?;
    println!(
        "lost: {:?}, resyncs: {:?}",
        metrics.sum("events_lost_total", &[]),
        metrics.sum("resyncs_total", &[])
    );
    assert_eq!(metrics.sum("missing_objects", &[]), Some(0.0), "{}", metrics.0);
    Ok(())
}
