//! The Node's condition `RouteGuardianDegraded`.

use std::{collections::BTreeSet, fs, time::Duration};

use anyhow::{Context, Result, ensure};
use lab::{Lab, netlink, wait_for};
use serde_json::{Value, json};

use super::{
    api_server::ApiServer,
    pod::{self, NODE},
};
use crate::kubernetes::Variant;

/// It is looked every five seconds how the guardian is; the rest is for a machine that has other things to do.
const LIMIT: Duration = Duration::from_secs(30);

const BOTH: &[(&str, &str)] = &[("events", "true"), ("node_condition", "true")];

pub fn path() -> String {
    format!("/api/v1/nodes/{NODE}")
}

/// A Node as the kubelet and kube-router keep it.
pub fn node() -> Value {
    let condition = |kind: &str, status: &str| {
        json!({
            "type": kind, "status": status, "reason": "Because", "message": "so it is",
            "lastHeartbeatTime": "2026-11-22T03:00:00Z", "lastTransitionTime": "2026-11-22T03:00:00Z",
        })
    };
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE, "uid": "0c3b1f1e"},
        "spec": {"podCIDR": "10.244.1.0/24"},
        "status": {"conditions": [condition("NetworkUnavailable", "False"), condition("Ready", "True")]},
    })
}

/// The conditions of others, and ours.
fn conditions(api: &ApiServer) -> Result<(Vec<Value>, Value)> {
    let node = api.object(&path());
    let all = node["status"]["conditions"].as_array().context("no conditions")?.clone();
    let (ours, others): (Vec<_>, _) = all.into_iter().partition(|c| c["type"] == "RouteGuardianDegraded");
    Ok((others, ours.into_iter().next().unwrap_or_default()))
}

/// Waits until it is like this.
fn until(api: &ApiServer, status: &str, reason: &str) -> Result<Value> {
    wait_for(&format!("{status} for {reason}"), LIMIT, || {
        let ours = conditions(api)?.1;
        Ok(ours["status"] == status && ours["reason"] == reason)
    })
    .with_context(|| format!("it has {}; {:?} came", api.object(&path()), api.requests()))?;
    Ok(conditions(api)?.1)
}

#[test]
fn it_is_set_and_cleared_and_no_other_is_touched() -> Result<()> {
    let lab = Lab::node()?;
    let granted = pod::granted(Variant::has_condition)?;
    let api = ApiServer::start(&lab, granted.clone())?;
    api.keep(&path(), node())?;
    let others = conditions(&api)?.0;
    let launch = pod::launch(&lab, &api, BOTH)?;
    let guardian = launch.set("damping.burst", "1").set("damping.initial", "\"5m\"").start()?;
    let good = until(&api, "False", "Guarding")?;
    ensure!(good["lastTransitionTime"] == good["lastHeartbeatTime"] && good["message"] != "", "{good}");

    let key = netlink::Key::main([10, 244, 2, 0].into(), 24);
    let mut client = netlink::Client::open()?;
    // Once, once more when it has been quiet for a moment, and then it is held.
    for _ in 0..3 {
        wait_for("the route", LIMIT, || Ok(client.answers(key)?))?;
        client.delete(key)?;
    }
    let bad = until(&api, "True", "ObjectsMissing")?;
    let message = bad["message"].as_str().unwrap_or_default();
    ensure!(
        message.starts_with("1 guarded objects are missing, 1 held back, such as 10.244.2.0/24: "),
        "{bad}"
    );
    let [was, is] =
        [&good, &bad].map(|condition| condition["lastTransitionTime"].as_str().unwrap_or_default());
    ensure!(was < is, "no transition from {good} to {bad}");
    assert_eq!(guardian.ask("status")?.status.code(), Some(1), "it says otherwise itself");

    guardian.answer("release")?;
    let again = until(&api, "False", "Guarding")?;
    ensure!(again["lastTransitionTime"].as_str() > Some(is), "no transition from {bad} to {again}");
    assert_eq!(conditions(&api)?.0, others);
    assert_eq!(api.object(&path())["spec"], node()["spec"]);

    // A word for each, and none while nothing changes.
    let patches = |api: &ApiServer| api.requests().iter().filter(|r| r.right == "patch nodes/status").count();
    assert_eq!(patches(&api), 3, "{:?}", api.requests());

    // All that was granted is used: what was held and is back is told by the count of an Event.
    wait_for("a use of every right", LIMIT, || {
        let used: BTreeSet<String> = api.requests().into_iter().map(|request| request.right).collect();
        Ok(used == granted)
    })
    .with_context(|| format!("{granted:?} are granted; {:?} came", api.requests()))?;

    // Who comes after it sees how it is, and makes no transition of that.
    ensure!(guardian.stop()?.success(), "it ended badly");
    let _next = pod::launch(&lab, &api, BOTH)?.named("second", 10954).start()?;
    wait_for("another word", LIMIT, || Ok(patches(&api) > 3))?;
    let after = conditions(&api)?.1;
    assert_eq!(
        (&after["status"], &after["lastTransitionTime"]),
        (&json!("False"), &again["lastTransitionTime"])
    );
    ensure!(after["lastHeartbeatTime"].as_str() > again["lastHeartbeatTime"].as_str(), "{after}");
    Ok(())
}

/// The right to it may be missing: Events do not suffer from that.
#[test]
fn without_the_right_to_it_events_are_told_all_the_same() -> Result<()> {
    let lab = Lab::node()?;
    let api =
        ApiServer::start(&lab, pod::granted(|variant| variant.has_events() && !variant.has_condition())?)?;
    api.keep(&path(), node())?;
    let guardian = pod::launch(&lab, &api, BOTH)?.start()?;
    wait_for("the refusal", LIMIT, || Ok(!api.requests().is_empty()))?;
    lab.ip("route del 10.244.2.0/24")?;
    wait_for("an Event", LIMIT, || Ok(!api.events().is_empty()))?;
    assert_eq!(api.object(&path()), node());
    let log = fs::read_to_string(lab.dir().join("guardian/log"))?;
    let told = log.matches("Kubernetes cannot be told of the Node's condition").count();
    ensure!(told == 1, "told {told} times:\n{log}");
    drop(guardian);
    Ok(())
}
