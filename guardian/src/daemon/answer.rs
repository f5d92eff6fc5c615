//! Answers to what the edges ask.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    os::unix::fs::MetadataExt as _,
    sync::Arc,
};

use tokio::{sync::oneshot, task::spawn_blocking};

use super::{clock, guard::Guard, record::object};
use crate::{
    core::Reason,
    model::{
        Actor, Links, Mode, Object,
        record::{ObjectKind, ObjectRecord, Outcome},
    },
    netlink::dump,
    sensor::SensorStatus,
    sensor::is_optional,
    surface::{
        ask::Ask,
        report::{
            DiffReport, HeldReport, ObjectCounts, OwnerReport, PlannedAction, RestoreReport, SensorReport,
            Snapshot, StatusReport, is_called,
        },
        text,
    },
};

impl Guard {
    /// Answers one question. Who asked may have given up meanwhile.
    pub(super) fn answer(&mut self, ask: Ask) {
        self.tell();
        match ask {
            Ask::Heartbeat(reply) => {
                let _ = reply.send(());
            }
            Ask::Status(reply) => {
                let _ = reply.send(self.status());
            }
            Ask::Snapshot { observed, reply } => {
                let _ = reply.send(self.snapshot(observed));
            }
            Ask::Diff { desired, reply } => {
                self.diff(desired, reply);
            }
            Ask::Restore { dry_run, reply } => {
                let report = self.restore(dry_run);
                let _ = reply.send(report);
            }
            Ask::Release { key, reply } => {
                let chosen = |o: &Object, links: &Links| {
                    key.as_deref().is_none_or(|key| is_called(&object(o, links), key))
                };
                let _ = reply.send(self.core.release(chosen));
            }
            Ask::Reload(reply) => {
                let _ = reply.send(self.reload());
            }
        }
    }

