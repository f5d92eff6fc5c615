//! What has to be so that the guardian runs when it is needed, on every node, with no more rights than it uses.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::{VARIANTS, Variant, objects, only};

const POD: &str = "/spec/template/spec";
const CONTAINER: &str = "/spec/template/spec/containers/0";

/// Values of the `DaemonSet` that are the same in every variant; null: it must not be there.
fn fixed() -> Vec<(String, Value)> {
    let pod = |path: &str| format!("{POD}{path}");
    let container = |path: &str| format!("{CONTAINER}{path}");
    vec![
        ("/spec/updateStrategy/type".into(), json!("RollingUpdate")),
        ("/spec/updateStrategy/rollingUpdate/maxUnavailable".into(), json!(1)),
        ("/spec/updateStrategy/rollingUpdate/maxSurge".into(), Value::Null),
        (pod("/hostNetwork"), json!(true)),
        (pod("/hostPID"), json!(true)),
        (pod("/hostIPC"), Value::Null),
        (pod("/dnsPolicy"), json!("Default")),
        (pod("/enableServiceLinks"), json!(false)),
        (pod("/priorityClassName"), json!("system-node-critical")),
        (pod("/nodeSelector"), json!({"kubernetes.io/os": "linux"})),
        (pod("/tolerations"), json!([{"operator": "Exists"}])),
        (pod("/initContainers"), Value::Null),
        (pod("/containers/1"), Value::Null),
        (container("/image"), json!(concat!("route-guardian:", env!("CARGO_PKG_VERSION")))),
        (container("/command"), Value::Null),
        (container("/args/0"), json!("run")),
        (
            container("/resources"),
            json!({
                "requests": {"cpu": "10m", "memory": "32Mi"},
                "limits": {"memory": "128Mi"},
            }),
        ),
        (container("/securityContext/readOnlyRootFilesystem"), json!(true)),
        (container("/startupProbe/httpGet/path"), json!("/healthz")),
        (container("/livenessProbe/httpGet/path"), json!("/healthz")),
        (container("/readinessProbe/httpGet/path"), json!("/readyz")),
        (
            container("/ports"),
            json!([
                {"name": "metrics", "containerPort": 10953, "hostPort": 10953, "protocol": "TCP"}
            ]),
        ),
    ]
}

/// That all of it is so.
fn hold(daemonset: &Value) -> Result<()> {
    for (path, wanted) in fixed() {
        let found = daemonset.pointer(&path).unwrap_or(&Value::Null);
        ensure!(*found == wanted, "{path} is {found}, not {wanted}");
    }
    Ok(())
}

/// Each variant by kubectl and by helm.
fn every() -> impl Iterator<Item = Result<(&'static Variant, Vec<Value>)>> {
    VARIANTS.iter().flat_map(|variant| {
        [variant.kustomized(), variant.templated()].map(|stream| Ok((variant, objects(&stream?)?)))
    })
}

#[test]
fn it_runs_when_and_where_it_is_needed() -> Result<()> {
    for each in every() {
        let (variant, objects) = each?;
        hold(only(&objects, "DaemonSet")?).with_context(|| format!("{variant:?}"))?;
    }
    Ok(())
}

#[test]
fn none_of_it_may_be_otherwise() -> Result<()> {
    let objects = objects(&VARIANTS[0].kustomized()?)?;
    let good = only(&objects, "DaemonSet")?;
    hold(good)?;
    for (path, wanted) in fixed() {
        let (parent, name) = path.rsplit_once('/').context("no path")?;
        let mut bad = good.clone();
        let (other, place) = (json!("other"), bad.pointer_mut(parent));
        match place {
            Some(Value::Object(members)) => drop(members.insert(name.into(), other)),
            Some(Value::Array(values)) => {
                let at = name.parse::<usize>()?.min(values.len());
                values.truncate(at);
                values.push(other);
            }
            _ => bail!("no {parent}"),
        }
        assert!(hold(&bad).is_err(), "{path} may be other than {wanted}");
    }
    Ok(())
}

#[test]
fn nothing_hangs_on_the_cluster() -> Result<()> {
    for each in every() {
        let (variant, objects) = each?;
        let mut kinds: BTreeSet<&str> = objects.iter().filter_map(|object| object["kind"].as_str()).collect();
        // Of the chart's namespace helm takes care. No Service, no webhook: that is all there is.
        kinds.remove("Namespace");
        let monitored = variant.components.contains(&"pod-monitor");
        let wanted = ["ConfigMap", "DaemonSet", "ServiceAccount"].into_iter();
        let events = variant.has_events().then_some(["Role", "RoleBinding"]);
        let condition = variant.has_condition().then_some(["ClusterRole", "ClusterRoleBinding"]);
        let rights = events.into_iter().chain(condition).flatten();
        let wanted: BTreeSet<&str> = wanted.chain(monitored.then_some("PodMonitor")).chain(rights).collect();
        assert_eq!(kinds, wanted, "{variant:?}");
    }
    Ok(())
}

/// It has a token where it tells Kubernetes something, and may do with it what that takes.
#[test]
fn the_token_is_for_what_is_told() -> Result<()> {
    for each in every() {
        let (variant, objects) = each?;
        let pod = only(&objects, "DaemonSet")?.pointer(POD).context("no pod")?;
        assert_eq!(pod["automountServiceAccountToken"], variant.has_events(), "{variant:?}");
        let account = only(&objects, "ServiceAccount")?;
        assert_eq!(account["automountServiceAccountToken"], false, "{variant:?}");
        let env = pod["containers"][0]["env"].as_array().context("no environment")?;
        let node = env.iter().find(|variable| variable["name"] == "NODE_NAME").context("no NODE_NAME")?;
        assert_eq!(node["valueFrom"]["fieldRef"]["fieldPath"], "spec.nodeName", "{variant:?}");

        let mut wanted = BTreeSet::new();
        if variant.has_events() {
            wanted.extend(["create default/events", "patch default/events"].map(str::to_owned));
        }
        if variant.has_condition() {
            wanted.extend(["get nodes", "patch nodes/status"].map(str::to_owned));
        }
        assert_eq!(super::told::pod::rights(&objects)?, wanted, "{variant:?}");
    }
    Ok(())
}

