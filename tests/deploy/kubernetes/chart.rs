//! The chart as a chart: its linter, its schema of values, its documentation.

use anyhow::{Context, Result};
use serde_json::Value;

use super::{file, helm, objects, only, read, templated, tool};
use crate::run;

#[test]
fn helm_has_nothing_against_it() -> Result<()> {
    let said = run(tool("helm")?.args(["lint", "--strict"]).arg(file("chart")))?;
    assert!(said.contains("1 chart(s) linted, 0 chart(s) failed"), "{said}");
    Ok(())
}

#[test]
fn values_that_mean_nothing_are_refused() -> Result<()> {
    for (value, named) in [
        ("podMonitr.enabled=true", "podMonitr"),
        ("mode=\"observe\"", "mode"),
        ("config.mode=\"watch\"", "/config/mode"),
        ("config.scope={\"link\":[\"a\"]}", "link"),
        ("config.http={\"listen\":\"0.0.0.0:10953\"}", "http"),
        ("config.scope={\"protocols\":[256]}", "/config/scope/protocols/0"),
        ("security.privileged=\"yes\"", "/security/privileged"),
        ("security.extraCapabilities=[\"CAP_SYS_RESOURCE\"]", "/security/extraCapabilities/0"),
        ("http.listen=\"0.0.0.0\"", "/http/listen"),
        ("config.kubernetes.event=true", "event"),
        ("config.kubernetes={\"server\":\"10.0.0.1\"}", "/config/kubernetes/server"),
        ("image.tag=1", "/image/tag"),
        ("maxUnavailable=0", "/maxUnavailable"),
        ("tolerations=[{\"operator\":\"Exist\"}]", "/tolerations/0/operator"),
        ("resources.limit={\"memory\":\"1Gi\"}", "limit"),
    ] {
        let output = helm(30, &[value])?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{value} is taken");
        assert!(
            said.contains("values don't meet the specifications") && said.contains(named),
            "{value}: {said}"
        );
    }
    Ok(())
}

#[test]
fn what_else_can_be_set_is_set() -> Result<()> {
    let stream = templated(
        30,
        &[
            r#"image={"repository":"registry.example/route-guardian","tag":"1","pullPolicy":"Always","pullSecrets":[{"name":"key"}]}"#,
            r#"http={"listen":"node","ipv6":true}"#,
            r#"podMonitor={"enabled":true,"interval":"15s","labels":{"release":"prometheus"}}"#,
            r#"tolerations=[{"key":"a","operator":"Exists"}]"#,
            r#"nodeSelector={"zone":"b"}"#,
            r#"affinity={"nodeAffinity":{}}"#,
            r#"maxUnavailable="10%""#,
            r#"podAnnotations={"c":"d"}"#,
            r#"podLabels={"e":"f"}"#,
            r#"priorityClassName="system-cluster-critical""#,
            r#"resources={"limits":{"memory":"1Gi"}}"#,
        ],
    )?;
    let objects = objects(&stream)?;
    let daemonset = only(&objects, "DaemonSet")?;
    for (path, wanted) in [
        ("/spec/updateStrategy/rollingUpdate/maxUnavailable", r#""10%""#),
        ("/spec/template/metadata/annotations/c", r#""d""#),
        ("/spec/template/metadata/labels/e", r#""f""#),
        ("/spec/template/spec/imagePullSecrets", r#"[{"name":"key"}]"#),
        ("/spec/template/spec/tolerations/0/key", r#""a""#),
        ("/spec/template/spec/nodeSelector/zone", r#""b""#),
        ("/spec/template/spec/affinity", r#"{"nodeAffinity":{}}"#),
        ("/spec/template/spec/priorityClassName", r#""system-cluster-critical""#),
        ("/spec/template/spec/containers/0/image", r#""registry.example/route-guardian:1""#),
        ("/spec/template/spec/containers/0/imagePullPolicy", r#""Always""#),
        ("/spec/template/spec/containers/0/args/1", r#""--listen=[$(NODE_IP)]:10953""#),
        ("/spec/template/spec/containers/0/resources/limits/memory", r#""1Gi""#),
    ] {
        assert_eq!(daemonset.pointer(path).map(ToString::to_string).as_deref(), Some(wanted), "{path}");
    }
    let monitor = only(&objects, "PodMonitor")?;
    assert_eq!(monitor["metadata"]["labels"]["release"], "prometheus");
    assert_eq!(monitor["spec"]["podMetricsEndpoints"][0]["interval"], "15s");
    Ok(())
}

/// The table of values in its README names every value, with its default.
#[test]
fn every_value_is_documented() -> Result<()> {
    let readme = read("chart/README.md")?;
    let values: Value = serde_norway::from_str(&read("chart/values.yaml")?)?;
    let mut rows = Vec::new();
    leaves(&values, "", &mut rows);
    assert!(rows.len() > 15, "{rows:?}");
    for (path, default) in rows {
        let row = format!("| `{path}` | `{default}` |");
        assert!(readme.contains(&row), "README.md of the chart has no row that begins with {row}");
    }
    Ok(())
}

/// Paths and values of what has nothing below it. A list, and a map whose names are the user's, counts as one.
fn leaves(value: &Value, above: &str, rows: &mut Vec<(String, String)>) {
    let open = ["nodeSelector", "resources.requests", "resources.limits"].contains(&above);
    match value {
        Value::Object(members) if !open && !members.is_empty() => {
            for (name, value) in members {
                let path = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
                leaves(value, &path, rows);
            }
        }
        value => rows.push((above.into(), value.to_string())),
    }
}

#[test]
fn its_version_is_the_guardians() -> Result<()> {
    let chart: Value = serde_norway::from_str(&read("chart/Chart.yaml")?)?;
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!((&chart["version"], &chart["appVersion"]), (&version.into(), &version.into()));
    let oldest = chart["kubeVersion"].as_str().context("no kubeVersion")?;
    assert_eq!(oldest, ">=1.28.0-0");
    assert!(!helm(27, &[])?.status.success(), "Kubernetes 1.27 is taken");
    Ok(())
}
