//! Event records for the tests of the surfaces.

use std::sync::Arc;

use super::{
    incident::{self, Incident},
    journal::Journal,
    query::Query,
    report::{HeldReport, ObjectCounts, OwnerReport, SensorReport, StatusReport},
};
use crate::{
    config::Mode,
    model::{
        ActorClass, Confidence, Family,
        record::{
            ActorRecord, AncestorRecord, Cause, Change, EventRecord, ObjectKind, ObjectRecord, Outcome,
            Verdict,
        },
    },
};

/// An ancestor without arguments.
pub fn ancestor(pid: u32, comm: &str, exe: &str) -> AncestorRecord {
    AncestorRecord { pid, comm: comm.into(), exe: Some(exe.into()), ..AncestorRecord::default() }
}

/// networkd deleted a route, and it is back.
pub fn networkd(n: u32) -> EventRecord {
    EventRecord {
        id: format!("01JD{n:022}"),
        incident: "01JDINCIDENT00000000000000".into(),
        time: format!("2026-11-22T03:02:{:02}.204518Z", n % 60),
        object: ObjectRecord {
            kind: ObjectKind::Route,
            family: Some(Family::Inet),
            key: "10.244.2.0/24".into(),
            table: Some(254),
            text: "10.244.2.0/24 via 10.0.0.11 dev eth0 proto 17".into(),
        },
        change: Change::Deleted,
        cause: Cause::Request,
        actor: Arc::new(ActorRecord {
            class: ActorClass::Networkd,
            pid: Some(812),
            start_ns: Some(5_000_000_000),
            comm: "systemd-network".into(),
            exe: Some("/usr/lib/systemd/systemd-networkd".into()),
            argv: vec!["/lib/systemd/systemd-networkd".into()],
            argv_cut: false,
            uid: Some(101),
            login_uid: None,
            cgroup: Some("/system.slice/systemd-networkd.service".into()),
            unit: Some("systemd-networkd.service".into()),
            container: None,
            pod: None,
            ancestors: vec![ancestor(1, "systemd", "/usr/lib/systemd/systemd")],
            confidence: Confidence::Exact,
            ..ActorRecord::default()
        }),
        verdict: Verdict::Foreign,
        outcome: Outcome::Restored,
        detection_us: Some(24),
        outage_us: Some(71),
        origin: None,
        failed_lookups: None,
        let_go: false,
        error: None,
        detail: None,
    }
}

/// `ip route flush` in a script of a cron job replaced a long route, and it is held.
pub fn script(n: u32) -> EventRecord {
    let mut event = networkd(n);
    event.object = ObjectRecord {
        kind: ObjectKind::Route,
        family: Some(Family::Inet6),
        key: "fd00:10:244:2::/64".into(),
        table: Some(77),
        text: "fd00:10:244:2::/64 via fe80::5054:ff:fe12:3456 dev tun-e443169117a table 77 proto 17 metric \
               1024 mtu 1480 nexthop via fe80::1 dev eth0 weight 1"
            .into(),
    };
    event.actor = Arc::new(ActorRecord {
        class: ActorClass::Iproute2,
        pid: Some(1_234_567),
        start_ns: Some(9_000_000_000),
        comm: "ip".into(),
        exe: Some("/usr/bin/ip".into()),
        argv: ["ip", "-6", "route", "flush", "proto", "17"].map(Into::into).to_vec(),
        uid: Some(0),
        cgroup: Some("/system.slice/cron.service".into()),
        unit: Some("cron.service".into()),
        ancestors: vec![
            AncestorRecord {
                pid: 1_234_560,
                comm: "tidy.sh".into(),
                exe: Some("/usr/bin/bash".into()),
                argv: vec!["/bin/bash".into(), "/etc/cron.hourly/tidy.sh".into()],
                ..AncestorRecord::default()
            },
            ancestor(900, "cron", "/usr/sbin/cron"),
            ancestor(1, "systemd", "/usr/lib/systemd/systemd"),
        ],
        confidence: Confidence::Exact,
        ..ActorRecord::default()
    });
    event.outcome = Outcome::Held;
    event.outage_us = None;
    event.error = Some("undone 5 times by the same actor; next attempt in 8s".into());
    event
}

/// A link went down, and nobody can be named.
pub fn nobody(n: u32) -> EventRecord {
    let mut event = networkd(n);
    event.cause = Cause::LinkDown;
    event.actor = Arc::default();
    event.verdict = Verdict::Unknown;
    event.outcome = Outcome::Restored;
    event.outage_us = Some(2_004_311);
    event.detection_us = Some(80);
    event
}

