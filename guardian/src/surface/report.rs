//! What the daemon answers, as plain data: the same on the control socket, in `-o json` and on the status page.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    config::Mode,
    knowledge::{Effect, FileFix, Finding, Level},
    model::{
        Family, Prefix,
        record::{EventRecord, ObjectKind, ObjectRecord},
    },
};

/// How the guardian is, at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    /// The version of the running daemon.
    pub version: String,
    /// The name of the host.
    pub node: String,
    /// The daemon's process id.
    pub pid: u32,
    /// What it does about changes.
    pub mode: Mode,
    /// Which profile is in use.
    pub profile: String,
    /// For how long it has been running, in seconds.
    pub uptime_s: u64,
    /// The inode of the guarded network namespace.
    pub netns: u64,
    /// Whether sensors are attached and the first snapshot was taken.
    pub ready: bool,
    /// Counts for each kind and family of objects.
    pub objects: Vec<ObjectCounts>,
    /// Every sensor that was tried.
    pub sensors: Vec<SensorReport>,
    /// Why it is not at its best, in sentences; empty if it is.
    pub degraded: Vec<String>,
    /// Events lost so far, by stage.
    pub lost: BTreeMap<String, u64>,
    /// Resyncs so far, by reason.
    pub resyncs: BTreeMap<String, u64>,
    /// The last change that was not the owner's.
    pub last: Option<EventRecord>,
    /// What is held back.
    pub held: Vec<HeldReport>,
    /// Whether an owner of the scope is running; `None` from a daemon that does not say.
    #[serde(default)]
    pub owner: Option<OwnerReport>,
}

/// Whether an owner of the scope is running.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerReport {
    /// The owners that are running, at most a few.
    pub pids: Vec<u32>,
    /// Since when none has been running, RFC 3339 in UTC; `None` while one is.
    pub absent_since: Option<String>,
    /// Whether one has been seen since the guardian started.
    pub seen: bool,
    /// From when on nothing is put back for want of an owner; `None` while one is running, or if never.
    pub held_from: Option<String>,
}

impl StatusReport {
    /// Whether everything is as it should be: what decides between exit codes 0 and 1.
    pub fn is_fine(&self) -> bool {
        self.ready
            && self.degraded.is_empty()
            && self.held.is_empty()
            && self.objects.iter().all(|counts| counts.missing == 0 && counts.held == 0)
    }

    /// Why it is not ready; empty if it is.
    pub fn not_ready(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if !self.ready {
            missing.push("the first snapshot has not been taken".to_owned());
        }
        if !self.sensors.iter().any(|sensor| sensor.attached) {
            missing.push("no sensor is attached".to_owned());
        }
        missing
    }
}

/// Counts of one kind and family of guarded objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectCounts {
    /// The kind.
    pub kind: ObjectKind,
    /// The family, where the kind has one.
    pub family: Option<Family>,
    /// In the desired state.
    pub protected: u64,
    /// Of these, not in the kernel.
    pub missing: u64,
    /// Of these, held back.
    pub held: u64,
}

/// A sensor that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SensorReport {
    /// Its name: `tap`, `exec`, `netlink`.
    pub name: String,
    /// Whether it is attached.
    pub attached: bool,
    /// Why it is not, or how well it works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// An object that is held back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldReport {
    /// The object.
    pub object: ObjectRecord,
    /// Whom it is held against, such as `systemd-networkd[812]`.
    pub actor: String,
    /// Why.
    pub why: String,
    /// In how many milliseconds it is tried again; `None`: not by itself.
    pub retry_in_ms: Option<u64>,
}

/// Whether an operator who writes `key` means this object: its key (a prefix, a name, a priority, an id), the text
/// that `ip` would print, or for a destination what `ip` takes: a host's address alone, `default`.
pub fn is_called(object: &ObjectRecord, key: &str) -> bool {
    let prefix = || {
        let any = key == "default"
            && object.family.is_some_and(|family| Prefix::any(family).to_string() == object.key);
        any || key.parse::<Prefix>().is_ok_and(|prefix| prefix.to_string() == object.key)
    };
    object.key == key || object.text == key || (object.kind == ObjectKind::Route && prefix())
}

/// The desired state, or the observed one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// When it was taken: RFC 3339 in UTC.
    pub time: String,
    /// The inode of the network namespace.
    pub netns: u64,
    /// Whether this is what the guardian believes that the kernel holds, not what is desired.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub observed: bool,
    /// The objects, sorted by kind, family, table and key.
    pub objects: Vec<ObjectRecord>,
}

/// An object that is there, but not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// As it should be.
    pub desired: ObjectRecord,
    /// As it is.
    pub observed: ObjectRecord,
}

