use std::sync::Arc;

use super::*;
use crate::{
    knowledge::Advice,
    model::{
        ActorClass, Confidence,
        record::{Cause, Change, EventRecord, ObjectRecord, Outcome, Verdict},
    },
    surface::{
        incident::Incident,
        report::{DiffReport, PlannedAction, RestoreReport, Snapshot},
        sample,
    },
};

fn style() -> Style {
    Style { colour: false, legend: true, width: 100, zone: TimeZone::UTC }
}

fn table(events: &[EventRecord]) -> String {
    let mut table = EventTable::new(&style(), events);
    events.iter().map(|event| table.line(event)).collect()
}

/// Compares with a file beside this one; with `UPDATE_GOLDEN` set it writes the file, to be read and committed.
fn golden(name: &str, expected: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/surface/text/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
        return;
    }
    assert_eq!(text, expected, "{name}");
}

fn samples() -> Vec<EventRecord> {
    let mut replaced = sample::networkd(5);
    replaced.change = Change::Replaced;
    replaced.cause = Cause::Replace;
    replaced.outcome = Outcome::AlreadyPresent;
    replaced.failed_lookups = Some(1234);
    replaced.time = "2026-11-23T00:00:00.000001Z".into();
    let mut link = sample::nobody(6);
    Arc::make_mut(&mut link.actor).class = ActorClass::Kernel;
    Arc::make_mut(&mut link.actor).confidence = Confidence::Exact;
    Arc::make_mut(&mut link.actor).comm = "kworker/1:2".into();
    link.verdict = Verdict::Kernel;
    link.origin = Some(sample::script(2).actor);
    link.outcome = Outcome::Failed;
    link.outage_us = None;
    link.error = Some("Network is unreachable (101): Nexthop has invalid gateway".into());
    let mut owner = sample::networkd(7);
    owner.verdict = Verdict::Owner;
    owner.outcome = Outcome::Allowed;
    Arc::make_mut(&mut owner.actor).class = ActorClass::KubeRouter;
    Arc::make_mut(&mut owner.actor).exe = Some("/usr/local/bin/kube-router".into());
    owner.outage_us = None;
    let mut hostile = sample::script(8);
    Arc::make_mut(&mut hostile.actor).argv =
        vec!["ip".into(), "\x1b[2J\r\u{202e}oops".into(), "日本語".repeat(40)];
    Arc::make_mut(&mut hostile.actor).comm = "i\np".into();
    Arc::make_mut(&mut hostile.actor).exe = Some("/tmp/\x1b]0;x\x07".into());
    hostile.object.text = "日本語".repeat(30);
    hostile.outcome = Outcome::Observed;
    let mut events =
        vec![sample::networkd(1), sample::script(2), sample::nobody(3), replaced, link, owner, hostile];
    events.extend([sample::link(9), sample::address(10), sample::rule(11), sample::nexthop(12)]);
    events
}

fn page(event: &EventRecord, incident: Option<&Incident>) -> String {
    page_in(&style(), event, incident)
}

fn page_in(style: &Style, event: &EventRecord, incident: Option<&Incident>) -> String {
    explain(style, event, incident, &Explanation::of(event, &Advice::default()))
}

#[test]
fn incidents_as_expected() {
    let all = sample::incidents(samples());
    let list = incidents(&style(), &all, false);
    let wide = incidents(&style(), &all, true);
    golden("incidents.txt", include_str!("golden/incidents.txt"), &format!("{list}\n{wide}"));
    assert!(list.lines().all(|line| width(line) <= WIDTH_MAX), "{list}");
    let pages: Vec<String> = all.iter().map(|incident| page(&incident.head, Some(incident))).collect();
    golden("explain-incidents.txt", include_str!("golden/explain-incidents.txt"), &pages.join("\n"));
}

#[test]
fn events_as_expected() {
    golden("events.txt", include_str!("golden/events.txt"), &table(&samples()));
    golden(
        "events-narrow-actors.txt",
        include_str!("golden/events-narrow-actors.txt"),
        &table(&samples()[1..3]),
    );
    golden(
        "events-wide.txt",
        include_str!("golden/events-wide.txt"),
        &samples().iter().map(|event| wide(&style(), event)).collect::<String>(),
    );
}

#[test]
fn explanations_as_expected() {
    let text: Vec<String> = samples().iter().map(|event| page(event, None)).collect();
    golden("explain.txt", include_str!("golden/explain.txt"), &text.join("\n"));
}

