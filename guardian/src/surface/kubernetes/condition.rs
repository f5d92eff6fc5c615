//! The Node's condition `RouteGuardianDegraded`, as node-problem-detector keeps its own.
//!
//! There is no clock and no I/O in it. No other condition is touched: a strategic merge patch goes by the type.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    model::Stamp,
    surface::{
        ask::AskError,
        report::StatusReport,
        text::{clean, elide, object_name},
    },
};

/// Its type.
pub(super) const TYPE: &str = "RouteGuardianDegraded";

/// How often it is said that it still holds: as often as the kubelet does (`nodeStatusReportFrequency`).
const HEARTBEAT: Duration = Duration::from_secs(300);

/// The most columns of the message.
const MESSAGE_MAX: usize = 512;

/// How the guardian is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Health {
    /// Whether something is not as it should be.
    pub degraded: bool,
    /// What, in `CamelCase`.
    pub reason: &'static str,
    /// The same for people.
    pub message: String,
}

impl Health {
    /// From what the guard says of itself; `None` where it has no time to say, or ends.
    pub fn of(answer: &Result<StatusReport, AskError>) -> Option<Self> {
        let bad = |reason, message: String| Some(Self { degraded: true, reason, message });
        let status = match answer {
            Ok(status) => status,
            Err(AskError::Stuck(_)) => return bad("GuardStuck", "the guard loop does not answer".into()),
            Err(AskError::Busy | AskError::Ended) => return None,
        };
        let sum = |of: fn(&_) -> u64| status.objects.iter().map(of).sum::<u64>();
        let (missing, held) = (sum(|counts| counts.missing), sum(|counts| counts.held));
        if !status.ready {
            return bad("NotReady", "the first snapshot has not been taken".into());
        }
        if missing + held > 0 || !status.held.is_empty() {
            let why = status
                .held
                .first()
                .map(|first| format!(", such as {}: {}", object_name(&first.object), clean(&first.why)));
            let message =
                format!("{missing} guarded objects are missing, {held} held back{}", why.unwrap_or_default());
            let reason = if missing > 0 { "ObjectsMissing" } else { "RestoresHeld" };
            return bad(reason, elide(&message, MESSAGE_MAX));
        }
        if let Some(first) = status.degraded.first() {
            return bad("SensorsDegraded", elide(&clean(first), MESSAGE_MAX));
        }
        let message = "everything that is guarded is in place".into();
        Some(Self { degraded: false, reason: "Guarding", message })
    }
}

/// What is known of the condition that the Node has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Known {
    /// Nothing: it is to be asked.
    #[default]
    Unasked,
    /// There is none.
    Absent,
    /// Its status.
    Degraded(bool),
}

/// The condition, and what the API server has of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Condition {
    /// What it has.
    pub known: Known,
    written: Option<(bool, &'static str, Stamp)>,
}

impl Condition {
    /// Whether there is something to write.
    pub fn is_due(&self, now: Stamp, health: &Health) -> bool {
        self.written.is_none_or(|(degraded, reason, at)| {
            (degraded, reason) != (health.degraded, health.reason) || now.since(at) >= HEARTBEAT
        })
    }

    /// The patch of the Node's status. When the status is the same as before, the time of its transition is left as it
    /// is, also that of a guardian before this one.
    pub fn patch(&self, wall: Timestamp, health: &Health) -> Value {
        let time = format!("{wall:.0}");
        let mut condition = json!({
            "type": TYPE,
            "status": if health.degraded { "True" } else { "False" },
            "reason": health.reason,
            "message": health.message,
            "lastHeartbeatTime": time,
        });
        if self.known != Known::Degraded(health.degraded) {
            condition["lastTransitionTime"] = time.into();
        }
        json!({"status": {"conditions": [condition]}})
    }

    /// It was taken.
    pub fn wrote(&mut self, now: Stamp, health: &Health) {
        self.known = Known::Degraded(health.degraded);
        self.written = Some((health.degraded, health.reason, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::surface::sample;

    fn health(change: impl FnOnce(&mut StatusReport)) -> Health {
        let mut status = sample::status();
        status.degraded.clear();
        status.held.clear();
        for counts in &mut status.objects {
            (counts.missing, counts.held) = (0, 0);
        }
        change(&mut status);
        let health = Health::of(&Ok(status.clone())).unwrap();
        assert_eq!(health.degraded, !status.is_fine(), "`status` sees it otherwise: {health:?}");
        health
    }

    #[test]
    fn it_says_what_status_says() {
        assert_eq!(health(|_| {}).reason, "Guarding");
        assert_eq!(health(|status| status.ready = false).reason, "NotReady");
        let missing = health(|status| {
            status.objects[0].missing = 2;
            status.held = sample::status().held;
        });
        assert_eq!(missing.reason, "ObjectsMissing");
        assert!(
            missing.message.starts_with("2 guarded objects are missing, 0 held back, such as "),
            "{missing:?}"
        );
        assert_eq!(health(|status| status.objects[0].held = 1).reason, "RestoresHeld");
        let blind = health(|status| status.degraded.push("no actor can be named".into()));
        assert_eq!((blind.reason, blind.message.as_str()), ("SensorsDegraded", "no actor can be named"));
        let stuck = Health::of(&Err(AskError::Stuck(Duration::from_secs(1)))).unwrap();
        assert_eq!((stuck.degraded, stuck.reason), (true, "GuardStuck"));
        assert_eq!(Health::of(&Err(AskError::Busy)), None);
    }

    #[test]
    fn it_is_written_when_it_changes_and_every_few_minutes() {
        let at = |seconds| Stamp(0).after(Duration::from_secs(seconds));
        let wall = |seconds: i64| Timestamp::from_second(1_795_316_531 + seconds).unwrap();
        let good = health(|_| {});
        let bad = health(|status| status.objects[0].missing = 1);
        let mut condition = Condition { known: Known::Absent, ..Condition::default() };
        assert!(condition.is_due(at(0), &good));
        let patch = condition.patch(wall(0), &good);
        let written = &patch["status"]["conditions"][0];
        assert_eq!(
            (
                &written["type"],
                &written["status"],
                &written["lastTransitionTime"],
                &written["lastHeartbeatTime"]
            ),
            (&json!(TYPE), &json!("False"), &json!("2026-11-22T03:02:11Z"), &json!("2026-11-22T03:02:11Z"))
        );
        condition.wrote(at(0), &good);
        assert!(!condition.is_due(at(299), &good) && condition.is_due(at(300), &good));
        // A heartbeat is no transition.
        assert!(
            condition.patch(wall(300), &good)["status"]["conditions"][0].get("lastTransitionTime").is_none()
        );
        assert!(condition.is_due(at(10), &bad));
        let patch = condition.patch(wall(10), &bad);
        assert_eq!(patch["status"]["conditions"][0]["lastTransitionTime"], "2026-11-22T03:02:21Z");
        // Nor is a restart.
        let after = Condition { known: Known::Degraded(true), ..Condition::default() };
        assert!(after.is_due(at(0), &bad));
        assert!(after.patch(wall(0), &bad)["status"]["conditions"][0].get("lastTransitionTime").is_none());
    }
}
