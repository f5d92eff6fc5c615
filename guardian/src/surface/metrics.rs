//! The metrics, every series of which exists from the start at 0.
//!
//! A counter that is born at 1 never fires an `increase()` alert. No label holds a pid, a command, a prefix
//! or an interface: those are in the event records.

use std::collections::BTreeMap;

use jiff::Timestamp;
use prometheus::{
    Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
    core::{Collector, Metric, MetricVec, MetricVecBuilder},
    process_collector::ProcessCollector,
    proto::MetricFamily,
};

use crate::{
    config::Mode,
    model::{
        ActorClass, Confidence, Family,
        record::{Cause, EventRecord, ObjectKind, Outcome, Verdict},
    },
};

/// The prefix of every name.
const PREFIX: &str = "route_guardian";

/// Where events can be lost.
pub const LOSS_STAGES: [&str; 5] = ["ringbuf", "netlink", "queue", "journal", "follower"];

/// Why the observed state is read again as a whole or in part.
pub const RESYNC_REASONS: [&str; 8] =
    ["start", "silent", "mismatch", "exists", "lost", "truncated", "interrupted", "operator"];

/// The sensors.
pub const SENSORS: [&str; 12] = [
    "tap",
    "identity",
    "interrupt",
    "exec",
    "fork",
    "exit",
    "extack",
    "processes",
    "lookups",
    "cable",
    "fib",
    "netlink",
];

/// What damping does to an object.
pub const DAMPING_TO: [&str; 2] = ["held", "released"];

/// What becomes of changes that Kubernetes is to be told of: an Event was made, another tells of this one too, there were
/// too many different ones, the API server does not take it, it was lost while nobody answered.
pub const KUBE_EVENTS: [&str; 5] = ["created", "updated", "limited", "refused", "dropped"];

/// From the kernel's stamp to the decision, in seconds.
const DETECTION: [f64; 10] = [1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 1e-2, 5e-2, 0.1, 1.0];

/// From the kernel's change to the verified restore, in seconds. The last is kube-router's own sync.
const OUTAGE: [f64; 11] = [1e-4, 5e-4, 1e-3, 5e-3, 1e-2, 5e-2, 0.25, 1.0, 5.0, 30.0, 300.0];

/// What is counted of one kind and family of guarded objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Objects {
    /// In the desired state.
    pub protected: u64,
    /// Of these, not in the kernel.
    pub missing: u64,
    /// Of these, held back.
    pub held: u64,
}

/// Every metric of the guardian. Cheap to share: clones count into the same series.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    mode: IntGaugeVec,
    protected: IntGaugeVec,
    missing: IntGaugeVec,
    held: IntGaugeVec,
    deletions: IntCounterVec,
    actor_deletions: IntCounterVec,
    restores: IntCounterVec,
    attributions: IntCounterVec,
    detection: HistogramVec,
    outage: HistogramVec,
    lost: IntCounterVec,
    resyncs: IntCounterVec,
    sensors: IntGaugeVec,
    damping: IntCounterVec,
    lookups: IntCounterVec,
    kube_events: IntCounterVec,
    last_deletion: GaugeVec,
    last_resync: Gauge,
    reload: IntGauge,
}

