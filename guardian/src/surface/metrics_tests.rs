use super::*;
use crate::surface::sample;

fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find(|line| line.strip_prefix(series).is_some_and(|l| l.starts_with(' ')));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(f64::NAN)
}

fn series(text: &str) -> Vec<&str> {
    let names = text.lines().filter(|line| !line.starts_with('#'));
    names.filter_map(|line| line.rsplit_once(' ')).map(|(name, _)| name).collect()
}

#[test]
fn every_series_exists_before_anything_happens() {
    let metrics = Metrics::new("0.1.0", "abc").unwrap();
    let before = metrics.text();
    assert!(series(&before).len() < 600, "{}", series(&before).len());
    for (name, expected) in [
        ("build_info{commit=\"abc\",version=\"0.1.0\"}", 1.0),
        ("mode{mode=\"restore\"}", 0.0),
        ("protected_objects{family=\"inet\",object=\"route\"}", 0.0),
        ("missing_objects{family=\"inet6\",object=\"route\"}", 0.0),
        ("held_objects{family=\"inet\",object=\"route\"}", 0.0),
        ("protected_objects{family=\"none\",object=\"link\"}", 0.0),
        ("missing_objects{family=\"inet6\",object=\"address\"}", 0.0),
        ("missing_objects{family=\"inet\",object=\"rule\"}", 0.0),
        ("held_objects{family=\"none\",object=\"nexthop\"}", 0.0),
        ("deletions_total{cause=\"request\",family=\"none\",object=\"link\",verdict=\"unknown\"}", 0.0),
        ("outage_seconds_count{object=\"rule\"}", 0.0),
        ("deletions_total{cause=\"request\",family=\"inet\",object=\"route\",verdict=\"foreign\"}", 0.0),
        ("actor_deletions_total{actor=\"networkd\"}", 0.0),
        ("restores_total{family=\"inet\",object=\"route\",outcome=\"restored\"}", 0.0),
        ("attributions_total{confidence=\"none\"}", 0.0),
        ("detection_seconds_count{object=\"route\"}", 0.0),
        ("outage_seconds_bucket{object=\"route\",le=\"300\"}", 0.0),
        ("events_lost_total{stage=\"ringbuf\"}", 0.0),
        ("resyncs_total{reason=\"silent\"}", 0.0),
        ("sensor_attached{sensor=\"tap\"}", 0.0),
        ("damping_transitions_total{to=\"held\"}", 0.0),
        ("failed_lookups_total{family=\"inet6\"}", 0.0),
        ("kube_events_total{outcome=\"dropped\"}", 0.0),
        ("last_deletion_timestamp_seconds{object=\"route\"}", 0.0),
        ("last_resync_timestamp_seconds", 0.0),
        ("config_last_reload_successful", 1.0),
    ] {
        assert!((value(&before, &format!("{PREFIX}_{name}")) - expected).abs() < 1e-9, "{name}\n{before}");
    }
    for name in ["process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"] {
        assert!(value(&before, name) >= 0.0, "{name}");
    }

    // Nothing that can be recorded of an object makes a new series.
    for object in [
        sample::networkd(1).object,
        sample::script(1).object,
        sample::link(1).object,
        sample::address(1).object,
        sample::rule(1).object,
        sample::nexthop(1).object,
    ] {
        for cause in Cause::ALL {
            for verdict in Verdict::ALL {
                for outcome in Outcome::ALL {
                    let mut event = EventRecord { object: object.clone(), ..sample::networkd(1) };
                    (event.cause, event.verdict, event.outcome) = (*cause, *verdict, *outcome);
                    metrics.record(&event);
                }
            }
        }
        metrics.set_objects(object.kind, object.family, Objects::default());
    }
    metrics.set_mode(Mode::Observe);
    metrics.add_damping(false);
    assert_eq!(series(&metrics.text()), series(&before));
}

#[test]
fn an_event_counts_once_and_its_end_once_more() {
    let metrics = Metrics::new("0.1.0", "abc").unwrap();
    let mut event = sample::script(1);
    metrics.record(&event);
    event.outcome = Outcome::Restored;
    event.outage_us = Some(8_000_000);
    metrics.record_again(&event);
    let text = metrics.text();
    let value = |name: &str| value(&text, &format!("{PREFIX}_{name}"));
    for (name, expected) in [
        ("deletions_total{cause=\"request\",family=\"inet6\",object=\"route\",verdict=\"foreign\"}", 1.0),
        ("restores_total{family=\"inet6\",object=\"route\",outcome=\"held\"}", 1.0),
        ("restores_total{family=\"inet6\",object=\"route\",outcome=\"restored\"}", 1.0),
        ("outage_seconds_sum{object=\"route\"}", 8.0),
        ("detection_seconds_sum{object=\"route\"}", 24e-6),
        ("actor_deletions_total{actor=\"iproute2\"}", 1.0),
        ("last_deletion_timestamp_seconds{object=\"route\"}", 1_795_316_521.204_518),
    ] {
        assert!((value(name) - expected).abs() < 1e-6, "{name}: {}\n{text}", value(name));
    }
}

#[test]
fn collecting_starts_no_thread() {
    let threads = || std::fs::read_dir("/proc/self/task").map(Iterator::count).unwrap_or_default();
    let metrics = Metrics::new("0.1.0", "abc").unwrap();
    let names = |text: &str| text.contains("process_threads");
    // The test harness has threads of its own, which come and go: the smallest difference counts.
    let grown = (0..5).map(|_| {
        let before = threads();
        assert!(names(&metrics.text()));
        threads().saturating_sub(before)
    });
    assert_eq!(grown.min(), Some(0));
}
