use std::collections::BTreeMap;

use super::*;
use crate::surface::{kubernetes::backoff::Backoff, sample};

fn at(seconds: u64) -> Stamp {
    Stamp(0).after(Duration::from_secs(seconds))
}

/// A change by a program of this name.
fn change(n: u32, program: &str) -> Arc<EventRecord> {
    let mut event = sample::networkd(n);
    Arc::make_mut(&mut event.actor).exe = Some(format!("/usr/bin/{program}"));
    Arc::new(event)
}

fn created(write: Option<Write>) -> Told {
    match write {
        Some(Write::Create(told)) => told,
        other => panic!("no Event is made: {other:?}"),
    }
}

fn updated(write: Option<Write>) -> Told {
    match write {
        Some(Write::Update(told)) => told,
        other => panic!("no Event is updated: {other:?}"),
    }
}

fn sum(outbox: &mut Outbox, all: &mut BTreeMap<&'static str, u64>) {
    for (what, count) in outbox.became_of() {
        *all.entry(what).or_default() += count;
    }
}

#[test]
fn a_burst_is_one_event_whose_count_grows() {
    let mut outbox = Outbox::new();
    for n in 0..20 {
        outbox.take(at(0), change(n, "a"));
    }
    assert_eq!((outbox.next(at(0)), outbox.deadline(at(0))), (None, Some(at(1))));
    let told = created(outbox.next(at(1)));
    assert_eq!((told.count, told.reason.as_str(), told.warning), (20, "RouteDeleted", false));
    assert!(told.first.contains("03:02:00") && told.last.contains("03:02:19"), "{told:?}");
    assert!(told.message.contains("the last of 20"), "{told:?}");
    // One request at a time, and what comes meanwhile waits for the next word on it.
    outbox.take(at(1), change(20, "a"));
    assert_eq!((outbox.next(at(9)), outbox.deadline(at(9))), (None, None));
    outbox.done(at(9), &Ok(()));
    assert_eq!(outbox.became_of(), [("created", 1), ("updated", 19)]);
    assert_eq!((outbox.next(at(18)), outbox.deadline(at(18))), (None, Some(at(19))));
    let again = updated(outbox.next(at(19)));
    assert_eq!((&again.id, again.count), (&told.id, 21));
    outbox.done(at(19), &Ok(()));
    assert_eq!(outbox.became_of(), [("updated", 1)]);
    assert_eq!((outbox.next(at(999)), outbox.deadline(at(999))), (None, None));
}

#[test]
fn what_is_not_alike_is_told_apart() {
    let mut outbox = Outbox::new();
    let mut held = sample::networkd(1);
    held.outcome = Outcome::Held;
    let mut link = sample::link(1);
    link.actor = sample::networkd(1).actor;
    for event in [change(1, "a"), change(1, "b"), held.into(), link.into()] {
        outbox.take(at(0), event);
    }
    let mut ids = std::collections::BTreeSet::new();
    for _ in 0..4 {
        let told = created(outbox.next(at(2)));
        assert_eq!(told.count, 1);
        assert_eq!(told.warning, told.message.contains("held back"), "{told:?}");
        ids.insert(told.id);
        outbox.done(at(2), &Ok(()));
    }
    assert_eq!((ids.len(), outbox.next(at(2))), (4, None));
}

#[test]
fn more_different_ones_than_the_budget_has_are_counted() {
    let mut outbox = Outbox::new();
    for n in 0..30 {
        outbox.take(at(0), change(n, &format!("program-{n}")));
    }
    assert_eq!(outbox.became_of(), vec![("limited", 1); 5]);
    // One more every five minutes.
    outbox.take(at(299), change(1, "late"));
    outbox.take(at(300), change(1, "later"));
    assert_eq!(outbox.became_of(), [("limited", 1)]);
}

