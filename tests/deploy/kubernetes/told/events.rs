//! Changes become Events of the Node.

use std::{fs, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use lab::{Guardian, Lab, netlink, wait_for};
use serde_json::{Value, json};

use super::{
    api_server::ApiServer,
    pod::{self, NODE},
};
use crate::{kubernetes::Variant, run};

/// A burst is told after a second; the rest is for a machine that has other things to do.
const SOON: Duration = Duration::from_secs(10);

/// What is told of a series again is told after ten seconds.
const LATER: Duration = Duration::from_secs(25);

const EVENTS: &[(&str, &str)] = &[("events", "true")];

/// The changes of which this became.
pub fn became(guardian: &Guardian, outcome: &str) -> Result<u64> {
    let label = format!("outcome=\"{outcome}\"");
    let changes = guardian.metrics()?.sum("kube_events_total", &[&label]);
    Ok(changes.context("no such series")? as u64)
}

/// Waits for the one Event of this reason that is like this.
fn event(api: &ApiServer, limit: Duration, reason: &str, like: impl Fn(&Value) -> bool) -> Result<Value> {
    let mut found = Value::Null;
    wait_for(&format!("an Event {reason}"), limit, || {
        let of_reason: Vec<_> = api.events().into_iter().filter(|event| event["reason"] == reason).collect();
        ensure!(of_reason.len() < 2, "they are not one: {of_reason:?}");
        found = of_reason.into_iter().find(&like).unwrap_or_default();
        Ok(!found.is_null())
    })
    .with_context(|| format!("there are {:?}; {:?} came", api.events(), api.requests()))?;
    Ok(found)
}

#[test]
fn a_deletion_becomes_an_event_and_more_of_them_its_count() -> Result<()> {
    let lab = Lab::node()?;
    let api = ApiServer::start(&lab, pod::granted(Variant::has_events)?)?;
    let guardian = pod::launch(&lab, &api, EVENTS)?.start()?;
    let script = lab.dir().join("cleanup.sh");
    fs::write(&script, "ip route del 10.244.2.0/24\nip route del 10.244.3.0/24\n:\n")?;
    run(Command::new("sh").arg(&script))?;

    let event = event(&api, SOON, "RouteDeleted", |_| true)?;
    for (path, wanted) in [
        ("/involvedObject", json!({"apiVersion": "v1", "kind": "Node", "name": NODE, "uid": NODE})),
        ("/metadata/namespace", json!("default")),
        ("/type", json!("Normal")),
        ("/count", json!(2)),
        ("/source", json!({"component": "route-guardian", "host": NODE})),
        ("/reportingComponent", json!("route-guardian")),
        ("/reportingInstance", json!(NODE)),
    ] {
        ensure!(event.pointer(path) == Some(&wanted), "{path} is not {wanted}: {event}");
    }
    let message = event["message"].as_str().unwrap_or_default();
    for part in
        ["10.244.3.0/24 dev ", " deleted by ip of sh", "(the last of 2): restored after ", "explain 01"]
    {
        ensure!(message.contains(part), "no {part:?} in {message:?}");
    }
    // What it says is there to be asked for is there.
    let id = message.split("explain ").nth(1).and_then(|rest| rest.split('`').next()).context("no id")?;
    let explained = guardian.answer(&format!("explain {id}"))?;
    ensure!(explained.contains("10.244.3.0/24"), "{explained}");
    // In whole seconds, as `kubectl` shows them.
    for time in ["firstTimestamp", "lastTimestamp"] {
        let time = event[time].as_str().unwrap_or_default();
        ensure!(time.len() == "2026-11-22T03:02:11Z".len() && time.ends_with('Z'), "{time}");
    }

    run(Command::new("sh").arg(&script))?;
    let more = self::event(&api, LATER, "RouteDeleted", |event| event["count"] == 4)?;
    ensure!(
        more["metadata"] == event["metadata"] && more["firstTimestamp"] == event["firstTimestamp"],
        "{more}"
    );
    ensure!(more["message"].as_str().is_some_and(|text| text.contains("(the last of 4)")), "{more}");
    assert_eq!((became(&guardian, "created")?, became(&guardian, "updated")?), (1, 3));
    // It asked for nothing besides.
    let asked: Vec<_> = api.requests().into_iter().map(|request| request.right).collect();
    assert_eq!(asked, ["create default/events", "patch default/events"]);
    Ok(())
}

/// It is a warning where the object is not back, and a word that it is when it is.
#[test]
fn what_is_held_back_is_a_warning() -> Result<()> {
    let lab = Lab::node()?;
    let api = ApiServer::start(&lab, pod::granted(Variant::has_events)?)?;
    let launch = pod::launch(&lab, &api, EVENTS)?;
    let guardian = launch.set("damping.burst", "1").set("damping.initial", "\"1m\"").start()?;
    let key = netlink::Key::main([10, 244, 2, 0].into(), 24);
    let mut client = netlink::Client::open()?;
    // Once, once more when it has been quiet for a moment, and then it is held.
    for _ in 0..3 {
        wait_for("the route", SOON, || Ok(client.answers(key)?))?;
        client.delete(key)?;
    }
    guardian.event("a held record", |e| e.outcome() == "held")?;
    wait_for("a warning", SOON, || Ok(api.events().iter().any(|event| event["type"] == "Warning")))?;
    let events = api.events();
    let warning = events.iter().find(|event| event["type"] == "Warning").context("no warning")?;
    ensure!(warning["message"].as_str().is_some_and(|text| text.contains(": held back (")), "{warning}");
    ensure!(events.len() == 2 && events.iter().any(|event| event["type"] == "Normal"), "{events:?}");
    Ok(())
}

/// What owners do is nobody's news, and neither is what nobody is to be told.
#[test]
fn who_has_not_asked_for_it_hears_nothing() -> Result<()> {
    let lab = Lab::node()?;
    let api = ApiServer::start(&lab, pod::granted(Variant::has_condition)?)?;
    let owner = lab.copy("ip", "kube-router")?;
    let silent = pod::launch(&lab, &api, &[])?.start()?;
    lab.ip("route del 10.244.2.0/24")?;
    silent.event("a record", |e| e.key() == "10.244.2.0/24")?;
    ensure!(silent.stop()?.success(), "it ended badly");

    let guardian = pod::launch(&lab, &api, EVENTS)?.named("second", 10954).start()?;
    run(Command::new(owner).args(["route", "del", "10.244.3.0/24"]))?;
    guardian.event("the owner's record", |e| e.outcome() == "allowed")?;
    // What comes afterwards is told, and nothing of what came before.
    lab.ip("route del 10.244.2.0/24")?;
    let event = event(&api, SOON, "RouteDeleted", |_| true)?;
    ensure!(event["message"].as_str().is_some_and(|text| text.starts_with("10.244.2.0/24 ")), "{event}");
    assert_eq!((api.events().len(), api.requests().len()), (1, 1));
    Ok(())
}

#[test]
fn more_different_ones_than_the_budget_has_are_counted() -> Result<()> {
    let lab = Lab::node()?;
    let api = ApiServer::start(&lab, pod::granted(Variant::has_events)?)?;
    let guardian = pod::launch(&lab, &api, EVENTS)?.start()?;
    let program = lab.copy("ip", "program-00")?;
    for n in 0..30 {
        let other = program.with_file_name(format!("program-{n:02}"));
        if n > 0 {
            fs::hard_link(&program, &other)?;
        }
        run(Command::new(&other).args(["route", "del", "10.244.2.0/24"]))?;
        wait_for("the route", SOON, || lab.shows("route show 10.244.2.0/24"))?;
    }
    wait_for("the budget's Events", Duration::from_secs(60), || Ok(became(&guardian, "created")? >= 25))?;
    assert_eq!((became(&guardian, "created")?, became(&guardian, "limited")?), (25, 5));
    assert_eq!(api.events().len(), 25);
    Ok(())
}

/// The address of the API server itself, where the cluster's Service for it is what is lost.
#[test]
fn the_api_server_can_be_named() -> Result<()> {
    let lab = Lab::node()?;
    let api = ApiServer::start(&lab, pod::granted(Variant::has_events)?)?;
    let server = format!("\"https://{}\"", api.address());
    let named = pod::launch(&lab, &api, &[EVENTS[0], ("server", &server), ("node", "\"node-8\"")])?;
    // This is what the environment says, and nobody is there.
    let _guardian = named.through_also("env KUBERNETES_SERVICE_HOST=10.96.0.1").start()?;
    lab.ip("route del 10.244.2.0/24")?;
    let event = event(&api, SOON, "RouteDeleted", |_| true)?;
    assert_eq!(event["involvedObject"]["name"], "node-8");
    Ok(())
}

/// A build without it says so, and guards all the same; so does one that does not know its Node.
#[test]
fn what_it_cannot_tell_it_says() -> Result<()> {
    let lab = Lab::node()?;
    let without = lab.guardian().set("kubernetes.events", "true").start()?;
    ensure!(without.log().contains("this build does not talk to Kubernetes"), "{}", without.log());
    let check = without.ask(&format!("config check {}", without.config().display()))?;
    let said = crate::said(&check);
    ensure!(check.status.success() && said.contains("this build does not talk to Kubernetes"), "{said}");
    ensure!(without.stop()?.success(), "it ended badly");

    let nameless = lab.guardian().program(lab::binary_in_pod()).set("kubernetes.events", "true");
    let guardian = nameless.through("env -u NODE_NAME").start()?;
    ensure!(
        guardian.log().contains("neither kubernetes.node nor NODE_NAME says the name"),
        "{}",
        guardian.log()
    );
    lab.ip("route del 10.244.2.0/24")?;
    wait_for("the route", SOON, || lab.shows("route show 10.244.2.0/24"))
}
