//! Tests and lints.

use std::process::Command;

use anyhow::{Context, Result};

use crate::{
    build, packages,
    program::{self, answer, as_root, cargo, run},
    setup,
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