#[test]
fn one_who_goes_on_and_on_leaves_some_of_the_budget_for_others() {
    let mut outbox = Outbox::new();
    let (mut requests, mut now) = (0, 0);
    // A change a second for an hour.
    while now < 3600 {
        outbox.take(at(now), change(1, "a"));
        if outbox.next(at(now)).is_some() {
            requests += 1;
            outbox.done(at(now), &Ok(()));
        }
        now += 1;
    }
    assert!((20..=29).contains(&requests), "{requests} requests in an hour");
    outbox.became_of();
    for n in 0..10 {
        outbox.take(at(now), change(n, &format!("other-{n}")));
    }
    assert_eq!(outbox.became_of(), []);
}

#[test]
fn a_series_ends_when_it_has_been_quiet() {
    let mut outbox = Outbox::new();
    outbox.take(at(0), change(1, "a"));
    let first = created(outbox.next(at(1)));
    outbox.done(at(1), &Ok(()));
    outbox.take(at(601), change(2, "a"));
    let next = created(outbox.next(at(602)));
    assert!(next.id != first.id && next.count == 1, "{next:?}");
}

#[test]
fn an_event_that_the_api_server_has_let_go_of_is_made_again() {
    let mut outbox = Outbox::new();
    outbox.take(at(0), change(1, "a"));
    let first = created(outbox.next(at(1)));
    outbox.done(at(1), &Ok(()));
    outbox.take(at(100), change(2, "a"));
    updated(outbox.next(at(101)));
    outbox.done(at(101), &Err(Trouble::Gone(String::new())));
    let again = created(outbox.next(at(101)));
    assert_eq!((again.id, again.count, again.first), (first.id, 2, first.first));
    outbox.done(at(101), &Ok(()));
    assert_eq!(outbox.became_of(), [("created", 1), ("updated", 1)]);
}

#[test]
fn what_is_refused_is_counted_and_not_tried_again() {
    let mut outbox = Outbox::new();
    for n in 0..3 {
        outbox.take(at(0), change(n, "a"));
    }
    created(outbox.next(at(1)));
    outbox.done(at(1), &Err(Trouble::Refused("forbidden".into())));
    assert_eq!(outbox.became_of(), [("refused", 3)]);
    assert_eq!((outbox.next(at(99)), outbox.deadline(at(99))), (None, None));
}

/// A node that somebody fights over, for an hour in which the API server does not answer.
#[test]
fn while_the_api_server_is_gone_for_an_hour_nothing_piles_up_and_nothing_is_lost_uncounted() {
    let (mut outbox, mut backoff) = (Outbox::new(), Backoff::new(0.3));
    let mut became = BTreeMap::new();
    let (mut requests, mut changes, mut now) = (0, 0, 0);
    let away = Err(Trouble::Away("nobody answers".into()));
    while now < 3600 {
        // Ten changes a second, by more programs than there is room for.
        for n in 0..10 {
            outbox.take(at(now), change(n, &format!("program-{}", (now * 10 + u64::from(n)) % 100)));
            changes += 1;
        }
        if backoff.is_ready(at(now)) && outbox.next(at(now)).is_some() {
            requests += 1;
            outbox.done(at(now), &away);
            backoff.failed(at(now));
        }
        assert!(outbox.series.len() <= SERIES, "{} series", outbox.series.len());
        sum(&mut outbox, &mut became);
        now += 1;
    }
    assert!((10..30).contains(&requests), "{requests} requests in an hour in vain");
    // It answers again.
    backoff.succeeded();
    for _ in 0..SERIES {
        if outbox.next(at(now)).is_some() {
            outbox.done(at(now), &Ok(()));
        }
    }
    sum(&mut outbox, &mut became);
    assert!(became["created"] >= 25 && became["updated"] > 8_000 && became["limited"] > 8_000, "{became:?}");
    assert_eq!(became.values().sum::<u64>(), changes, "{became:?}");
    assert_eq!(outbox.next(at(now)), None);
}

#[test]
fn what_nobody_would_read_any_more_is_let_go_of_and_counted() {
    let mut outbox = Outbox::new();
    for n in 0..7 {
        outbox.take(at(0), change(n, "a"));
    }
    created(outbox.next(at(1)));
    outbox.done(at(11), &Err(Trouble::Away(String::new())));
    assert_eq!(outbox.next(at(3601)), None);
    assert_eq!(outbox.became_of(), [("dropped", 7)]);
    assert!(outbox.series.is_empty());
}