    fn status(&self) -> StatusReport {
        let sensors = self.source.status(self.without_tap.as_deref());
        StatusReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned(),
            pid: std::process::id(),
            mode: self.core.mode(),
            profile: self.config.profile.clone(),
            uptime_s: clock::now().since(self.started).as_secs(),
            netns: netns(),
            ready: self.core.is_synced(),
            objects: self.object_counts(),
            degraded: self.degraded(&sensors),
            sensors: sensors
                .into_iter()
                .map(|s| SensorReport { name: s.name.to_owned(), attached: s.attached, why: s.why })
                .collect(),
            lost: BTreeMap::new(),
            resyncs: BTreeMap::new(),
            last: self.last.clone(),
            held: self.held(),
            owner: Some(self.owner_report()),
        }
    }

    fn owner_report(&self) -> OwnerReport {
        let since = self.owner_watch.gone_since();
        let time = |at| clock::rfc3339(clock::wall(at));
        // A moment to come, which is no stamp yet.
        let held_from = since
            .zip(self.config.owner.absent_after)
            .map(|(since, after)| clock::rfc3339(clock::wall(since) + after));
        OwnerReport {
            pids: self.owner_watch.pids(),
            absent_since: since.map(time),
            seen: self.owner_watch.was_seen(),
            held_from,
        }
    }

    pub(super) fn object_counts(&self) -> Vec<ObjectCounts> {
        let of = |(kind, family)| {
            let counts = self.core.counts(kind, family);
            let [protected, missing, held] =
                [counts.protected, counts.missing, counts.held].map(|count| count as u64);
            ObjectCounts { kind, family, protected, missing, held }
        };
        ObjectKind::with_families().map(of).collect()
    }

    fn degraded(&self, sensors: &[SensorStatus]) -> Vec<String> {
        let mut all = Vec::new();
        if let Some(why) = &self.rejected {
            let why = why.replace('\n', "; ");
            all.push(format!(
                "the configuration was read again and not taken, the one before is kept: {why}"
            ));
        }
        if let Some(why) = &self.without_tap {
            all.push(format!("no actor can be named: there is no tap ({why})"));
            return all;
        }
        let missing = sensors.iter().filter(|sensor| !sensor.attached && !is_optional(sensor.name));
        all.extend(missing.map(|sensor| {
            let why = sensor.why.as_deref().unwrap_or("it is not attached");
            format!("sensor {}: {why}", sensor.name)
        }));
        all
    }

    fn held(&self) -> Vec<HeldReport> {
        let now = clock::now();
        self.core
            .missing()
            .into_iter()
            .filter(|missing| missing.outcome == Some(Outcome::Held))
            .map(|missing| HeldReport {
                object: object(&missing.object, self.core.links()),
                actor: missing.actor.as_deref().map(name).unwrap_or_default(),
                why: missing.error.unwrap_or_default(),
                retry_in_ms: missing
                    .retry
                    .map(|at| u64::try_from(at.since(now).as_millis()).unwrap_or(u64::MAX)),
            })
            .collect()
    }

    fn objects<'a>(&self, objects: impl IntoIterator<Item = &'a Object>) -> Vec<ObjectRecord> {
        objects.into_iter().map(|o| object(o, self.core.links())).collect()
    }

    fn snapshot(&self, observed: bool) -> Snapshot {
        let objects = if observed { self.core.observed() } else { self.core.desired() };
        Snapshot {
            observed,
            time: clock::rfc3339(clock::wall(clock::now())),
            netns: netns(),
            objects: self.objects(objects.iter().map(Arc::as_ref)),
        }
    }

    /// Reads the kernel and compares, beside the guard loop: it may take seconds.
    fn diff(&self, desired: Option<Snapshot>, reply: oneshot::Sender<Result<DiffReport, String>>) {
        let desired = desired.map_or_else(|| self.snapshot(false).objects, |snapshot| snapshot.objects);
        let scope = self.core.scope().clone();
        // Guarded because they are referred to, whatever the scope says of them.
        let nexthops: HashSet<u32> = self
            .core
            .desired()
            .iter()
            .filter_map(|o| if let Object::Nexthop(n) = &**o { Some(n.id) } else { None })
            .collect();
        spawn_blocking(move || {
            let report = dump().map_err(|error| error.to_string()).map(|state| {
                let links = state.links();
                let ports = links.iter().filter_map(|link| link.port.clone().map(Object::Port));
                let all: Vec<Object> = state.objects.iter().cloned().chain(ports).collect();
                let covered = all.iter().filter(|o| {
                    scope.covers(o, &links) || matches!(o, Object::Nexthop(n) if nexthops.contains(&n.id))
                });
                let observed: Vec<_> = covered.map(|o| object(o, &links)).collect();
                DiffReport::between(&desired, &observed)
            });
            let _ = reply.send(report);
        });
    }

    fn restore(&mut self, dry_run: bool) -> Result<RestoreReport, String> {
        let plan = self.core.would_write();
        let action = |verb: &str, object, result: Option<String>, failed| PlannedAction {
            verb: verb.to_owned(),
            object,
            result,
            failed,
        };
        if dry_run {
            let actions = plan
                .iter()
                .map(|a| action(a.verb(), object(a.object(), self.core.links()), None, false))
                .collect();
            return Ok(RestoreReport { dry_run, actions });
        }
        if self.core.mode() == Mode::Observe {
            return Err("the guardian only observes: start it with --mode restore to have it write".into());
        }
        self.core.release(|_, _| true);
        self.want(Reason::Operator);
        while self.turn() {}
        self.tell();
        let missing = self.core.missing();
        let actions = plan
            .iter()
            .map(|a| {
                let left = missing.iter().find(|m| m.object.same(a.object()));
                let why = left.map(|m| m.error.clone().unwrap_or_else(|| "still missing".into()));
                let failed = why.is_some();
                action(a.verb(), object(a.object(), self.core.links()), why.or(Some("done".into())), failed)
            })
            .collect();
        Ok(RestoreReport { dry_run, actions })
    }
}

/// An actor in a word or two.
fn name(actor: &Actor) -> String {
    text::actor_name(&crate::attribution::actor_record(actor))
}

/// The inode of the network namespace.
pub(super) fn netns() -> u64 {
    fs::metadata("/proc/self/ns/net").map_or(0, |meta| meta.ino())
}