#[test]
fn rights_are_what_the_variant_says() -> Result<()> {
    for each in every() {
        let (variant, objects) = each?;
        let context = only(&objects, "DaemonSet")?.pointer(&format!("{CONTAINER}/securityContext"));
        let context = context.context("no securityContext")?;
        let unconfined = json!({"type": "Unconfined"});
        let wanted = match variant.capabilities {
            [] => json!({"privileged": true, "runAsUser": 0, "readOnlyRootFilesystem": true}),
            these => json!({
                "runAsUser": 0,
                "readOnlyRootFilesystem": true,
                "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"], "add": these},
                "seccompProfile": unconfined,
                "seLinuxOptions": {"type": "spc_t"},
            }),
        };
        let mut found = context.clone();
        let field = found.as_object_mut().and_then(|members| members.remove("appArmorProfile"));
        assert_eq!(found, wanted, "{variant:?}");
        let annotation = only(&objects, "DaemonSet")?["spec"]["template"]["metadata"]["annotations"]
            ["container.apparmor.security.beta.kubernetes.io/route-guardian"]
            .as_str();
        let apparmor = match (variant.capabilities.is_empty(), variant.is_for_old()) {
            (true, _) => (None, None),
            (false, true) => (None, Some("unconfined")),
            (false, false) => (Some(unconfined), None),
        };
        assert_eq!((field, annotation), apparmor, "{variant:?}");
    }
    Ok(())
}

#[test]
fn only_this_is_of_the_host() -> Result<()> {
    for each in every() {
        let (variant, objects) = each?;
        let pod = only(&objects, "DaemonSet")?.pointer(POD).context("no pod")?;
        let volumes = pod["volumes"].as_array().context("no volumes")?;
        let paths: Vec<&str> = volumes.iter().filter_map(|v| v["hostPath"]["path"].as_str()).collect();
        assert_eq!(paths, ["/var/lib/route-guardian", "/sys/fs/cgroup"], "{variant:?}");
        // Each volume is mounted once, and no mount is of anything else.
        let mounts = pod["containers"][0]["volumeMounts"].as_array().context("no mounts")?;
        let names = |of: &[Value]| of.iter().map(|v| v["name"].to_string()).collect::<Vec<_>>();
        assert_eq!(names(volumes), names(mounts), "{variant:?}");
        let writable: Vec<&str> =
            mounts.iter().filter(|m| m["readOnly"] != true).filter_map(|m| m["mountPath"].as_str()).collect();
        assert_eq!(writable, ["/var/lib/route-guardian", "/run/route-guardian"], "{variant:?}");
    }
    Ok(())
}

#[test]
fn the_namespace_lets_it_in() -> Result<()> {
    for variant in VARIANTS {
        let objects = objects(&variant.kustomized()?)?;
        let labels = &only(&objects, "Namespace")?["metadata"]["labels"];
        assert_eq!(labels["pod-security.kubernetes.io/enforce"], "privileged", "{variant:?}");
    }
    Ok(())
}

/// On loopback the kubelet reaches it, and nobody from elsewhere; a scraper in a pod needs the node's address.
#[test]
fn it_listens_where_it_is_asked() -> Result<()> {
    for each in every() {
        let (variant, objects) = each?;
        let container = only(&objects, "DaemonSet")?.pointer(CONTAINER).context("no container")?;
        let monitor = objects.iter().find(|object| object["kind"] == "PodMonitor");
        let host = if monitor.is_some() { Value::Null } else { json!("127.0.0.1") };
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            assert_eq!(container[probe]["httpGet"]["host"], host, "{variant:?}");
            assert_eq!(container[probe]["httpGet"]["port"], container["ports"][0]["name"], "{variant:?}");
        }
        let Some(monitor) = monitor else {
            assert_eq!(container["args"], json!(["run"]), "{variant:?}");
            continue;
        };
        assert_eq!(container["args"], json!(["run", "--listen=$(NODE_IP):10953"]), "{variant:?}");
        let source = &container["env"][0]["valueFrom"]["fieldRef"]["fieldPath"];
        assert_eq!(
            (&container["env"][0]["name"], source),
            (&json!("NODE_IP"), &json!("status.hostIP")),
            "{variant:?}"
        );
        // The operator has the schema of its own kinds; that it finds the pods is seen here.
        let labels = &only(&objects, "DaemonSet")?["spec"]["template"]["metadata"]["labels"];
        let selector = monitor["spec"]["selector"]["matchLabels"].as_object().context("no selector")?;
        assert!(!selector.is_empty() && selector.iter().all(|(k, v)| labels[k] == *v), "{variant:?}");
        assert_eq!(
            labels[monitor["spec"]["jobLabel"].as_str().context("no jobLabel")?],
            "route-guardian",
            "alerts go by the job's name"
        );
        let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
        assert_eq!((&endpoint["port"], &endpoint["path"]), (&json!("metrics"), &json!("/metrics")));
        assert_eq!(endpoint["relabelings"][0]["targetLabel"], "instance", "alerts name the node by it");
    }
    Ok(())
}
