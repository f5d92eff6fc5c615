//! The bill of materials: what is in the guardian's binary, for programs that look for known vulnerabilities.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::{
    build::{self, Kind},
    program::{answer, install_crate, quietly, root, say, tools},
};

/// The OWASP project's own tool for Rust.
const TOOL: (&str, &str) = ("cargo-cyclonedx", "0.5.9");

/// What the files that it makes are called.
const NAME: &str = "route-guardian.cdx.json";

/// Writes `target/static/route-guardian.cdx.json` (`CycloneDX` 1.5): the crates that the binary is compiled from for this
/// machine's kind of system, without what only builds or tests it. Returns its path.
pub fn write() -> Result<PathBuf> {
    let tool = find_or_build()?;
    let target = build::host()?;
    let made = quietly(
        Command::new(&tool)
            .current_dir(root())
            .args(["cyclonedx", "--manifest-path", "guardian/Cargo.toml", "--format", "json"])
            .args(["--features", build::features(Kind::Static), "--spec-version", "1.5", "--no-build-deps"])
            .args(["--target", &target])
            .args(["--override-filename", NAME.trim_end_matches(".json")]),
    );
    // It puts one beside each manifest of the workspace. Only that of the guardian is wanted.
    let text = fs::read_to_string(root().join("guardian").join(NAME));
    for member in fs::read_dir(root())? {
        let _ = fs::remove_file(member?.path().join(NAME));
    }
    made?;
    let bill = root().join("target/static").join(NAME);
    fs::create_dir_all(root().join("target/static"))?;
    // Where this was built is nobody's business, and no difference between two bills.
    let text = text.context("the tool has made nothing for the guardian")?;
    fs::write(&bill, text.replace(&format!("file://{}", root().display()), "file://."))?;
    Ok(bill)
}

fn find_or_build() -> Result<PathBuf> {
    let (name, version) = TOOL;
    let tool = tools().join("bin").join(name);
    let says = answer(Command::new(&tool).args(["cyclonedx", "--version"]));
    if says.is_some_and(|says| says.ends_with(version)) {
        return Ok(tool);
    }
    say(&format!("building {name} {version}, some minutes"));
    install_crate(name, version, |_| {})?;
    Ok(tool)
}
