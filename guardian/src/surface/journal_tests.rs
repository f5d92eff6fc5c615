use super::*;
use crate::{
    model::record::Outcome,
    surface::{
        query::{self, Query},
        sample,
    },
};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn all(dir: &Path) -> query::Found {
    query::read(dir, &Query::default(), Query::READ).unwrap()
}

#[test]
fn what_is_appended_is_found_newest_last() {
    let dir = folder();
    let mut journal = Journal::open(dir.path(), 1 << 20).unwrap();
    for n in 0..5 {
        assert_eq!(journal.append(&sample::networkd(n)), 0);
    }
    let found = all(dir.path());
    assert_eq!(found.events, (0..5).map(sample::networkd).collect::<Vec<_>>());
    let last = Query { last: Some(2), ..Query::default() };
    assert_eq!(
        query::read(dir.path(), &last, Query::READ).unwrap().events,
        [sample::networkd(3), sample::networkd(4)]
    );
}

#[test]
fn a_later_line_supersedes_an_earlier_one() {
    let dir = folder();
    let mut journal = Journal::open(dir.path(), 1 << 20).unwrap();
    journal.append(&sample::script(1));
    journal.append(&sample::networkd(2));
    let mut later = sample::script(1);
    later.outcome = Outcome::Restored;
    later.outage_us = Some(8_000_000);
    journal.append(&later);
    assert_eq!(all(dir.path()).events, [later, sample::networkd(2)]);
}

#[test]
fn rotation_keeps_the_newest_and_the_bound() {
    let dir = folder();
    let max = 64 << 10;
    let mut journal = Journal::open(dir.path(), max).unwrap();
    for n in 0..500 {
        journal.append(&sample::networkd(n));
    }
    let files = segments(dir.path());
    assert_eq!(files.len(), SEGMENTS as usize);
    let total: u64 = files.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert!(total <= max && total > max / 2, "{total}");
    let events = all(dir.path()).events;
    assert_eq!(events.last(), Some(&sample::networkd(499)));
    assert!(events.windows(2).all(|pair| pair[0].id < pair[1].id));
}

#[test]
fn a_torn_line_is_skipped_counted_and_cut_off() {
    let dir = folder();
    let mut journal = Journal::open(dir.path(), 1 << 20).unwrap();
    journal.append(&sample::networkd(1));
    drop(journal);
    let path = dir.path().join("events.jsonl");
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"{\"id\":\"01J").unwrap();
    let found = all(dir.path());
    assert_eq!((found.events.len(), found.torn), (1, 1));

    let mut journal = Journal::open(dir.path(), 1 << 20).unwrap();
    journal.append(&sample::networkd(2));
    let found = all(dir.path());
    assert_eq!((found.events.len(), found.torn), (2, 0));
}

#[test]
fn a_refused_write_waits_and_is_tried_again() {
    let dir = folder();
    let mut journal = Journal::open(dir.path(), 1 << 20).unwrap();
    // What a full disk looks like to the writer.
    journal.file = Some(OpenOptions::new().write(true).open("/dev/full").unwrap());
    assert_eq!(journal.append(&sample::networkd(1)), 0);
    assert!(journal.failure().unwrap().contains("No space left"), "{:?}", journal.failure());
    assert_eq!(journal.waiting(), 1);
    assert_eq!(journal.append(&sample::networkd(2)), 0);
    assert_eq!((journal.waiting(), journal.failure()), (0, None));
    assert_eq!(all(dir.path()).events.len(), 2);
}

#[test]
fn what_waits_is_bounded_and_the_loss_counted() {
    let dir = folder();
    let mut journal = Journal::open(dir.path(), 1 << 20).unwrap();
    let written = dir.path().join("events.jsonl");
    let mut lost = 0;
    for n in 0..WAITING_MAX as u32 + 3 {
        // Nobody can open a folder for writing.
        if n == 0 {
            journal.file = None;
            fs::remove_file(&written).unwrap();
            fs::create_dir(&written).unwrap();
        }
        lost += journal.append(&sample::networkd(n));
    }
    assert_eq!((lost, journal.lost(), journal.waiting()), (3, 3, WAITING_MAX));
}

#[test]
fn queries_restrict() {
    let dir = folder();
    let mut journal = Journal::open(dir.path(), 1 << 20).unwrap();
    journal.append(&sample::networkd(1));
    journal.append(&sample::script(2));
    journal.append(&sample::nobody(3));
    let ids = |query: Query| -> Vec<String> {
        let found = query::read(dir.path(), &query, Query::READ).unwrap();
        found
            .events
            .into_iter()
            .map(|e| e.id.trim_start_matches("01JD").trim_start_matches('0').into())
            .collect()
    };
    let object = |text: &str| ids(Query { object: Some(text.into()), ..Query::default() });
    let actor = |text: &str| ids(Query { actor: Some(text.into()), ..Query::default() });
    assert_eq!(object("10.244.0.0/16"), ["1", "3"]);
    assert_eq!(object("10.244.2.0/24"), ["1", "3"]);
    assert_eq!(object("10.99.0.0/16"), [""; 0]);
    assert_eq!(object("tun-e4"), ["2"]);
    assert_eq!(actor("networkd"), ["1"]);
    assert_eq!(actor("cron"), ["2"]);
    assert_eq!(actor("1234567"), ["2"]);
    assert_eq!(actor("unknown"), ["3"]);
    let since = "2026-11-22T03:02:02.204518Z".parse().ok();
    assert_eq!(ids(Query { since, ..Query::default() }), ["2", "3"]);
    assert_eq!(ids(Query { until: since, ..Query::default() }), ["1"]);
    assert_eq!(ids(Query { id: Some("2".into()), ..Query::default() }), ["2"]);
}

#[test]
fn an_unusable_folder_is_a_clear_error() {
    let dir = folder();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Journal::open(&file, 1 << 20).unwrap_err().to_string();
    assert!(error.contains("cannot make the state folder") && error.contains("--state-dir"), "{error}");
    let error = prepare(Path::new("/proc/route-guardian")).unwrap_err().to_string();
    assert!(error.contains("/proc/route-guardian"), "{error}");
}

#[test]
fn a_new_folder_is_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = folder();
    let state = dir.path().join("a/b");
    prepare(&state).unwrap();
    assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o027, 0);
    assert_eq!(fs::read_dir(&state).unwrap().count(), 0);
}
