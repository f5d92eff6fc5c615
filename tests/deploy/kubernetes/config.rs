//! The configuration in the manifests, by the guardian that reads it.

use std::{collections::BTreeSet, fs};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{VARIANTS, file, guardian, objects, only, read, templated};

/// Every key that the chart has, with a value other than the default.
const EVERYTHING: &[&str] = &[
    r#"config.profile="flannel""#,
    r#"config.mode="observe""#,
    r#"config.scope={"links":["cni*"],"protocols":[3,17],"tables":[77,4294967295],"exclude":["10.9.0.0/16"]}"#,
    r#"config.owner={"exe":["/opt/bin/flanneld"],"cgroup":["/kubepods*"],"children":false,"absent_after":"never"}"#,
    r#"config.restore={"settle":"3s","on_start":"restore"}"#,
    r#"config.damping={"burst":7,"initial":"2s","max":"10m"}"#,
    r#"config.state={"journal_max":"16MiB"}"#,
    r#"config.kubernetes={"events":true,"node_condition":true,"node":"node-7","server":"https://10.0.0.1:6443"}"#,
];

/// What the guardian says of a configuration: its effective one, or why it is refused.
fn effective(config: &str) -> Result<Result<Value, String>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("config.toml");
    fs::write(&path, config)?;
    let name = path.as_os_str();
    let check = guardian(["config".as_ref(), "check".as_ref(), name])?;
    if !check.status.success() {
        return Ok(Err(String::from_utf8_lossy(&check.stderr).into_owned()));
    }
    let show = guardian(["config".as_ref(), "show".as_ref(), "--config".as_ref(), name])?;
    Ok(Ok(toml::from_str(&String::from_utf8_lossy(&show.stdout))?))
}

fn config(stream: &str) -> Result<String> {
    let objects = objects(stream)?;
    let config = &only(&objects, "ConfigMap")?["data"]["config.toml"];
    Ok(config.as_str().context("no config.toml")?.to_owned())
}

#[test]
fn the_guardian_takes_it() -> Result<()> {
    for variant in VARIANTS {
        for stream in [variant.kustomized()?, variant.templated()?] {
            let shown = effective(&config(&stream)?)?.map_err(anyhow::Error::msg)?;
            assert_eq!((&shown["profile"], &shown["mode"]), (&"kube-router".into(), &"restore".into()));
        }
    }
    let text = read("base/config.toml")?;
    let misspelt = text.replace("mode =", "mdoe =");
    let error = effective(&misspelt)?.expect_err("an unknown key is taken");
    assert!(error.contains("mdoe") && error.contains("mode"), "{error}");
    Ok(())
}

/// What the `DaemonSet` mounts and probes is what the guardian uses by default.
#[test]
fn paths_and_port_are_the_guardians() -> Result<()> {
    let shown = effective(&read("base/config.toml")?)?.map_err(anyhow::Error::msg)?;
    let objects = objects(&VARIANTS[0].kustomized()?)?;
    let container = &only(&objects, "DaemonSet")?["spec"]["template"]["spec"]["containers"][0];
    let mounts = container["volumeMounts"].as_array().context("no mounts")?;
    let mount = |name: &str| mounts.iter().find(|mount| mount["name"] == name).map(|m| &m["mountPath"]);
    assert_eq!(mount("state"), Some(&shown["state"]["dir"]));
    let socket = shown["control"]["socket"].as_str().and_then(|path| path.rsplit_once('/'));
    assert_eq!(mount("socket").and_then(Value::as_str), socket.map(|(folder, _)| folder));
    let help = guardian(["run", "--help"])?;
    let default = format!("{}/config.toml", mount("config").and_then(Value::as_str).unwrap_or_default());
    assert!(String::from_utf8_lossy(&help.stdout).contains(&default), "{default}");
    let probed = format!(
        "{}:{}",
        container["livenessProbe"]["httpGet"]["host"].as_str().unwrap_or_default(),
        container["ports"][0]["containerPort"]
    );
    assert_eq!(shown["http"]["listen"], probed);
    Ok(())
}

#[test]
fn every_key_of_the_chart_reaches_the_guardian() -> Result<()> {
    let shown = effective(&config(&templated(30, EVERYTHING)?)?)?.map_err(anyhow::Error::msg)?;
    for (path, wanted) in [
        ("/profile", "\"flannel\""),
        ("/mode", "\"observe\""),
        ("/owner/exe", r#"["/opt/bin/flanneld"]"#),
        ("/owner/cgroup", r#"["/kubepods*"]"#),
        ("/owner/children", "false"),
        ("/owner/absent_after", "\"never\""),
        ("/restore/settle", "\"3s\""),
        ("/restore/on_start", "\"restore\""),
        ("/damping/burst", "7"),
        ("/damping/initial", "\"2s\""),
        ("/damping/max", "\"10m\""),
        ("/state/journal_max", "\"16MiB\""),
        ("/kubernetes/events", "true"),
        ("/kubernetes/node_condition", "true"),
        ("/kubernetes/node", "\"node-7\""),
        ("/kubernetes/server", "\"https://10.0.0.1:6443\""),
    ] {
        assert_eq!(shown.pointer(path).map(ToString::to_string).as_deref(), Some(wanted), "{path}");
    }
    // The scope is added to the profile's.
    for (key, added) in [
        ("links", "cni*".into()),
        ("protocols", 3.into()),
        ("tables", u32::MAX.into()),
        ("exclude", "10.9.0.0/16".into()),
    ] {
        let all: &Vec<Value> = shown["scope"][key].as_array().context("no list")?;
        assert!(all.contains(&added), "{key}: {all:?}");
    }
    Ok(())
}

/// A key that is new in the guardian is to be in the chart's schema too.
#[test]
fn the_schema_has_every_key() -> Result<()> {
    let shown = effective(&read("base/config.toml")?)?.map_err(anyhow::Error::msg)?;
    let guardians: BTreeSet<String> = keys(&shown, "");
    let schema: Value = serde_json::from_str(&fs::read_to_string(file("chart/values.schema.json"))?)?;
    let charts = keys(&properties(&schema["properties"]["config"])?, "");
    // These are set where the DaemonSet mounts and probes them.
    let fixed = ["http.listen", "control.socket", "state.dir"].map(str::to_owned);
    assert_eq!(guardians, charts.into_iter().chain(fixed).collect());
    Ok(())
}

/// The paths of all values that are no tables.
fn keys(value: &Value, above: &str) -> BTreeSet<String> {
    let Value::Object(members) = value else { return [above.trim_start_matches('.').to_owned()].into() };
    members.iter().flat_map(|(name, value)| keys(value, &format!("{above}.{name}"))).collect()
}

/// A schema's properties as a value of that shape.
fn properties(schema: &Value) -> Result<Value> {
    let Some(members) = schema["properties"].as_object() else { return Ok(Value::Null) };
    ensure!(schema["additionalProperties"] == false, "something unknown would be taken: {schema}");
    members.iter().map(|(name, schema)| Ok((name.clone(), properties(schema)?))).collect()
}
