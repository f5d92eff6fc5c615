//! How long one deleted route is away, as the process that deletes it sees it.
//!
//! A raw netlink client deletes the route, then asks for it in a tight loop until it is answered by exactly
//! that route. No other route covers the address: while it is away the answer is `ENETUNREACH`. The clock
//! starts before the request is sent, so that each figure is a little more than the outage.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;

use super::{Output, figures::Figures, machine, progress, rivals::Rival, text};

/// A restore that takes longer than this has not worked.
const LIMIT: Duration = Duration::from_secs(10);
/// Between two deletions: everybody has gone back to sleep by then, as on an idle node.
const PAUSE: Duration = Duration::from_millis(5);

/// One deletion.
fn outage(rival: &mut Rival) -> Result<Duration> {
    let begin = Instant::now();
    rival.client.delete(rival.key)?;
    loop {
        let back = rival.client.answers(rival.key)?;
        let passed = begin.elapsed();
        if back {
            return Ok(passed);
        }
        ensure!(passed < LIMIT, "{} has not restored the route within {LIMIT:?}", rival.name);
    }
}

/// Measures every program in turns, so that whatever else the machine does meets all of them.
pub fn run(rounds: usize, output: Output) -> Result<()> {
    let mut rivals = [Rival::guardian()?, Rival::shell()?, Rival::frr()?, Rival::floor()?];
    let mut measured = vec![Vec::with_capacity(rounds); rivals.len()];
    for round in 0..rounds {
        progress(&format!("deletion {} of {rounds}", round + 1));
        for (rival, outages) in rivals.iter_mut().zip(&mut measured) {
            outages.push(outage(rival)?);
            std::thread::sleep(PAUSE);
        }
    }
    progress("");
    let mut recorded = rivals[0].recorded()?;
    let names = rivals.each_ref().map(|rival| rival.name);
    // What was measured is shown also where one does not end as it should.
    let stopped = rivals.into_iter().try_for_each(Rival::stop);
    // The first ones were for everybody to warm up.
    let recorded = Figures::of_durations(recorded.split_off(recorded.len().saturating_sub(rounds)));
    let figures: Vec<_> = measured.into_iter().map(Figures::of_durations).collect();
    let p50 = |index: usize| figures.get(index).map_or(f64::NAN, |f| f.percentile(50));
    let (guardian, shell, frr, floor) = (p50(0), p50(1), p50(2), p50(3));
    let machine = machine();
    if output == Output::Json {
        let rows: Vec<_> = names
            .iter()
            .zip(&figures)
            .map(|(name, f)| {
                json!({
                    "name": name,
                    "rounds": f.count(),
                    "p50_us": f.percentile(50),
                    "p90_us": f.percentile(90),
                    "p99_us": f.percentile(99),
                    "max_us": f.percentile(100),
                    "times_floor": f.percentile(50) / floor,
                })
            })
            .collect();
        println!(
            "{}",
            json!({
                "bench": "outage",
                "machine": machine,
                "shell_times_guardian": shell / guardian,
                "frr_times_guardian": frr / guardian,
                "recorded_p50_us": recorded.percentile(50),
                "recorded_p90_us": recorded.percentile(90),
                "recorded_p99_us": recorded.percentile(99),
                "rows": rows,
            })
        );
        return stopped;
    }
    println!(
        "Outage of one route, in microseconds, as the deleting process sees it ({rounds} deletions each)"
    );
    println!("Linux {}, {}, {} CPUs\n", text(&machine, "kernel"), text(&machine, "cpu"), machine["cpus"]);
    println!("{:<31} {:>9} {:>9} {:>9} {:>9} {:>9}", "", "p50", "p90", "p99", "max", "× floor");
    for (name, f) in names.iter().zip(&figures) {
        let [p50, p90, p99, max] = [50, 90, 99, 100].map(|percent| f.percentile(percent));
        println!("{:<31} {p50:>9.0} {p90:>9.0} {p99:>9.0} {max:>9.0} {:>9.1}", name, p50 / floor);
    }
    let [p50, p90, p99] = [50, 90, 99].map(|percent| recorded.percentile(percent));
    println!(
        "\nBy the guardian's records, from the kernel's stamp of the deletion to the verified restore:\n\
         p50 {p50:.0}, p90 {p90:.0}, p99 {p99:.0}."
    );
    println!(
        "\nAt p50, FRR takes {:.1} times and `ip monitor` {:.1} times as long as the guardian.",
        frr / guardian,
        shell / guardian
    );
    stopped
}
