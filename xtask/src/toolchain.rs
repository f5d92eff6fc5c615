//! A Rust compiler for the BPF target.
//!
//! The target has no prebuilt `core`: it takes a compiler that is willing to use `-Z build-std`, and the
//! sources of its own standard library. A rustup nightly has them as the component `rust-src`; Debian's
//! `rustc-web` has them in `rust-web-src`, and is made willing by `RUSTC_BOOTSTRAP=1`.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, anyhow};

use crate::{
    linker, packages,
    program::{answer, find, say},
};

/// The oldest release that compiles this workspace.
const OLDEST: u32 = 89;

/// A compiler with its standard library's sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiler {
    /// The compiler itself, not a proxy that looks for one.
    pub rustc: PathBuf,
    /// Its cargo.
    pub cargo: PathBuf,
    /// The major version of the LLVM in it.
    pub llvm: u32,
    /// What it says it is.
    pub version: String,
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, LLVM {})", self.version, self.rustc.display(), self.llvm)
    }
}

impl Compiler {
    /// Asks a compiler what it is; `None` where there is none, or too old a one.
    fn ask(rustc: PathBuf, cargo: PathBuf) -> Option<Self> {
        let text = answer(Command::new(&rustc).arg("-vV"))?;
        let version = text.lines().next()?.to_owned();
        let llvm = llvm(&text)?;
        let minor: u32 = field(&text, "release: ")?.split('.').nth(1)?.parse().ok()?;
        (minor >= OLDEST && cargo.is_file()).then_some(Self { rustc, cargo, llvm, version })
    }

    /// Whether its standard library's sources are there.
    pub fn has_sources(&self) -> bool {
        answer(Command::new(&self.rustc).args(["--print", "sysroot"])).is_some_and(|root| {
            Path::new(&root).join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file()
        })
    }

    /// The command `cargo` of this compiler, whatever toolchain runs this program.
    pub fn cargo(&self) -> Command {
        let mut command = Command::new(&self.cargo);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            let of_outer =
                ["CARGO", "RUSTC", "RUSTDOC", "RUSTFLAGS", "RUSTUP_TOOLCHAIN", "RUST_RECURSION_COUNT"];
            let of_user = ["CARGO_HOME", "CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTR", "CARGO_TERM_"];
            if of_outer.iter().any(|o| text.starts_with(o)) && !of_user.iter().any(|u| text.starts_with(u)) {
                command.env_remove(name);
            }
        }
        command.env("RUSTC", &self.rustc).env("RUSTC_BOOTSTRAP", "1");
        command
    }
}

/// The compiler of the workspace, in all that it says of itself.
pub fn rustc() -> Result<String> {
    answer(Command::new("rustc").arg("-vV")).context("rustc does not say what it is")
}

/// A field of what a compiler says of itself.
pub fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name))
}

/// The major version of its LLVM.
pub fn llvm(text: &str) -> Option<u32> {
    field(text, "LLVM version: ")?.split('.').next()?.parse().ok()
}

/// Finds a compiler, or installs one: first the one that needs the least.
pub fn find_or_install() -> Result<Compiler> {
    let nightly = nightly();
    let debian = debian();
    if let Some(ready) =
        [&nightly, &debian].into_iter().flatten().find(|c| c.has_sources() && linker::has_llvm(c.llvm))
    {
        return Ok(ready.clone());
    }
    if let Some(nightly) = nightly.filter(|c| linker::can_have_llvm(c.llvm)) {
        if nightly.has_sources() || add_sources() && nightly.has_sources() {
            return Ok(nightly);
        }
        say("there is a nightly, but not its component rust-src; using Debian's compiler instead");
    }
    install_debian()
}

/// rustup's nightly, if there is one.
fn nightly() -> Option<Compiler> {
    find("rustup")?;
    let which = |tool| {
        answer(
            Command::new("rustup")
                .args(["which", "--toolchain", "nightly", tool])
                .env("RUSTUP_AUTO_INSTALL", "0"),
        )
        .map(PathBuf::from)
    };
    Compiler::ask(which("rustc")?, which("cargo")?)
}

fn add_sources() -> bool {
    say("adding the component rust-src to rustup's nightly");
    answer(
        Command::new("rustup")
            .args(["component", "add", "rust-src", "--toolchain", "nightly"])
            .env("RUSTUP_MAX_RETRIES", "1"),
    )
    .is_some()
}

/// Debian's, if it is installed.
fn debian() -> Option<Compiler> {
    Compiler::ask("/usr/bin/rustc".into(), "/usr/bin/cargo".into())
}

fn install_debian() -> Result<Compiler> {
    if debian().is_none_or(|c| !c.has_sources()) {
        packages::install(&["rustc-web", "cargo-web", "rust-web-src"], "the BPF programs").context(
            "no compiler for the BPF target; either `rustup toolchain install nightly --component rust-src`, or \
             Debian's rustc-web, cargo-web and rust-web-src",
        )?;
    }
    debian().filter(Compiler::has_sources).ok_or_else(|| {
        anyhow!("/usr/bin/rustc has no sources of its standard library, though they are installed")
    })
}
