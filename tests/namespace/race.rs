//! The owner and somebody else on the same prefixes at the same time: the owner's last word stands.

use std::{
    net::{IpAddr, Ipv6Addr},
    path::Path,
    time::Duration,
};

use anyhow::Result;
use lab::{
    Lab,
    netlink::{Client, Key},
    wait_for,
};

const SOON: Duration = Duration::from_secs(2);
/// Prefixes at a time, half of them IPv6.
const PREFIXES: u8 = 50;
/// How often for each.
const TURNS: u8 = 200;

fn key(n: u8) -> Key {
    if n < PREFIXES / 2 {
        Key::main([10, 210, n, 0].into(), 24)
    } else {
        Key::main(Ipv6Addr::new(0xfd00, 0x210, n.into(), 0, 0, 0, 0, 0).into(), 64)
    }
}

fn gateway(n: u8, host: u8) -> IpAddr {
    if n < PREFIXES / 2 {
        [10, 0, 0, host].into()
    } else {
        Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, host.into()).into()
    }
}

/// What both say of one prefix in one turn, and what has to be in the end.
///
/// The owner's requests must find what they are about: one that fails leaves no trace that anybody could follow.
/// So where it withdraws, the other changes, and where it sets, the other may delete.
fn turn(n: u8, turn: u8) -> (String, String, Option<IpAddr>) {
    let Key { dst, len, .. } = key(n);
    let (mine, theirs) = (gateway(n, 100 + turn % 100), gateway(n, 66));
    let replace = format!("route replace {dst}/{len} via {mine} proto 17");
    match (n + turn) % 4 {
        0 => (replace, format!("route del {dst}/{len}"), Some(mine)),
        1 => (replace, format!("route replace {dst}/{len} via {theirs} proto 17"), Some(mine)),
        2 => (
            // As kube-router does on any better path.
            format!("route del {dst}/{len}\n{replace}"),
            format!("route change {dst}/{len} via {theirs} proto 17"),
            Some(mine),
        ),
        _ => (
            format!("route del {dst}/{len}"),
            format!("route change {dst}/{len} via {theirs} proto 17"),
            None,
        ),
    }
}

/// The lines that `ip -batch` could not carry out. Linux 6.18 changes IPv6 routes without a lock around the whole
/// request: a deletion that meets a replacement of the same route is told that there is none (`fib6_del`).
fn refused(errors: &str) -> Vec<usize> {
    errors.lines().filter_map(|line| line.strip_prefix("Command failed -:")?.trim().parse().ok()).collect()
}

/// Ten thousand rounds: [`PREFIXES`] times [`TURNS`].
#[test]
fn the_owners_last_word_stands() -> Result<()> {
    let lab = Lab::node()?;
    let kube_router = lab.copy("ip", "kube-router")?;
    let guardian = lab.guardian().set("damping.burst", "1000000").start()?;
    let (mut owner, mut foreigner) = (lab.actor(&kube_router)?, lab.actor(Path::new("ip"))?);
    let mut client = Client::open()?;
    let (owner_is_done, foreigner_is_done) =
        (Key::main([10, 251, 0, 0].into(), 24), Key::main([10, 252, 0, 0].into(), 24));
    let pulse = Key::main([10, 244, 2, 0].into(), 24);
    // Lines that the owner has been given, one request each.
    let (mut lines, mut first_turn) = (0, 0);
    for t in 0..TURNS {
        let mut expected = Vec::new();
        let said = owner.errors().len();
        for n in 0..PREFIXES {
            let (mine, theirs, last) = turn(n, t);
            // Now one is first, now the other.
            if (n ^ t) & 2 == 0 {
                owner.say(&mine)?;
                foreigner.say(&theirs)?;
            } else {
                foreigner.say(&theirs)?;
                owner.say(&mine)?;
            }
            let first = lines + 1;
            lines += mine.lines().count();
            expected.push((n, last, first..=lines));
        }
        lines += 1;
        if t == 0 {
            first_turn = lines;
        }
        let here = IpAddr::from([10, 0, 0, 1 + t]);
        owner.say(&format!("route replace 10.251.0.0/24 via {here} proto 17"))?;
        foreigner.say(&format!("route replace 10.252.0.0/24 via {here} proto static"))?;
        for mark in [owner_is_done, foreigner_is_done] {
            wait_for("both to be done", Duration::from_secs(10), || Ok(client.gateway(mark)? == Some(here)))?;
        }
        let wrong = |client: &mut Client| -> Result<Vec<String>> {
            let mut wrong = Vec::new();
            let refused = refused(&owner.errors()[said..]);
            for (n, last, words) in &expected {
                let (n, last) = (*n, *last);
                let now = client.gateway(key(n))?;
                if now != last && !refused.iter().any(|line| words.contains(line)) {
                    wrong.push(format!("{:?} by {now:?} instead of {last:?}, case {}", key(n), (n + t) % 4));
                }
            }
            Ok(wrong)
        };
        let mut last = Vec::new();
        let right = wait_for("the owner's last words", SOON, || {
            last = wrong(&mut client)?;
            Ok(last.is_empty())
        });
        assert!(
            right.is_ok(),
            "turn {t}: {last:#?}; the owner's errors: {}\nthe routes:\n{}{}",
            &owner.errors()[said..],
            lab.ip("-4 route show root 10.210.0.0/16")?,
            lab.ip("-6 route show root fd00:210::/32")?
        );
        // When this is back, the guardian has done all that it would do.
        client.delete(pulse)?;
        wait_for("the other route", SOON, || Ok(client.answers(pulse)?))?;
        // A restore that was under way when the owner spoke is found out by a dump, and made good.
        let right = wait_for("the owner's last words", SOON, || {
            last = wrong(&mut client)?;
            Ok(last.is_empty())
        });
        assert!(right.is_ok(), "turn {t}, afterwards: {last:#?}");
    }
    // In the first turn it withdraws what is not there yet.
    let refused = refused(&owner.errors()).into_iter().filter(|line| *line > first_turn).count();
    assert!(refused < 20, "{refused} times the owner could not say what it wanted");
    let metrics = guardian.metrics()?;
    assert_eq!(metrics.sum("events_lost_total", &[]), Some(0.0), "{}", metrics.0);
    // It has been a race, not an idyll.
    assert!(
        metrics.sum("restores_total", &["outcome=\"restored\""]).is_some_and(|n| n > 1000.0),
        "{}",
        metrics.0
    );
    Ok(())
}