/// Desired state against the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffReport {
    /// Desired, and not in the kernel.
    pub missing: Vec<ObjectRecord>,
    /// In the kernel, but different.
    pub different: Vec<Difference>,
    /// In scope and in the kernel, but not desired.
    pub extra: Vec<ObjectRecord>,
    /// How many are as they should be.
    pub same: u64,
}

impl DiffReport {
    /// Compares two states. Objects are the same if `ip` would print the same of them; of the others,
    /// those of one kind, family, table and key are taken for different forms of one object.
    pub fn between(desired: &[ObjectRecord], observed: &[ObjectRecord]) -> Self {
        let mut report = Self::default();
        let mut rest: BTreeMap<_, Vec<&ObjectRecord>> = BTreeMap::new();
        for object in observed {
            rest.entry(identity(object)).or_default().push(object);
        }
        let mut unmatched = Vec::new();
        for object in desired {
            let candidates = rest.entry(identity(object)).or_default();
            match candidates.iter().position(|other| other.text == object.text) {
                Some(index) => {
                    candidates.remove(index);
                    report.same += 1;
                }
                None => unmatched.push(object),
            }
        }
        for object in unmatched {
            match rest.get_mut(&identity(object)).and_then(Vec::pop) {
                Some(other) => {
                    report.different.push(Difference { desired: object.clone(), observed: other.clone() });
                }
                None => report.missing.push(object.clone()),
            }
        }
        report.extra = rest.into_values().flatten().cloned().collect();
        report
    }

    /// Whether the kernel has exactly the desired state.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.different.is_empty() && self.extra.is_empty()
    }
}

fn identity(object: &ObjectRecord) -> (ObjectKind, Option<Family>, Option<u32>, &str) {
    (object.kind, object.family, object.table, &object.key)
}

/// One write of a restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedAction {
    /// `add`, `append`, `replace` or `remove`.
    pub verb: String,
    /// The object that is written.
    pub object: ObjectRecord,
    /// What came of it, once done: `done`, or why not. `None` in a dry run.
    pub result: Option<String>,
    /// Whether it failed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
}

/// A restore that was asked for, or its plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreReport {
    /// Whether nothing was written.
    pub dry_run: bool,
    /// The writes, in their order.
    pub actions: Vec<PlannedAction>,
}

/// A part of what `doctor` looks at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FindingGroup {
    /// What it is about.
    pub name: String,
    /// What was found.
    pub findings: Vec<Finding>,
}

/// What `doctor` found, and what would put it right.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// By subject.
    pub groups: Vec<FindingGroup>,
    /// The files of the remedy.
    pub files: Vec<FileFix>,
    /// What they do not prevent.
    pub not_prevented: Vec<String>,
    /// How they take effect.
    pub effects: Vec<Effect>,
}

impl Diagnosis {
    /// How many findings are this bad.
    pub fn count(&self, level: Level) -> usize {
        self.groups.iter().flat_map(|group| &group.findings).filter(|finding| finding.level == level).count()
    }

    /// Whether nothing is wrong.
    pub fn is_well(&self) -> bool {
        self.count(Level::Wrong) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::surface::sample;

    #[test]
    fn objects_are_called_by_key_text_or_what_ip_takes() {
        let route = |key: &str| ObjectRecord { key: key.into(), ..sample::networkd(1).object };
        assert!(is_called(&route("10.244.2.0/24"), "10.244.2.0/24"));
        assert!(is_called(&route("10.244.2.0/24"), "10.244.2.0/24 via 10.0.0.11 dev eth0 proto 17"));
        assert!(is_called(&route("10.0.0.1/32"), "10.0.0.1") && is_called(&route("0.0.0.0/0"), "default"));
        assert!(
            !is_called(&route("10.244.2.0/24"), "10.244.2.0") && !is_called(&route("10.0.0.0/8"), "default")
        );
        let rule = sample::rule(1).object;
        assert!(is_called(&rule, "32765") && !is_called(&rule, "3276") && !is_called(&rule, "default"));
    }

    #[test]
    fn a_state_differs_in_three_ways() {
        let route = |key: &str, text: &str| ObjectRecord {
            key: key.into(),
            text: text.into(),
            ..sample::networkd(1).object
        };
        let desired =
            [route("a", "a dev x"), route("b", "b dev x"), route("c", "c dev x"), route("c", "c dev y")];
        let observed = [route("a", "a dev x"), route("c", "c dev y"), route("c", "c dev z"), route("d", "d")];
        let report = DiffReport::between(&desired, &observed);
        assert_eq!(report.missing, [route("b", "b dev x")]);
        assert_eq!(
            report.different,
            [Difference { desired: route("c", "c dev x"), observed: route("c", "c dev z") }]
        );
        assert_eq!(report.extra, [route("d", "d")]);
        assert_eq!(report.same, 2);
        assert!(!report.is_empty() && DiffReport::between(&desired, &desired).is_empty());
    }
}
