//! The scrape configurations find the guardians, and name them by their nodes.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{file, promtool, yaml};

/// What becomes of the targets of the only job: address, `instance` and `job`.
fn targets(config: &Path) -> Result<Vec<[String; 3]>> {
    let found = promtool("check service-discovery --timeout=1s", [config, Path::new("route-guardian")])?;
    let found: Value = serde_json::from_str(&found).with_context(|| format!("promtool said {found}"))?;
    let label = |target: &Value, name: &str| target["labels"][name].as_str().unwrap_or_default().to_owned();
    let targets = found.as_array().into_iter().flatten();
    Ok(targets.map(|target| ["__address__", "instance", "job"].map(|name| label(target, name))).collect())
}

#[test]
fn machines_go_by_their_names() -> Result<()> {
    promtool("check config", [file("scrape.yaml")])?;
    let found = targets(&file("scrape.yaml"))?;
    let expected =
        [["node-1:10953", "node-1", "route-guardian"], ["node-2:10953", "node-2", "route-guardian"]];
    ensure!(found == expected, "{found:?}");
    Ok(())
}

/// Debian's Prometheus is built without discovery in Kubernetes. So what that finds (role `node`: the kubelet's address
/// and the node's name) is put in its place, and goes through the rest of the configuration as it is.
#[test]
fn nodes_of_a_cluster_go_by_theirs() -> Result<()> {
    let mut config = yaml("scrape-kubernetes.yaml")?;
    let job = config["scrape_configs"][0].as_object_mut().context("no job")?;
    let discovery = job.remove("kubernetes_sd_configs");
    ensure!(discovery == Some(json!([{ "role": "node" }])), "{discovery:?}");
    let found = json!([{
        "targets": ["10.0.0.10:10250", "[fd00:10::10]:10250"],
        "labels": { "__meta_kubernetes_node_name": "node-7" },
    }]);
    job.insert("static_configs".into(), found);

    let dir = tempfile::tempdir()?;
    let path = dir.path().join("prometheus.yml");
    std::fs::write(&path, config.to_string())?;
    promtool("check config", [&path])?;
    let found = targets(&path)?;
    let expected = ["10.0.0.10:10953", "[fd00:10::10]:10953"].map(|at| [at, "node-7", "route-guardian"]);
    ensure!(found == expected, "{found:?}");
    Ok(())
}
