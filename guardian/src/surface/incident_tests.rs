use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{
    model::record::Change,
    surface::{journal::Journal, sample},
};

/// A change of an incident, `at` in microseconds.
fn change(n: u64, incident: u64, at: i64, outage_us: Option<u64>) -> EventRecord {
    EventRecord {
        id: ulid::Ulid::from_parts(n, 1).to_string(),
        incident: ulid::Ulid::from_parts(incident, 1).to_string(),
        time: format!("{:.6}", Timestamp::from_microsecond(1_795_000_000_000_000 + at).unwrap()),
        outage_us,
        outcome: if outage_us.is_some() { Outcome::Restored } else { Outcome::Held },
        ..sample::networkd(1)
    }
}

fn by_script(mut event: EventRecord) -> EventRecord {
    event.actor = sample::script(1).actor;
    event
}

fn gathered(events: impl IntoIterator<Item = EventRecord>, query: Query) -> Found {
    let mut all = Gathering::new(query, 100);
    for event in events {
        all.push(event);
    }
    all.finish()
}

#[test]
fn changes_of_a_burst_are_one_incident() {
    let mut link = change(2, 1, 10, Some(90));
    link.object = sample::link(2).object;
    link.change = Change::Down;
    let mut fallen = change(3, 1, 20, Some(100));
    fallen.cause = Cause::LinkDown;
    fallen.object.key = "10.244.3.0/24".into();
    let found = gathered([fallen, link.clone(), change(1, 1, 0, Some(50))], Query::default());
    let [incident] = &*found.incidents else { panic!("{found:?}") };
    assert_eq!(incident.changes, 3);
    assert_eq!(incident.outage_us, Some(120), "what was missing at once counts once");
    assert_eq!(incident.longest_us, Some(100));
    assert_eq!(incident.head, link, "the link takes the rest along");
    assert_eq!(incident.open, 0);
    let routes = incident.lost.iter().find(|lost| lost.kind == ObjectKind::Route).unwrap();
    assert_eq!(
        (routes.count, &*routes.keys),
        (2, &["10.244.3.0/24".to_owned(), "10.244.2.0/24".to_owned()][..])
    );
    assert!(incident.first < incident.last);
}

#[test]
fn a_later_word_on_a_change_replaces_the_earlier_one() {
    let held = change(1, 1, 0, None);
    let found = gathered([held.clone()], Query::default());
    assert_eq!((found.incidents[0].open, found.incidents[0].outage_us), (1, None));
    let found = gathered([held, change(1, 1, 0, Some(7_000_000))], Query::default());
    let incident = &found.incidents[0];
    assert_eq!((incident.changes, incident.open, incident.outage_us), (1, 0, Some(7_000_000)));
    assert_eq!(incident.outcomes, BTreeMap::from([(Outcome::Restored, 1)]));
    assert_eq!(incident.head.outcome, Outcome::Restored);
}

#[test]
fn earlier_incidents_of_the_same_program_are_counted_and_those_of_its_owner_are_none() {
    let mut again = change(5, 5, 50, Some(1));
    Arc::make_mut(&mut again.actor).pid = Some(9_999);
    let mut owner = change(4, 4, 40, None);
    (owner.verdict, owner.outcome) = (Verdict::Owner, Outcome::Allowed);
    let events = [change(1, 1, 0, Some(1)), by_script(change(2, 2, 20, Some(1))), owner, again];
    let found = gathered(events.clone(), Query::default());
    assert_eq!(found.incidents.iter().map(|i| i.before).collect::<Vec<_>>(), [0, 0, 1]);
    assert_eq!(found.incidents[2].previous.as_ref(), Some(&events[0].time));
    // A filter does not change what came before.
    let query = Query { actor: Some("9999".into()), ..Query::default() };
    let found = gathered(events, query);
    assert_eq!(found.incidents.iter().map(|i| i.before).collect::<Vec<_>>(), [1]);
}

#[test]
fn an_incident_is_found_by_any_of_its_changes_and_comes_whole() {
    let mut other = change(2, 1, 10, Some(1));
    other.object.key = "10.244.9.0/24".into();
    let events = [change(1, 1, 0, Some(1)), other, change(3, 3, 90, Some(1))];
    let query = Query { object: Some("10.244.9.0/24".into()), ..Query::default() };
    let found = gathered(events.clone(), query);
    assert_eq!(found.incidents.iter().map(|i| i.changes).collect::<Vec<_>>(), [2]);
    let id = Query { incident: Some(events[2].incident[20..].to_lowercase()), ..Query::default() };
    assert_eq!(gathered(events, id).incidents.len(), 2, "ids that end alike");
}

#[test]
fn the_last_ones_are_kept_and_the_rest_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(dir.path(), 1 << 20).unwrap();
    for n in 1..=5 {
        journal.append(&change(n, n, i64::try_from(n).unwrap() * 10, Some(1)));
    }
    let found = read(dir.path(), &Query::default(), 2).unwrap();
    assert_eq!((found.incidents.len(), found.left_out), (2, 3));
    assert!(found.incidents[0].first < found.incidents[1].first);
    let more = read(dir.path(), &Query { last: Some(4), ..Query::default() }, 2).unwrap();
    assert_eq!((more.incidents.len(), more.left_out), (2, 2), "four were asked for");
    let last = read(dir.path(), &Query { last: Some(1), ..Query::default() }, 100).unwrap();
    assert_eq!((last.incidents.len(), last.left_out), (1, 0), "no more was asked for");
    assert_eq!(last.incidents[0].before, 4);
}