/// Registers a family of metrics.
fn family<T: Metric, B: MetricVecBuilder<M = T, P = Opts> + 'static>(
    registry: &Registry,
    make: impl FnOnce(Opts, &[&str]) -> prometheus::Result<MetricVec<B>>,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<MetricVec<B>> {
    register(registry, make(Opts::new(name, help).namespace(PREFIX), labels)?)
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> prometheus::Result<C> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

impl Metrics {
    /// Makes every series. `version` and `commit` are those of the build.
    ///
    /// # Errors
    /// Only if a name were given twice or ill-formed, which the tests exclude.
    pub fn new(version: &str, commit: &str) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let r = &registry;
        let object_family = ["object", "family"];
        let counter = |name, help, labels: &[&str]| family(r, IntCounterVec::new, name, help, labels);
        let gauge = |name, help, labels: &[&str]| family(r, IntGaugeVec::new, name, help, labels);
        let histogram = |name, help, buckets: &[f64]| {
            let opts = HistogramOpts::new(name, help).namespace(PREFIX).buckets(buckets.to_vec());
            register(r, HistogramVec::new(opts, &["object"])?)
        };
        let single = |name, help| Opts::new(name, help).namespace(PREFIX);

        let build = gauge("build_info", "What was built; always 1.", &["version", "commit"])?;
        build.with_label_values(&[version, commit]).set(1);
        registry.register(Box::new(ProcessCollector::for_self()))?;

        let metrics = Self {
            mode: gauge("mode", "1 for the mode that is on: observe or restore.", &["mode"])?,
            protected: gauge("protected_objects", "Objects in the desired state.", &object_family)?,
            missing: gauge(
                "missing_objects",
                "Objects of the desired state that the kernel does not have.",
                &object_family,
            )?,
            held: gauge(
                "held_objects",
                "Objects whose restore is held back by damping or for want of what they need.",
                &object_family,
            )?,
            deletions: counter(
                "deletions_total",
                "Guarded objects that were deleted, replaced or changed, by cause and whose change it was.",
                &["object", "family", "cause", "verdict"],
            )?,
            actor_deletions: counter(
                "actor_deletions_total",
                "Guarded objects that were deleted, replaced or changed, by the class of the actor.",
                &["actor"],
            )?,
            restores: counter(
                "restores_total",
                "What came of undoing changes that were not the owner's.",
                &["object", "family", "outcome"],
            )?,
            attributions: counter(
                "attributions_total",
                "Changes by how surely their actor is known.",
                &["confidence"],
            )?,
            detection: histogram(
                "detection_seconds",
                "From the kernel's change to the guardian's decision.",
                &DETECTION,
            )?,
            outage: histogram(
                "outage_seconds",
                "From the kernel's change to the verified restore.",
                &OUTAGE,
            )?,
            lost: counter("events_lost_total", "Events lost, by where. A resync follows.", &["stage"])?,
            resyncs: counter(
                "resyncs_total",
                "Times the kernel's state was read again, by why.",
                &["reason"],
            )?,
            sensors: gauge("sensor_attached", "1 for each sensor that is attached.", &["sensor"])?,
            damping: counter(
                "damping_transitions_total",
                "Objects that damping began to hold, or released.",
                &["to"],
            )?,
            lookups: counter(
                "failed_lookups_total",
                "Route lookups that failed while an object was missing.",
                &["family"],
            )?,
            kube_events: counter(
                "kube_events_total",
                "Changes that Kubernetes was to be told of by an Event, by what became of that.",
                &["outcome"],
            )?,
            last_deletion: register(
                r,
                GaugeVec::new(
                    single(
                        "last_deletion_timestamp_seconds",
                        "When an object was last changed by another than its owner; 0 for never.",
                    ),
                    &["object"],
                )?,
            )?,
            last_resync: register(
                r,
                Gauge::with_opts(single(
                    "last_resync_timestamp_seconds",
                    "When the kernel's state was last read as a whole; 0 for never.",
                ))?,
            )?,
            reload: register(
                r,
                IntGauge::with_opts(single(
                    "config_last_reload_successful",
                    "1 if the configuration that was last read is the one in use.",
                ))?,
            )?,
            registry: registry.clone(),
        };
        metrics.create_series();
        Ok(metrics)
    }

    /// Touches every combination of labels that can occur.
    fn create_series(&self) {
        for mode in Mode::ALL {
            self.mode.with_label_values(&[mode.as_str()]);
        }
        for &kind in ObjectKind::ALL {
            let object = kind.as_str();
            self.detection.with_label_values(&[object]);
            self.outage.with_label_values(&[object]);
            self.last_deletion.with_label_values(&[object]);
            for &family in kind.families() {
                let family = family_label(family);
                for gauge in [&self.protected, &self.missing, &self.held] {
                    gauge.with_label_values(&[object, family]);
                }
                for cause in Cause::ALL {
                    for verdict in Verdict::ALL {
                        self.deletions.with_label_values(&[object, family, cause.as_str(), verdict.as_str()]);
                    }
                }
                for outcome in Outcome::ALL.iter().filter(|outcome| **outcome != Outcome::Allowed) {
                    self.restores.with_label_values(&[object, family, outcome.as_str()]);
                }
            }
        }
        for family in Family::ALL {
            self.lookups.with_label_values(&[family.as_str()]);
        }
        for class in ActorClass::ALL {
            self.actor_deletions.with_label_values(&[class.as_str()]);
        }
        for confidence in Confidence::ALL {
            self.attributions.with_label_values(&[confidence.as_str()]);
        }
        for (counter, words) in [
            (&self.lost, &LOSS_STAGES[..]),
            (&self.resyncs, &RESYNC_REASONS),
            (&self.damping, &DAMPING_TO),
            (&self.kube_events, &KUBE_EVENTS),
        ] {
            for word in words {
                counter.with_label_values(&[*word]);
            }
        }
        for sensor in SENSORS {
            self.sensors.with_label_values(&[sensor]);
        }
        self.reload.set(1);
    }

    /// Counts an event that is told for the first time.
    pub fn record(&self, event: &EventRecord) {
        let object = event.object.kind.as_str();
        let family = family_label(event.object.family);
        self.deletions
            .with_label_values(&[object, family, event.cause.as_str(), event.verdict.as_str()])
            .inc();
        self.actor_deletions.with_label_values(&[event.actor.class.as_str()]).inc();
        self.attributions.with_label_values(&[event.actor.confidence.as_str()]).inc();
        if let Some(micros) = event.detection_us {
            self.detection.with_label_values(&[object]).observe(micros as f64 / 1e6);
        }
        if event.verdict != Verdict::Owner
            && let Ok(time) = event.time.parse::<Timestamp>()
        {
            let seconds = time.as_microsecond() as f64 / 1e6;
            let last = self.last_deletion.with_label_values(&[object]);
            if seconds > last.get() {
                last.set(seconds);
            }
        }
        self.record_again(event);
    }

    /// Counts what came of an event that was told before: held, and restored since.
    pub fn record_again(&self, event: &EventRecord) {
        if event.outcome == Outcome::Allowed {
            return;
        }
        let object = event.object.kind.as_str();
        let family = family_label(event.object.family);
        self.restores.with_label_values(&[object, family, event.outcome.as_str()]).inc();
        if let (Outcome::Restored | Outcome::AlreadyPresent, Some(micros)) = (event.outcome, event.outage_us)
        {
            self.outage.with_label_values(&[object]).observe(micros as f64 / 1e6);
        }
    }

    /// Sets the mode that is on.
    pub fn set_mode(&self, on: Mode) {
        for mode in Mode::ALL {
            self.mode.with_label_values(&[mode.as_str()]).set(i64::from(mode == on));
        }
    }

    /// Sets the counts of one kind and family of objects.
    pub fn set_objects(&self, kind: ObjectKind, family: Option<Family>, counts: Objects) {
        let labels = [kind.as_str(), family_label(family)];
        self.protected.with_label_values(&labels).set(counts.protected as i64);
        self.missing.with_label_values(&labels).set(counts.missing as i64);
        self.held.with_label_values(&labels).set(counts.held as i64);
    }

    /// Counts events that were lost; `stage` is one of [`LOSS_STAGES`].
    pub fn add_lost(&self, stage: &'static str, count: u64) {
        self.lost.with_label_values(&[stage]).inc_by(count);
    }

    /// Counts a resync, now; `reason` is one of [`RESYNC_REASONS`].
    pub fn add_resync(&self, reason: &'static str) {
        self.resyncs.with_label_values(&[reason]).inc();
        self.last_resync.set(Timestamp::now().as_microsecond() as f64 / 1e6);
    }

    /// Sets whether a sensor is attached; it is one of [`SENSORS`].
    pub fn set_sensor(&self, sensor: &'static str, attached: bool) {
        self.sensors.with_label_values(&[sensor]).set(i64::from(attached));
    }

    /// Counts an object that damping began to hold (`true`) or released.
    pub fn add_damping(&self, held: bool) {
        self.damping.with_label_values(&[DAMPING_TO[usize::from(!held)]]).inc();
    }

    /// Counts route lookups that failed while an object was missing.
    pub fn add_failed_lookups(&self, family: Family, count: u64) {
        self.lookups.with_label_values(&[family.as_str()]).inc_by(count);
    }

    /// Counts changes that Kubernetes was to be told of; `outcome` is one of [`KUBE_EVENTS`].
    pub fn add_kube_events(&self, outcome: &'static str, count: u64) {
        self.kube_events.with_label_values(&[outcome]).inc_by(count);
    }

    /// Sets whether the configuration that was last read is the one in use.
    pub fn set_reload(&self, successful: bool) {
        self.reload.set(i64::from(successful));
    }

    /// The events lost so far, by stage.
    pub fn lost(&self) -> BTreeMap<String, u64> {
        LOSS_STAGES.iter().map(|s| ((*s).to_owned(), self.lost.with_label_values(&[*s]).get())).collect()
    }

    /// The resyncs so far, by reason.
    pub fn resyncs(&self) -> BTreeMap<String, u64> {
        RESYNC_REASONS
            .iter()
            .map(|s| ((*s).to_owned(), self.resyncs.with_label_values(&[*s]).get()))
            .collect()
    }

    /// Everything as it is now, sorted by name.
    pub fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }

    /// The Prometheus text format, version 0.0.4.
    pub fn text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.gather()).unwrap_or_default()
    }
}

fn family_label(family: Option<Family>) -> &'static str {
    family.map_or("none", Family::as_str)
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
