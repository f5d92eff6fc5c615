//! The API's schemas, in which a field that no release knows is a fault.

use std::{fs, path::PathBuf, process::Output};

use anyhow::{Context, Result, ensure};

use super::{VARIANTS, objects, only, tool};
use crate::{run, top};

/// The oldest release of Kubernetes 1 that the manifests are for.
pub(super) const OLDEST: u32 = 28;

pub(super) fn validator(program: &str) -> Result<std::process::Command> {
    let program = top().join("target/tools/kubernetes/python/bin").join(program);
    ensure!(program.is_file(), "{} is not there; `cargo xtask setup --tests` installs it", program.display());
    Ok(std::process::Command::new(program))
}

/// The newest minor release that the validator has the schemas of.
pub(super) fn newest() -> Result<u32> {
    let ask = "import kubernetes_validate; print(kubernetes_validate.latest_version())";
    let version = run(validator("python")?.args(["-c", ask]))?;
    version.split('.').nth(1).and_then(|minor| minor.trim().parse().ok()).context("not a version")
}

fn validate(kubernetes: u32, files: &[PathBuf]) -> Result<Output> {
    let mut command = validator("kubernetes-validate")?;
    command.args(["--strict", "--kubernetes-version", &format!("1.{kubernetes}")]).args(files);
    command.output().context("cannot run kubernetes-validate")
}

/// The objects of the API itself; what the Prometheus operator adds to it has its schema in the cluster.
fn without_custom(stream: &str) -> Result<String> {
    let objects = objects(stream)?;
    let own = objects.iter().filter(|object| object["kind"] != "PodMonitor");
    // JSON is YAML too.
    Ok(own.map(ToString::to_string).collect::<Vec<_>>().join("\n---\n"))
}

#[test]
fn every_release_takes_every_variant() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut files = Vec::new();
    for (number, variant) in VARIANTS.iter().enumerate() {
        for (by, stream) in [("kubectl", variant.kustomized()?), ("helm", variant.templated()?)] {
            let path = dir.path().join(format!("{number}-{by}.yaml"));
            fs::write(&path, without_custom(&stream)?)?;
            files.push((variant.kubernetes.start, path));
        }
    }
    let newest = newest()?;
    ensure!(newest >= OLDEST + 9, "the validator knows no release after 1.{newest}");
    for kubernetes in OLDEST..=newest {
        let of = files.iter().filter(|(since, _)| (*since..).contains(&kubernetes));
        let of: Vec<PathBuf> = of.map(|(_, path)| path.clone()).collect();
        let output = validate(kubernetes, &of)?;
        let said = [output.stdout, output.stderr].map(|s| String::from_utf8_lossy(&s).into_owned()).concat();
        // A kind without a schema is a mere warning to it.
        assert!(output.status.success() && !said.contains("WARN"), "Kubernetes 1.{kubernetes}: {said}");
        assert!(said.matches("passed").count() >= 3 * of.len(), "Kubernetes 1.{kubernetes}: {said}");
    }
    Ok(())
}

#[test]
fn what_no_release_knows_is_refused() -> Result<()> {
    let good = VARIANTS[0].kustomized()?;
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("bad.yaml");
    for (right, wrong) in [
        ("hostNetwork: true", "hostNetwrok: true"),
        ("privileged: true", "privileged: all"),
        ("kind: DaemonSet", "kind: DeamonSet"),
    ] {
        assert!(good.contains(right), "no {right:?} in:\n{good}");
        fs::write(&path, good.replace(right, wrong))?;
        let output = validate(newest()?, std::slice::from_ref(&path))?;
        let said = [output.stdout, output.stderr].map(|s| String::from_utf8_lossy(&s).into_owned()).concat();
        assert!(!output.status.success() || said.contains("WARN"), "{wrong:?} is taken: {said}");
    }
    Ok(())
}

/// The component for old releases is there because this is refused.
#[test]
fn before_1_30_there_is_no_field_for_apparmor() -> Result<()> {
    let variant = VARIANTS.iter().find(|v| v.overlay == "least-privilege").context("no such variant")?;
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("new.yaml");
    fs::write(&path, variant.kustomized()?)?;
    assert!(!validate(29, std::slice::from_ref(&path))?.status.success());
    assert!(validate(30, &[path])?.status.success());
    Ok(())
}

/// The folder of a cluster's own wishes that the README shows.
#[test]
fn the_example_of_the_readme_is_built() -> Result<()> {
    let readme = super::read("README.md")?;
    let (_, example) = readme.split_once("    # kustomization.yaml\n").context("no example")?;
    let example: Vec<&str> = example.lines().map_while(|line| line.strip_prefix("    ")).collect();
    let dir = tempfile::Builder::new().prefix("kustomize-").tempdir_in(top().join("target"))?;
    let here = example.join("\n").replace("route-guardian/deploy/", "../../deploy/");
    fs::write(dir.path().join("kustomization.yaml"), here)?;
    fs::write(dir.path().join("config.toml"), "mode = \"observe\"\n")?;
    let stream = run(tool("kubectl")?.arg("kustomize").arg(dir.path()))?;
    let objects = objects(&stream)?;
    assert_eq!(only(&objects, "ConfigMap")?["data"]["config.toml"], "mode = \"observe\"\n");
    let pod = &only(&objects, "DaemonSet")?["spec"]["template"]["spec"];
    assert_eq!(pod["containers"][0]["image"], "registry.example/route-guardian:0.1.0");
    let volume = &pod["volumes"][0]["configMap"]["name"];
    assert_eq!(
        *volume,
        only(&objects, "ConfigMap")?["metadata"]["name"],
        "the pod has another configuration"
    );
    only(&objects, "PodMonitor")?;
    Ok(())
}

#[test]
fn base_and_overlays_are_built_by_themselves() -> Result<()> {
    for folder in ["base", "overlays/privileged", "overlays/least-privilege"] {
        let stream = run(tool("kubectl")?.arg("kustomize").arg(super::file(folder)))?;
        assert_eq!(objects(&stream)?.len(), 6, "{folder}");
    }
    Ok(())
}