/// `ip link set kube-bridge down` in the script, and it is up again.
pub fn link(n: u32) -> EventRecord {
    let mut event = of(n, ObjectKind::Link, None, "kube-bridge", "kube-bridge type bridge mtu 1500 up");
    event.actor = script(n).actor;
    Arc::make_mut(&mut event.actor).argv =
        ["ip", "link", "set", "kube-bridge", "down"].map(Into::into).to_vec();
    event.change = Change::Down;
    event
}

/// An address went with another one.
pub fn address(n: u32) -> EventRecord {
    let text = "10.244.1.1/24 dev kube-bridge";
    let mut event = of(n, ObjectKind::Address, Some(Family::Inet), "10.244.1.1/24", text);
    event.cause = Cause::AddressRemoved;
    event
}

/// networkd removed kube-router's rule.
pub fn rule(n: u32) -> EventRecord {
    let text = "32765: from 10.244.1.0/24 lookup 77";
    let mut event = of(n, ObjectKind::Rule, Some(Family::Inet), "32765", text);
    event.object.table = Some(77);
    event
}

/// A nexthop object was found changed.
pub fn nexthop(n: u32) -> EventRecord {
    let text = "id 7 via 10.0.0.11 dev eth0 proto 17";
    let mut event = of(n, ObjectKind::Nexthop, None, "7", text);
    event.change = Change::Changed;
    event.detail = Some("via 10.0.0.11 → via 10.0.0.66".into());
    event.cause = Cause::Unknown;
    event.actor = Arc::default();
    event.verdict = Verdict::Unknown;
    event
}

fn of(n: u32, kind: ObjectKind, family: Option<Family>, key: &str, text: &str) -> EventRecord {
    let object = ObjectRecord { kind, family, key: key.into(), table: None, text: text.into() };
    EventRecord { object, ..networkd(n) }
}

/// Incidents of these events, one an actor, and of networkd one before them.
pub fn incidents(mut events: Vec<EventRecord>) -> Vec<Incident> {
    for event in &mut events {
        event.incident = format!("01JDINCIDENT000000{:08}", event.actor.pid.unwrap_or_default());
    }
    let mut earlier = networkd(0);
    earlier.incident = "01JD0000000000000000000000".into();
    earlier.time = "2026-11-21T23:00:00.000001Z".into();
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(dir.path(), 1 << 20).unwrap();
    for event in [earlier].iter().chain(&events) {
        journal.append(event);
    }
    incident::read(dir.path(), &Query::default(), 100).unwrap().incidents
}

fn counts(kind: ObjectKind, family: Option<Family>, protected: u64, missing: u64) -> ObjectCounts {
    ObjectCounts { kind, family, protected, missing, held: missing }
}

/// A daemon that holds an object back.
pub fn status() -> StatusReport {
    StatusReport {
        version: "0.1.0".into(),
        node: "node-7".into(),
        pid: 4242,
        mode: Mode::Restore,
        profile: "kube-router".into(),
        uptime_s: 4 * 86_400 + 2 * 3_600 + 120,
        netns: 4_026_531_840,
        ready: true,
        objects: vec![
            counts(ObjectKind::Link, None, 3, 0),
            counts(ObjectKind::Address, Some(Family::Inet), 3, 0),
            counts(ObjectKind::Address, Some(Family::Inet6), 1, 0),
            counts(ObjectKind::Route, Some(Family::Inet), 42, 0),
            counts(ObjectKind::Route, Some(Family::Inet6), 40, 1),
            counts(ObjectKind::Rule, Some(Family::Inet), 3, 1),
            counts(ObjectKind::Rule, Some(Family::Inet6), 0, 0),
            counts(ObjectKind::Nexthop, None, 0, 0),
        ],
        sensors: vec![
            SensorReport { name: "tap".into(), attached: true, why: None },
            SensorReport {
                name: "exec".into(),
                attached: false,
                why: Some("the kernel refused: operation not permitted".into()),
            },
            SensorReport { name: "netlink".into(), attached: true, why: None },
        ],
        degraded: vec!["the exec sensor is not attached: short-lived processes may go unnamed".into()],
        lost: [("ringbuf".to_owned(), 0), ("netlink".to_owned(), 0)].into(),
        resyncs: [("start".to_owned(), 1), ("netlink".to_owned(), 2)].into(),
        owner: Some(OwnerReport {
            pids: Vec::new(),
            absent_since: Some("2026-11-22T02:55:00Z".into()),
            seen: true,
            held_from: Some("2026-11-22T03:10:00Z".into()),
        }),
        last: Some(networkd(11)),
        held: vec![
            HeldReport {
                object: script(1).object,
                actor: "ip[1234567] <script>".into(),
                why: "undone 5 times by the same actor".into(),
                retry_in_ms: Some(38_000),
            },
            HeldReport {
                object: rule(1).object,
                actor: "systemd-networkd[812]".into(),
                why: "no owner has been alive for 15m".into(),
                retry_in_ms: None,
            },
        ],
    }
}
