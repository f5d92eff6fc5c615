//! `deploy/kubernetes`: the manifests and the chart, as kubectl and helm make them, held to the API's schemas, to each
//! other and to the guardian itself.

mod chart;
mod config;
mod policy;
mod same;
mod schema;
mod told;

use std::{
    ffi::OsStr,
    fs,
    ops::RangeFrom,
    path::PathBuf,
    process::{Command, Output},
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize as _;
use serde_json::Value;

use crate::{run, top};

/// What one can install: by an overlay with components, and the same by values of the chart.
#[derive(Debug)]
struct Variant {
    overlay: &'static str,
    components: &'static [&'static str],
    values: &'static [&'static str],
    /// The minor releases of Kubernetes 1 that it is for, from this on.
    kubernetes: RangeFrom<u32>,
    capabilities: &'static [&'static str],
}

const MONITORED: &str = "podMonitor.enabled=true";
const LEAST: &str = "security.privileged=false";
const CONDITION: &str = "config.kubernetes.node_condition=true";
const USED: &[&str] = &["BPF", "NET_ADMIN", "PERFMON", "SYS_PTRACE"];

const VARIANTS: &[Variant] = &[
    Variant { overlay: "privileged", components: &[], values: &[], kubernetes: 28.., capabilities: &[] },
    Variant {
        overlay: "privileged",
        components: &["pod-monitor"],
        values: &[MONITORED],
        kubernetes: 28..,
        capabilities: &[],
    },
    Variant {
        overlay: "privileged",
        components: &["without-events"],
        values: &["config.kubernetes.events=false"],
        kubernetes: 28..,
        capabilities: &[],
    },
    Variant {
        overlay: "least-privilege",
        components: &[],
        values: &[LEAST],
        kubernetes: 30..,
        capabilities: USED,
    },
    Variant {
        overlay: "least-privilege",
        components: &["pod-monitor", "node-condition"],
        values: &[LEAST, MONITORED, CONDITION],
        kubernetes: 30..,
        capabilities: USED,
    },
    Variant {
        overlay: "least-privilege",
        components: &["before-linux-5.11", "before-kubernetes-1.30"],
        values: &[LEAST, r#"security.extraCapabilities=["SYS_RESOURCE"]"#],
        kubernetes: 28..,
        capabilities: &["BPF", "NET_ADMIN", "PERFMON", "SYS_PTRACE", "SYS_RESOURCE"],
    },
];

impl Variant {
    /// Whether it holds what a release before Kubernetes 1.30 has to have in place of what later ones have.
    fn is_for_old(&self) -> bool {
        self.components.contains(&"before-kubernetes-1.30")
    }

    /// Whether it tells Kubernetes of Events.
    fn has_events(&self) -> bool {
        !self.components.contains(&"without-events")
    }

    /// Whether it keeps a condition of the Node.
    fn has_condition(&self) -> bool {
        self.components.contains(&"node-condition")
    }

    /// What kubectl makes of the overlay with its components.
    fn kustomized(&self) -> Result<String> {
        // Components are named from where they are used, and relative.
        let target = top().join("target");
        fs::create_dir_all(&target)?;
        let dir = tempfile::Builder::new().prefix("kustomize-").tempdir_in(target)?;
        let components =
            self.components.iter().map(|name| format!("../../deploy/kubernetes/components/{name}"));
        let kustomization = serde_json::json!({
            "resources": [format!("../../deploy/kubernetes/overlays/{}", self.overlay)],
            "components": components.collect::<Vec<_>>(),
        });
        fs::write(dir.path().join("kustomization.yaml"), kustomization.to_string())?;
        run(tool("kubectl")?.arg("kustomize").arg(dir.path()))
    }

    /// What helm makes of the chart with its values, for the oldest release that it is for.
    fn templated(&self) -> Result<String> {
        templated(self.kubernetes.start, self.values)
    }
}

/// What helm makes of the chart with these values, each `key=JSON`, for Kubernetes 1 of this minor release.
fn templated(kubernetes: u32, values: &[&str]) -> Result<String> {
    let output = helm(kubernetes, values)?;
    ensure!(output.status.success(), "helm: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn helm(kubernetes: u32, values: &[&str]) -> Result<Output> {
    let mut command = tool("helm")?;
    command.args(["template", "route-guardian", "--namespace", "route-guardian"]);
    command.args(["--kube-version", &format!("1.{kubernetes}.0")]).arg(file("chart"));
    for value in values {
        command.args(["--set-json", value]);
    }
    command.output().context("cannot run helm")
}

/// What is in `deploy/kubernetes` by this name.
fn file(name: &str) -> PathBuf {
    top().join("deploy/kubernetes").join(name)
}

fn read(name: &str) -> Result<String> {
    fs::read_to_string(file(name)).with_context(|| format!("cannot read deploy/kubernetes/{name}"))
}

/// One of the programs that `cargo xtask setup --tests` fetches, or else that in PATH.
fn tool(name: &str) -> Result<Command> {
    let fetched = top().join("target/tools/kubernetes").join(name);
    Ok(Command::new(if fetched.is_file() { fetched } else { lab::program(name)? }))
}

/// What the guardian's own command line says of these words.
fn guardian<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Result<Output> {
    let binary = lab::binary();
    Command::new(&binary).args(words).output().with_context(|| format!("cannot run {}", binary.display()))
}

/// The objects of a stream of YAML documents.
fn objects(stream: &str) -> Result<Vec<Value>> {
    let documents = serde_norway::Deserializer::from_str(stream);
    let objects = documents.map(Value::deserialize).collect::<Result<Vec<_>, _>>()?;
    Ok(objects.into_iter().filter(|object| !object.is_null()).collect())
}

/// The one object of this kind.
fn only<'a>(objects: &'a [Value], kind: &str) -> Result<&'a Value> {
    let mut of_kind = objects.iter().filter(|object| object["kind"] == kind);
    let one = of_kind.next().with_context(|| format!("no {kind}"))?;
    ensure!(of_kind.next().is_none(), "more than one {kind}");
    Ok(one)
}
