//! An adversary that keeps deleting does not draw the guardian into a fight.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use lab::{Lab, netlink, wait_for};

#[test]
fn restores_are_bounded_and_what_is_held_shows() -> Result<()> {
    let lab = Lab::node()?;
    let guardian = lab.guardian().set("damping.burst", "5").set("damping.initial", "\"1s\"").start()?;
    let key = netlink::Key::main([10, 244, 2, 0].into(), 24);
    let mut client = netlink::Client::open()?;
    let begin = Instant::now();
    let mut deleted = 0;
    while begin.elapsed() < Duration::from_secs(3) {
        if client.answers(key)? {
            client.delete(key)?;
            deleted += 1;
        }
        thread::sleep(Duration::from_millis(10));
    }
    // Five at once, then after 1 s and 2 s more; one for the timing.
    assert!((5..=8).contains(&deleted), "deleted {deleted} times in 3 s");
    assert!(!client.answers(key)?, "it is held");
    let metrics = guardian.metrics()?;
    assert!(metrics.sum("held_objects", &[]).is_some_and(|n| n >= 1.0), "{}", metrics.0);
    assert!(metrics.sum("missing_objects", &[]).is_some_and(|n| n >= 1.0), "{}", metrics.0);
    assert!(metrics.sum("damping_transitions_total", &[]).is_some_and(|n| n >= 1.0), "{}", metrics.0);
    let status = guardian.ask("status")?;
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(text.contains("held"), "{text}");
    assert_eq!(status.status.code(), Some(1), "{text}");
    guardian.event("a held record", |e| e.outcome() == "held")?;
    // Left in peace, it comes back by the timer.
    wait_for("the timer", Duration::from_secs(10), || Ok(client.answers(key)?))?;
    Ok(())
}

/// Back-off is per actor and object: another route, and another actor, are not held.
#[test]
fn others_are_not_held() -> Result<()> {
    let lab = Lab::node()?;
    let _guardian = lab.guardian().set("damping.burst", "2").set("damping.initial", "\"1m\"").start()?;
    let (one, other) = ([10, 244, 2, 0].into(), [10, 244, 3, 0].into());
    let (one, other) = (netlink::Key::main(one, 24), netlink::Key::main(other, 24));
    let mut client = netlink::Client::open()?;
    // Twice at once, and once more when the process has been quiet for a moment.
    for _ in 0..3 {
        client.delete(one)?;
        wait_for("the first route", Duration::from_secs(2), || Ok(client.answers(one)?))?;
    }
    client.delete(one)?;
    client.delete(other)?;
    wait_for("the other route", Duration::from_secs(2), || Ok(client.answers(other)?))?;
    assert!(!client.answers(one)?, "the fourth deletion with a burst of two");
    Ok(())
}
