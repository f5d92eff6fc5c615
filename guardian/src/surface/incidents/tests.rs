use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{
    model::record::Change,
    surface::{query::Query, sample},
};

fn gather(query: &Query, events: impl IntoIterator<Item = EventRecord>) -> Vec<Incident> {
    let mut gather = Gather::new(query, SERVED, false);
    for event in events {
        gather.push(event);
    }
    gather.finish().0
}

fn of(incident: &str, mut event: EventRecord) -> EventRecord {
    event.incident = incident.into();
    event
}

#[test]
fn a_burst_adds_up() {
    let mut down = sample::link(3);
    down.actor = sample::networkd(1).actor;
    let incidents = gather(&Query::default(), [sample::address(1), down.clone(), sample::networkd(5)]);
    let [incident] = &incidents[..] else { panic!("{incidents:?}") };
    assert_eq!((incident.changes, incident.consequences), (3, 1));
    assert_eq!(incident.first, "2026-11-22T03:02:01.204518Z");
    assert_eq!(incident.last, "2026-11-22T03:02:05.204518Z");
    assert_eq!(incident.telling.id, down.id, "not what only followed from it");
    assert_eq!(incident.outage, Outage { total_us: 3 * 71, longest_us: 71, open: 0 });
    assert_eq!(incident.causes, [(Cause::Request, 2), (Cause::AddressRemoved, 1)].into());
    assert_eq!(incident.outcomes, [(Outcome::Restored, 3)].into());
    let kinds: Vec<_> = incident.lost.iter().map(|lost| (lost.kind, lost.count)).collect();
    assert_eq!(kinds, [(ObjectKind::Link, 1), (ObjectKind::Address, 1), (ObjectKind::Route, 1)]);
    assert_eq!(incident.lost[2].examples, ["10.244.2.0/24"]);
}

#[test]
fn a_later_word_supersedes_an_earlier_one() {
    let held = sample::script(1);
    let mut back = held.clone();
    (back.outcome, back.outage_us, back.error) = (Outcome::Restored, Some(9_000_000), None);
    let before = gather(&Query::default(), [held.clone()]);
    assert_eq!((before[0].outage.open, before[0].outage.total_us), (1, 0));
    let after = gather(&Query::default(), [held, back.clone(), back.clone()]);
    assert_eq!(after[0].changes, 1);
    assert_eq!(after[0].outcomes, [(Outcome::Restored, 1)].into());
    assert_eq!(after[0].outage, Outage { total_us: 9_000_000, longest_us: 9_000_000, open: 0 });
    assert_eq!(after[0].telling, back);
}

#[test]
fn what_is_told_is_neither_the_owners_nor_a_consequence() {
    let mut owner = sample::networkd(3);
    (owner.verdict, owner.outcome) = (Verdict::Owner, Outcome::Allowed);
    assert!(tells_more(&sample::address(1), &owner));
    assert!(tells_more(&sample::networkd(2), &sample::address(1)));
    assert!(tells_more(&sample::script(2), &sample::networkd(1)), "what is not back");
    assert!(!tells_more(&sample::networkd(2), &sample::networkd(1)), "the first of equals");
}

#[test]
fn the_same_program_is_known_again() {
    let mut other_run = of("C", sample::networkd(3));
    Arc::make_mut(&mut other_run.actor).pid = Some(999);
    let events = [of("A", sample::networkd(1)), of("B", sample::script(2)), other_run];
    let query = Query::default();
    let times: Vec<_> = gather(&query, events.clone()).iter().map(|i| i.before.clone()).collect();
    assert_eq!(times.iter().map(|before| before.times).collect::<Vec<_>>(), [0, 0, 1]);
    let mut cut = Gather::new(&query, SERVED, true);
    for event in events {
        cut.push(event);
    }
    assert!(cut.finish().0[2].before.at_least);
    // Of those of whom nothing is known nobody can say that they are the same.
    let nobody = gather(&query, [of("A", sample::nobody(1)), of("B", sample::nobody(2))]);
    assert_eq!(nobody[1].before.times, 0);
}

#[test]
fn an_incident_is_told_whole_if_one_record_of_it_matches() {
    let events = [of("A", sample::networkd(1)), of("A", sample::link(2)), of("B", sample::rule(3))];
    let query = Query { object: Some("kube-bridge".into()), ..Query::default() };
    let found = gather(&query, events.clone());
    assert_eq!(found.iter().map(|i| (i.id.as_str(), i.changes)).collect::<Vec<_>>(), [("A", 2)]);
    let query = Query { id: Some("b".into()), ..Query::default() };
    assert_eq!(gather(&query, events.clone()).len(), 1);
    let query = Query { last: Some(1), ..Query::default() };
    assert_eq!(gather(&query, events)[0].id, "B");
}

proptest! {
    #[test]
    fn nothing_is_lost_or_counted_twice(
        changes in prop::collection::vec((0_usize..6, 0_u32..40, any::<bool>(), 0_u64..5_000), 1..200)
    ) {
        let query = Query::default();
        let mut ids = std::collections::BTreeSet::new();
        let events: Vec<EventRecord> = changes.iter().map(|&(incident, n, held, us)| {
            let mut event = of(&format!("I{incident}"), sample::networkd(n));
            event.id = format!("{incident}-{n}");
            event.change = Change::Deleted;
            if held {
                (event.outcome, event.outage_us) = (Outcome::Held, None);
            } else {
                event.outage_us = Some(us);
            }
            ids.insert(event.id.clone());
            event
        }).collect();
        let found = gather(&query, events);
        prop_assert_eq!(found.iter().map(|i| i.changes).sum::<u64>(), ids.len() as u64);
        for incident in &found {
            prop_assert_eq!(incident.outcomes.values().sum::<u64>(), incident.changes);
            prop_assert_eq!(incident.causes.values().sum::<u64>(), incident.changes);
            prop_assert_eq!(incident.lost.iter().map(|lost| lost.count).sum::<u64>(), incident.changes);
            prop_assert!(incident.outage.longest_us <= incident.outage.total_us);
            prop_assert!(incident.first <= incident.last);
        }
    }

    #[test]
    fn the_last_so_many_are_kept(count in 0_usize..1_000, most in 1_usize..20, every in 1_usize..40) {
        let query = Query { object: Some("kube-bridge".into()), ..Query::default() };
        let mut gather = Gather::new(&query, most, false);
        let mut wanted = Vec::new();
        for n in 0..count {
            let id = format!("I{n}");
            let matches = n % every == 0;
            gather.push(of(&id, if matches { sample::link(1) } else { sample::networkd(1) }));
            if matches {
                wanted.push(id);
            }
        }
        let (found, dropped) = gather.finish();
        let last = &wanted[wanted.len().saturating_sub(most)..];
        prop_assert_eq!(found.iter().map(|i| i.id.as_str()).collect::<Vec<_>>(), last);
        prop_assert_eq!(dropped as usize, wanted.len() - last.len());
    }
}
