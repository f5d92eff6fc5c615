//! The rights that it is deployed with are enough.

use anyhow::{Context, Result};
use lab::{Guardian, Lab};
use serde_json::Value;

/// What the `DaemonSet` gets that is not privileged.
const LEAST: &str = include_str!("../../deploy/kubernetes/overlays/least-privilege/daemonset.yaml");

/// The names of the sensors that are attached.
fn attached(guardian: &Guardian) -> Result<Vec<String>> {
    let status: Value = serde_json::from_str(&guardian.answer("status -o json")?)?;
    let sensors = status["sensors"].as_array().context("no sensors")?.iter();
    Ok(sensors.filter(|sensor| sensor["attached"] == true).map(|sensor| sensor["name"].to_string()).collect())
}

#[test]
fn the_least_privileges_do_as_much_as_all() -> Result<()> {
    let overlay: Value = serde_norway::from_str(LEAST)?;
    let added =
        &overlay["spec"]["template"]["spec"]["containers"][0]["securityContext"]["capabilities"]["add"];
    let added = added.as_array().context("no capabilities")?.iter().filter_map(Value::as_str);
    let bounds = added.map(|name| format!("+{}", name.to_lowercase())).collect::<Vec<_>>().join(",");

    let lab = Lab::node()?;
    let before = lab.routes()?;
    let free = lab.guardian().start()?;
    // Not every kernel takes every sensor.
    let possible = attached(&free)?;
    assert!(possible.len() > 5, "{possible:?}");
    free.stop()?;

    let bound = format!("setpriv --no-new-privs --inh-caps=-all --bounding-set=-all,{bounds}");
    let guardian = lab.guardian().through(&bound).start()?;
    assert_eq!(attached(&guardian)?, possible);
    assert!(!guardian.log().contains("without CAP_"), "{}", guardian.log());
    lab.ip("route del 10.244.2.0/24")?;
    let event = guardian.event("the deletion", |event| event.outcome() == "restored")?;
    assert_eq!(event.text("/actor/confidence"), "exact", "{event}");
    assert_eq!(event.text("/actor/class"), "iproute2", "{event}");
    assert_eq!(lab.routes()?, before);
    Ok(())
}