#[test]
fn states_as_expected() {
    golden("status.txt", include_str!("golden/status.txt"), &status(&style(), &sample::status()));
    let (a, b) = (sample::networkd(1).object, sample::script(1).object);
    let changed = ObjectRecord { text: a.text.clone() + " metric 5", ..a.clone() };
    let some = DiffReport::between(&[a.clone(), b.clone()], &[changed]);
    let one = std::slice::from_ref(&a);
    let extra = DiffReport::between(one, &[a.clone(), b.clone()]);
    let none = DiffReport::between(one, one);
    golden(
        "diff.txt",
        include_str!("golden/diff.txt"),
        &[some, extra, none].map(|report| diff(&style(), &report)).join("\n"),
    );
    let held = Snapshot {
        time: sample::networkd(1).time,
        netns: 4_026_531_840,
        observed: false,
        objects: vec![sample::link(1).object, a.clone(), b.clone(), sample::rule(1).object],
    };
    let observed = Snapshot { observed: true, objects: vec![], ..held.clone() };
    golden(
        "snapshot.txt",
        include_str!("golden/snapshot.txt"),
        &[held, observed].map(|state| snapshot(&style(), &state)).join("\n"),
    );
    golden(
        "release.txt",
        include_str!("golden/release.txt"),
        &[(3, None), (1, Some("10.244.2.0/24")), (0, None), (0, Some("10.9.9.0/24"))]
            .map(|(count, key)| released(count, key))
            .concat(),
    );
    let action = |object: &ObjectRecord, result: Option<&str>, failed| PlannedAction {
        verb: "add".into(),
        object: object.clone(),
        result: result.map(Into::into),
        failed,
    };
    let plan =
        RestoreReport { dry_run: true, actions: vec![action(&a, None, false), action(&b, None, false)] };
    let done = RestoreReport {
        dry_run: false,
        actions: vec![
            action(&a, Some("done"), false),
            action(&b, Some("Network is unreachable (101)"), true),
        ],
    };
    golden(
        "restore.txt",
        include_str!("golden/restore.txt"),
        &[plan, done, RestoreReport::default()].map(|r| restore(&style(), &r)).join("\n"),
    );
}

#[test]
fn laid_out_lines_stay_within_their_width() {
    for columns in [80, 100, 200] {
        let style = Style { width: columns, ..style() };
        let events = samples();
        let mut table = EventTable::new(&style, &[]);
        let lines: String = events.iter().map(|event| table.line(event)).collect();
        let text = lines + &status(&style, &sample::status());
        for line in text.lines() {
            assert!(width(line) <= columns.min(WIDTH_MAX), "{} of {columns}: {line}", width(line));
        }
        for line in page_in(&style, &sample::script(1), None).lines() {
            assert!(width(line) <= columns.min(WIDTH_MAX), "{line}");
        }
    }
}

#[test]
fn other_peoples_text_cannot_steer_the_terminal() {
    let hostile = samples().swap_remove(6);
    let mut table = EventTable::new(&style(), &[]);
    let text = table.line(&hostile) + &wide(&style(), &hostile) + &page(&hostile, None);
    assert!(text.chars().all(|c| c == '\n' || !c.is_control() && c != '\u{202e}'), "{text:?}");
}

#[test]
fn colours_only_where_asked_for() {
    let plain = table(&samples());
    assert!(!plain.contains('\x1b'));
    let coloured = Style { colour: true, ..style() };
    let mut table = EventTable::new(&coloured, &samples());
    let text: String = samples().iter().map(|event| table.line(event)).collect();
    assert!(text.contains("\x1b[32mrestored\x1b[0m"));
    let mut stripped = text;
    for code in ["\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m"] {
        stripped = stripped.replace(code, "");
    }
    assert_eq!(stripped, plain);
}

#[test]
fn durations_for_people() {
    for (us, text) in [
        (0, "0 s"),
        (71, "71 µs"),
        (999, "999 µs"),
        (1_000, "1.0 ms"),
        (1_234, "1.2 ms"),
        (9_960, "10 ms"),
        (250_000, "250 ms"),
        (999_600, "1.0 s"),
        (3_400_000, "3.4 s"),
        (59_400_000, "59 s"),
        (59_600_000, "60 s"),
        (125_000_000, "2m05s"),
        (14_520_000_000, "4h02m"),
        (352_800_000_000, "4d2h"),
    ] {
        assert_eq!(micros(us), text);
    }
}

#[test]
fn cut_text_says_so() {
    assert_eq!(elide("abcdef", 6), "abcdef");
    assert_eq!(elide("abcdefg", 6), "abcde…");
    assert_eq!(elide("ab cdefg", 4), "ab…");
    assert_eq!(elide("日本語日本語", 6), "日本…");
    assert_eq!(fit("日本", 6), "日本  ");
    assert_eq!(wrap("one two three", 7), ["one two", "three"]);
    assert_eq!(wrap("", 7), [""]);
}

#[test]
fn processes_go_by_their_executable_not_by_what_they_call_themselves() {
    assert_eq!(
        process_name(Some("/usr/lib/systemd/systemd-networkd"), "systemd-network"),
        "systemd-networkd"
    );
    assert_eq!(process_name(Some("/tmp/evil"), "kube-router"), "evil");
    assert_eq!(process_name(Some("/usr/bin/python3.11"), "tidy.py"), "tidy.py");
    assert_eq!(process_name(Some("/usr/bin/ip (deleted)"), "ip"), "ip");
    assert_eq!(process_name(None, "ip"), "ip");
}
