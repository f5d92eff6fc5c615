//! An API server that refuses, hangs or is gone is of no consequence to restores, and nothing piles up.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use lab::{Guardian, Lab, netlink, wait_for};

use super::{
    api_server::{ApiServer, Mood},
    events::became,
    pod,
};
use crate::kubernetes::Variant;

const LIMIT: Duration = Duration::from_secs(20);

/// Routes, and how often each is taken away.
const ROUTES: u32 = 100;
const TIMES: usize = 3;

/// Changes of a flood.
const FLOOD: u32 = 20_000;

/// Routes below 100.64.0.0/10 that are guarded.
fn routes(lab: &Lab) -> Result<Vec<netlink::Key>> {
    let dst = |n: u32| std::net::Ipv4Addr::from(0x6440_0000 + (n << 8));
    let lines = (0..ROUTES).map(|n| format!("route add {}/24 via {} proto 17\n", dst(n), lab::PEER));
    lab.batch(&lines.collect::<String>())?;
    Ok((0..ROUTES).map(|n| netlink::Key::main(dst(n).into(), 24)).collect())
}

/// Takes each away, one after the other and several times, and waits for it: the median of the outages in microseconds.
fn outage(guardian: &Guardian, keys: &[netlink::Key]) -> Result<u64> {
    let known = guardian.events()?.len();
    let mut client = netlink::Client::open()?;
    for _ in 0..TIMES {
        for &key in keys {
            client.delete(key)?;
            wait_for("a route", LIMIT, || Ok(client.answers(key)?))?;
        }
    }
    let wanted = known + TIMES * keys.len();
    let mut events = Vec::new();
    wait_for("the records", LIMIT, || {
        events = guardian.events()?;
        Ok(events.len() >= wanted)
    })?;
    let mut outages: Vec<u64> = events[known..].iter().filter_map(|e| e.number("/outage_us")).collect();
    ensure!(outages.len() >= TIMES * keys.len(), "only {} of them are back", outages.len());
    outages.sort_unstable();
    Ok(outages[outages.len() / 2])
}

/// Takes all of them away at once, again and again, and waits for them.
fn flood(keys: &[netlink::Key]) -> Result<()> {
    let mut client = netlink::Client::open()?;
    for _ in 0..FLOOD / ROUTES {
        client.delete_all(keys)?;
        for &key in keys {
            wait_for("a route", LIMIT, || Ok(client.answers(key)?))?;
        }
    }
    Ok(())
}

/// Memory of its own in KiB, without the pages of its binary: of these one that is made for tests has many more.
pub fn memory(guardian: &Guardian) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", guardian.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("no RssAnon")?;
    Ok(line.trim_end_matches("kB").trim().parse()?)
}

fn threads(guardian: &Guardian) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{}/task", guardian.pid()))?.count())
}

#[test]
fn restores_are_as_fast_and_nothing_piles_up_while_it_is_away() -> Result<()> {
    let lab = Lab::node()?;
    let keys = routes(&lab)?;
    let mut api = ApiServer::start(&lab, pod::granted(Variant::has_condition)?)?;
    let both = [("events", "true"), ("node_condition", "true")];
    // No damping: the same routes are taken away again and again.
    let guardian = pod::launch(&lab, &api, &both)?.set("damping.burst", "1000000").start()?;
    // What it has to get to know of this machine, it knows after the first.
    outage(&guardian, &keys)?;
    wait_for("an Event", LIMIT, || Ok(!api.events().is_empty()))?;
    let usual = outage(&guardian, &keys)?;
    let running = threads(&guardian)?;
    println!("while it answers: {usual} µs, {running} threads");

    for mood in [Some(Mood::Hanging), Some(Mood::Silent), Some(Mood::Refusing(500)), None] {
        match mood {
            Some(mood) => api.set_mood(mood),
            None => api.go(),
        }
        let before = api.requests().len();
        let outage = outage(&guardian, &keys)?;
        let threads = threads(&guardian)?;
        println!("while it is {mood:?}: {outage} µs, {threads} threads");
        // On a machine where other tests run, a median differs by tens of percent; what waits for an API server takes
        // seconds.
        ensure!(outage < 3 * usual + 1000, "{mood:?}: {outage} µs, and {usual} µs while it answers");
        ensure!(threads <= running + 1, "{mood:?}: {threads} threads, and {running} before");
        // It is tried, and not at every change.
        if mood.is_some() {
            wait_for("an attempt", LIMIT, || Ok(api.requests().len() > before))?;
            let attempts = api.requests().len() - before;
            ensure!(attempts < 20, "{mood:?}: {attempts} attempts");
        }
    }

    // Were all of it kept, it would be some 20 MiB. It learns of each process on the machine, too, which takes some.
    api.set_mood(Mood::Hanging);
    api.come_back()?;
    let before = memory(&guardian)?;
    flood(&keys)?;
    let more = memory(&guardian)?.saturating_sub(before);
    println!("{FLOOD} changes while it hangs: {more} KiB more");
    ensure!(more < 12 * 1024, "{FLOOD} changes take {more} KiB");

    // All that happened meanwhile is told by the count of one Event, but for what came faster than the queue was emptied:
    // that is counted.
    api.set_mood(Mood::Serving);
    let log = || guardian.log();
    let told = || api.events().iter().filter_map(|event| event["count"].as_u64()).sum::<u64>();
    let mut said = String::new();
    wait_for("a count that is whole", Duration::from_secs(90), || {
        let changes = guardian.metrics()?.sum("deletions_total", &[]).context("no such series")? as u64;
        let counted = became(&guardian, "created")? + became(&guardian, "updated")?;
        let dropped = became(&guardian, "dropped")?;
        said = format!("{changes} changes, {} told, {counted} counted as told, {dropped} as dropped", told());
        Ok(changes >= u64::from(FLOOD) && told() == counted && counted + dropped == changes)
    })
    .with_context(|| format!("{said}\n{}", log()))?;
    println!("{said}");
    ensure!(became(&guardian, "dropped")? < u64::from(FLOOD) / 10, "{said}");
    assert_eq!(became(&guardian, "limited")? + became(&guardian, "refused")?, 0);
    ensure!(log().matches("Kubernetes cannot be told of Events").count() < 4, "{}", log());
    Ok(())
}

/// It has no right to it: that is counted, and said once.
#[test]
fn what_is_refused_is_counted() -> Result<()> {
    let lab = Lab::node()?;
    let api = ApiServer::start(&lab, std::collections::BTreeSet::new())?;
    let guardian = pod::launch(&lab, &api, &[("events", "true")])?.start()?;
    lab.ip("route del 10.244.2.0/24")?;
    wait_for("the refusal", LIMIT, || Ok(became(&guardian, "refused")? >= 1))?;
    lab.ip("route del 10.244.3.0/24")?;
    wait_for("another", LIMIT, || Ok(became(&guardian, "refused")? >= 2))?;
    let log = guardian.log();
    ensure!(log.matches("nobody has given the right to create default/events").count() == 1, "{log}");
    ensure!(api.events().is_empty() && api.requests().iter().all(|request| request.code == 403), "{log}");
    ensure!(lab.shows("route show 10.244.2.0/24")?, "the route is not back");
    Ok(())
}
