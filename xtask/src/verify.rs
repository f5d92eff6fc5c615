//! Tests and lints.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};

use crate::{
    build, packages,
    program::{self, answer, as_root, cargo, run},
    setup, vm,
};

/// Builds, then runs unit and property tests, then the namespace tests as root. In continuous integration
/// the lints come first, where the toolchain has them.
pub fn test(filter: Option<&str>) -> Result<()> {
    setup::programs(packages::TESTS)?;
    if packages::is_ci() && has_lints() {
        check()?;
    }
    build::all(false)?;
    run(cargo().args(["test", "--workspace", "--exclude", "route-guardian-tests"]).args(filter))?;
    let mut namespace = cargo();
    namespace.args(["test", "--package", "route-guardian-tests"]).args(filter);
    if !program::is_root() {
        // Cargo builds as who we are, and starts the test binary through this.
        as_root("true", "making network namespaces for the tests")?;
        let host = host().context("rustc does not say what it compiles for")?;
        let variable = format!("CARGO_TARGET_{}_RUNNER", host.to_uppercase().replace('-', "_"));
        namespace.env(variable, "sudo -n --preserve-env --");
    }
    run(&mut namespace)
}

/// Runs the namespace tests, or a command, in a guest of each series; without any, of [`vm::SERIES`].
pub fn in_guests(series: &[String], command: Option<&str>, filter: Option<&str>) -> Result<()> {
    let guardian = build::all(false)?;
    let mut files = vec![guardian];
    let command = match command {
        Some(command) => command.to_owned(),
        None => {
            let tests = namespace_tests()?;
            let line = format!(
                "cd {} && ROUTE_GUARDIAN_EMULATED=1 {} --test-threads=1 {}",
                program::root().join("tests").display(),
                tests.display(),
                filter.unwrap_or_default()
            );
            files.push(tests);
            files.push(program::root().join("tests/Cargo.toml"));
            line
        }
    };
    let default = vm::SERIES.map(str::to_owned);
    for series in if series.is_empty() { &default[..] } else { series } {
        let job = vm::Job { series: series.clone(), command: command.clone(), files: files.clone() };
        ensure!(vm::run(&job)?, "it failed on Linux {series}");
    }
    Ok(())
}

/// The compiled namespace tests.
fn namespace_tests() -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["test", "--package", "route-guardian-tests", "--test", "namespace", "--no-run"]);
    build.arg("--message-format=json-render-diagnostics");
    let text = answer(&mut build).context("the namespace tests do not build")?;
    text.lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "namespace")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo does not say where the namespace tests are")
}

/// Formatting, and lints as errors, for the workspace and for the BPF programs.
pub fn check() -> Result<()> {
    let tools = setup::tools()?;
    build::object(&tools)?;
    run(cargo().args(["fmt", "--all", "--check"]))?;
    run(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    // The programs are linted for the host: clippy comes with the workspace's toolchain, and `core` for the
    // BPF target does not. The release profile aborts on panic, as a program without `std` has to. There is
    // no call that the verifier likes as much as none: all is inlined.
    run(cargo()
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_DIR", program::root().join("target/bpf"))
        .args(["clippy", "--release", "--package", "route-guardian-ebpf", "--features", "programs"])
        .args(["--bin", "route-guardian-bpf", "--", "-D", "warnings", "-A", "clippy::inline_always"]))
}

fn has_lints() -> bool {
    ["fmt", "clippy"].iter().all(|lint| answer(cargo().args([lint, "--version"])).is_some())
}

fn host() -> Option<String> {
    let text = answer(Command::new("rustc").arg("-vV"))?;
    text.lines().find_map(|line| line.strip_prefix("host: ")).map(str::to_owned)
}
