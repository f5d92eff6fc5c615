//! The BPF object, and the binary that has it inside.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::{
    profile,
    program::{answer, cargo, root, run},
    setup::{self, Tools},
    toolchain,
};

/// Builds the BPF object, then the guardian: the path of the binary.
pub fn all(debug: bool) -> Result<PathBuf> {
    object(&setup::tools()?)?;
    let (mut command, place) = if debug {
        let mut command = cargo();
        command.args(["build", "--package", "route-guardian"]);
        (command, "debug/route-guardian".into())
    } else {
        (optimised(Kind::Dynamic)?, place(Kind::Dynamic)?)
    };
    run(&mut command)?;
    Ok(root().join("target").join(place))
}

/// A way of compiling the release binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// With the system's C library: what the packages have.
    Dynamic,
    /// With the C library inside it: what the image has.
    Static,
}

/// What a build of this kind has that others are without: in a container there is a Kubernetes to be told of what happens.
pub const fn features(kind: Kind) -> &'static str {
    match kind {
        Kind::Dynamic => "",
        Kind::Static => "kubernetes",
    }
}

/// The binary's place in cargo's target folder.
pub fn place(kind: Kind) -> Result<PathBuf> {
    let folder = match kind {
        Kind::Dynamic => PathBuf::new(),
        Kind::Static => host()?.into(),
    };
    Ok(folder.join("release/route-guardian"))
}

/// `cargo build` of the release binary, as the profile says if there is one.
pub fn optimised(kind: Kind) -> Result<Command> {
    release(kind, profile::flags(kind))
}

/// `cargo build` of the release binary, with these flags for the compiler besides its own.
pub fn release(kind: Kind, mut flags: Vec<String>) -> Result<Command> {
    let host = host()?;
    let mut command = cargo();
    command.args(["build", "--release", "--package", "route-guardian", "--features", features(kind)]);
    names_commit(&mut command);
    if kind == Kind::Static {
        // With --target the flags are for the program alone. Macros are libraries that the compiler loads: those cannot
        // be static.
        flags.push("-Ctarget-feature=+crt-static".into());
        command.env("CARGO_PROFILE_RELEASE_STRIP", "symbols").args(["--locked", "--target", &host]);
    }
    if !flags.is_empty() {
        tell(&mut command, &host, flags);
    }
    Ok(command)
}

/// Has cargo tell the compiler these flags, and what else it is to be told: cargo heeds only one of the places that flags
/// can be in (`build.rustflags` of its reference).
fn tell(command: &mut Command, host: &str, mut flags: Vec<String>) {
    const ENCODED: &str = "CARGO_ENCODED_RUSTFLAGS";
    // Unlike in RUSTFLAGS, a path may have spaces in it there.
    const BETWEEN: char = '\x1f';
    if let Ok(given) = std::env::var(ENCODED) {
        flags.extend(given.split(BETWEEN).map(Into::into));
    } else if let Ok(given) = std::env::var("RUSTFLAGS") {
        flags.extend(given.split_whitespace().map(Into::into));
    } else {
        // Added to what a file says for this target.
        command.arg("--config").arg(format!("target.{host}.rustflags = {flags:?}"));
        return;
    }
    command.env(ENCODED, flags.join(&BETWEEN.to_string()));
}

/// Has a build say of which commit it is, as `route_guardian_build_info` does: where the sources are a git work tree,
/// and the environment does not say otherwise (`ROUTE_GUARDIAN_COMMIT`).
pub fn names_commit(build: &mut Command) {
    if std::env::var_os(COMMIT).is_some() {
        return;
    }
    // No tag is close enough to stand for it. A folder above may be a work tree of something else.
    let describe = ["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"];
    if root().join(".git").exists()
        && let Some(commit) = answer(Command::new("git").current_dir(root()).args(describe))
    {
        build.env(COMMIT, commit);
    }
}

/// The variable in which the guardian's build is told its commit.
const COMMIT: &str = "ROUTE_GUARDIAN_COMMIT";

/// `cargo build` for the BPF programs: their compiler, target, linker and flags.
///
/// The workspace's release profile is for the daemon; here nothing may unwind, and the linker, which makes
/// BTF of the debug information, does the optimising and stripping.
fn compile(tools: &Tools) -> Command {
    let mut command = tools.compiler.cargo();
    let linker = tools.linker.display();
    command
        .current_dir(root())
        .env("CARGO_TARGET_DIR", root().join("target/bpf"))
        .env("RUSTFLAGS", format!("-C debuginfo=2 -C link-arg=--btf -C linker={linker}"))
        .env("CARGO_PROFILE_RELEASE_LTO", "fat")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_STRIP", "none")
        .args([
            "build",
            "--quiet",
            "--locked",
            "-Z",
            "build-std=core",
            "--target",
            "bpfel-unknown-none",
            "--release",
        ])
        .args(["--package", "route-guardian-ebpf", "--features", "programs", "--bin", "route-guardian-bpf"]);
    command
}

/// Builds the BPF object and leaves it at `target/bpf/route-guardian.o`, touched only when it is another:
/// the daemon is compiled again when it changes.
pub fn object(tools: &Tools) -> Result<()> {
    run(&mut compile(tools)).context("cannot build the BPF programs")?;
    let built = root().join("target/bpf/bpfel-unknown-none/release/route-guardian-bpf");
    let object = root().join("target/bpf/route-guardian.o");
    let bytes = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    if fs::read(&object).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    fs::write(&object, bytes).with_context(|| format!("cannot write {}", object.display()))
}

/// Compiles all for 64-bit ARM as far as it goes without that architecture's linker: the BPF programs, where a breakpoint
/// finds a function's arguments in other registers, and the guardian with its standard library.
///
/// # Errors
/// What does not compile: something is taken for granted that holds on x86 only.
pub fn check_arm64(tools: &Tools) -> Result<()> {
    let dir = root().join("target/arm64");
    let mut programs = compile(tools);
    // `emit_bpf_target_arch_cfg` of aya-build.
    programs.env("CARGO_TARGET_DIR", &dir).env("AYA_BPF_TARGET_ARCH", "aarch64");
    run(&mut programs).context("the BPF programs do not compile for aarch64")?;
    let mut guardian = tools.compiler.cargo();
    guardian
        .current_dir(root())
        .env("CARGO_TARGET_DIR", &dir)
        .args(["check", "--quiet", "--locked", "-Z", "build-std", "--target", "aarch64-unknown-linux-gnu"])
        .args(["--package", "route-guardian"]);
    run(&mut guardian).context("the guardian does not compile for aarch64")
}

/// What the workspace's compiler makes programs for, such as `x86_64-unknown-linux-gnu`.
pub fn host() -> Result<String> {
    Ok(toolchain::field(&toolchain::rustc()?, "host: ")
        .context("rustc does not say what it compiles for")?
        .into())
}