/// Incidents of one change each, as numbered.
fn each(numbers: impl IntoIterator<Item = u64>) -> impl Iterator<Item = EventRecord> {
    numbers.into_iter().map(|n| change(n, n, 0, Some(1)))
}

#[test]
fn a_clock_that_was_set_back_hides_nothing() {
    let late = 10_000_000;
    let crowd = late..late + FRESH as u64 + 200;
    let before = each(crowd);
    let found = gathered(before.chain(each(1..=3)), Query::default());
    let ids: Vec<&str> = found.incidents.iter().rev().take(3).map(|incident| incident.id.as_str()).collect();
    let expected: Vec<String> = each([3, 2, 1]).map(|event| event.incident).collect();
    assert_eq!(ids, expected);
}

#[test]
fn what_is_kept_of_many_incidents_is_bounded() {
    let crowd = CHANGES as u64 / 2;
    let mut all = Gathering::new(Query::default(), 100);
    each(1..=crowd).for_each(|event| all.push(event));
    assert!(all.bursts.len() <= FRESH + 100, "{}", all.bursts.len());
    // A later word on one that was let go of begins no other.
    all.push(change(crowd - 2_000, crowd - 2_000, 0, Some(9)));
    let found = all.finish();
    assert_eq!((found.incidents.len() as u64, found.left_out), (100, crowd - 100));
    assert_eq!(found.incidents[99].before, crowd - 1);
}

#[test]
fn what_is_asked_for_is_found_behind_many_others() {
    let wanted = by_script(change(7, 7, 0, Some(1)));
    let others = each(100..100 + 3 * FRESH as u64);
    let query = Query { actor: Some("cron.service".into()), ..Query::default() };
    let found = gathered([wanted.clone()].into_iter().chain(others), query.clone());
    assert!(query.matches(&wanted));
    assert_eq!((found.incidents.len(), found.left_out), (1, 0));
}

proptest! {
    #[test]
    fn the_union_is_what_is_covered(intervals in prop::collection::vec((0_i64..60, 0_i64..20), 0..12)) {
        let intervals: Vec<(i64, i64)> = intervals.into_iter().map(|(from, long)| (from, from + long)).collect();
        let covered = (0..100).filter(|at| intervals.iter().any(|(from, to)| from <= at && at < to)).count() as u64;
        let expected = (!intervals.is_empty()).then_some(covered);
        prop_assert_eq!(union(intervals), expected);
    }

    #[test]
    fn nothing_is_lost_however_changes_come_and_come_again(
        order in prop::collection::vec((0_u64..12, prop::option::of(1_u64..500)), 1..60),
    ) {
        // Change n belongs to incident n / 3.
        let events = order.iter().map(|&(n, outage)| change(n + 1, n / 3 * 3 + 1, i64::try_from(n).unwrap(), outage));
        let found = gathered(events, Query::default());
        let ids: std::collections::BTreeSet<u64> = order.iter().map(|(n, _)| *n).collect();
        prop_assert_eq!(found.incidents.iter().map(|i| i.changes).sum::<u64>(), ids.len() as u64);
        let last: HashMap<u64, Option<u64>> = order.iter().copied().collect();
        let open = last.values().filter(|outage| outage.is_none()).count() as u64;
        prop_assert_eq!(found.incidents.iter().map(|i| i.open).sum::<u64>(), open);
        for incident in &found.incidents {
            prop_assert_eq!(incident.outcomes.values().sum::<u64>(), incident.changes);
            prop_assert_eq!(incident.lost.iter().map(|lost| lost.count).sum::<u64>(), incident.changes);
        }
    }
}

/// An incident of many changes.
fn crowd(incident: u64, changes: u64) -> impl Iterator<Item = EventRecord> {
    (0..changes).map(move |n| change(incident * 1_000_000 + n, incident, 0, Some(1)))
}

#[test]
fn what_gave_way_to_greater_ones_is_counted_also_where_a_number_was_asked_for() {
    let half = CHANGES as u64 / 2;
    let events = || crowd(1, half).chain(crowd(2, half)).chain(crowd(3, half));
    let found = gathered(events(), Query { last: Some(3), ..Query::default() });
    assert!(found.incidents.len() < 3);
    assert_eq!((found.incidents.len() as u64) + found.left_out, 3, "{}", found.left_out);
    let mut one = Gathering::new(Query { last: Some(1), ..Query::default() }, 1);
    events().for_each(|event| one.push(event));
    assert_eq!(one.finish().left_out, 0, "the one that was asked for is there");
}

#[test]
fn what_is_not_asked_for_gives_way_first() {
    let half = CHANGES as u64 / 2;
    let wanted = by_script(change(7, 7, 0, Some(1)));
    let query = Query { actor: Some("cron.service".into()), ..Query::default() };
    let events = [wanted].into_iter().chain(crowd(1, half)).chain(crowd(2, half)).chain(crowd(3, half));
    assert_eq!(gathered(events, query).incidents.len(), 1);
}
