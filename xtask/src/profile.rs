//! What the compiler is told of how the guardian runs: a profile of the real thing.
//!
//! Whoever deletes a route waits for code that a CPU has not run for a while and fetches line by line. With a profile the
//! compiler puts what a restore runs through side by side, and what it does not elsewhere. The profile is of a guardian
//! that counts which way it goes (`-Cprofile-generate`), while real programs take routes and all the rest away from it.
//!
//! Functions are found again by their names, into which cargo puts its own profile, the features and the target: each kind of
//! build needs a profile of its own. One of other sources does no harm: it is not used for what has changed since.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use lab::{Lab, Node};

use crate::{
    build::{self, Kind},
    linker, namespaces, packages,
    program::{answer, quietly, root, run, say},
    setup, toolchain,
};

/// How often everything is taken away.
const ROUNDS: usize = 20;

/// One of each kind of object, by a command of somebody who is not its owner.
const TAKEN: [&str; 10] = [
    "ip route del 10.244.2.0/24",
    "ip route replace 10.244.3.0/24 via 192.0.2.254 dev eth0 onlink",
    "ip -6 route flush proto 17",
    "ip rule del from 10.244.1.0/24 lookup 77",
    "ip -6 rule del from fd00:244:1::/64 lookup 77",
    "ip nexthop del id 18",
    "ip addr del 10.96.0.10/32 dev kube-dummy-if",
    "ip link set veth0000a nomaster",
    "ip link set kube-bridge mtu 1400",
    "ip link set kube-dummy-if down",
];

impl Kind {
    /// Its profile.
    fn profile(self) -> PathBuf {
        folder().join(match self {
            Self::Dynamic => "dynamic.profdata",
            Self::Static => "static.profdata",
        })
    }

    /// Which compiler it is for.
    fn note(self) -> PathBuf {
        self.profile().with_extension("rustc")
    }
}

fn folder() -> PathBuf {
    root().join("target/profile")
}

/// The guardian that counts.
fn counter() -> PathBuf {
    folder().join("counting")
}

/// Where it leaves what it has counted.
fn counts() -> PathBuf {
    folder().join("counts")
}

/// What the compiler is to be told for a build of this kind: where its profile is, if there is one that it can read.
pub fn flags(kind: Kind) -> Vec<String> {
    if !is_there(kind) {
        return vec![];
    }
    // That functions have changed since is no reason for a warning at each of them.
    let quiet = "-Cllvm-args=-no-pgo-warn-mismatch".into();
    vec![format!("-Cprofile-use={}", kind.profile().display()), quiet]
}

/// Whether there is a profile for builds of this kind, of this compiler.
pub fn is_there(kind: Kind) -> bool {
    kind.profile().is_file()
        && fs::read_to_string(kind.note()).is_ok_and(|by| toolchain::rustc().is_ok_and(|rustc| rustc == by))
}

/// Says so where what is to be released is compiled without one.
pub fn miss(kind: Kind) {
    if !is_there(kind) {
        let more = if kind == Kind::Static { " --static" } else { "" };
        say(&format!(
            "there is no profile of this compiler: a restore takes somewhat longer than after `train{more}`"
        ));
    }
}

/// Builds the guardian that counts, where it can be had restore and what it counts can be used.
pub fn counting(kind: Kind) -> Result<()> {
    if let Some(why) = namespaces::unusable() {
        bail!("{why}: there is nowhere to have the guardian restore anything");
    }
    profdata()?;
    build::object(&setup::tools()?)?;
    say("building a guardian that counts which way it goes, some minutes");
    let mut command = build::release(kind, vec!["-Cprofile-generate=/dev/null".into()])?;
    // What runs at build time counts too, for nothing.
    let build = folder().join("build");
    run(command.env("CARGO_TARGET_DIR", &build).env("LLVM_PROFILE_FILE", "/dev/null"))?;
    fs::rename(build.join(build::place(kind)?), counter())?;
    // As large as all that was built. Counts of an earlier time would count too.
    for done in [build, counts()] {
        remove(&done)?;
    }
    fs::create_dir(counts()).context("cannot make a folder for the counts")
}

/// Has it restore; inside [`crate::contained::run`].
pub fn train() -> Result<()> {
    for words in ["exercise", "demo", "bench flush", "bench outage"] {
        say(&format!("having it restore: {words}"));
        let mut command = Command::new(env::current_exe()?);
        command.env("ROUTE_GUARDIAN", counter()).env("LLVM_PROFILE_FILE", counts().join("%p.profraw"));
        quietly(command.args(words.split(' ')))?;
    }
    Ok(())
}

/// Makes a profile of what it has counted.
pub fn keep(kind: Kind) -> Result<()> {
    let mut files = Vec::new();
    for file in fs::read_dir(counts())? {
        files.push(file?.path());
    }
    ensure!(!files.is_empty(), "the guardian has counted nothing");
    let new = folder().join("new");
    quietly(Command::new(profdata()?).args(["merge", "--sparse", "--output"]).arg(&new).args(files))?;
    fs::rename(new, kind.profile()).context("cannot put the profile in its place")?;
    fs::write(kind.note(), toolchain::rustc()?)?;
    remove(&counts())?;
    fs::remove_file(counter()).context("cannot remove the guardian that counted")?;
    say(&format!("builds for release use {} from now on", kind.profile().display()));
    Ok(())
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Takes one object of each kind away, each time when all is whole again; inside [`crate::contained::run`].
pub fn exercise() -> Result<()> {
    let Node { lab, pods } = Lab::guarded()?;
    let guardian = lab.guardian().set("damping.burst", "1000000").start()?;
    for round in 0..ROUNDS {
        for line in TAKEN {
            let mut words = line.split(' ');
            let mut command = Command::new(words.next().context("no command")?);
            // In a fight it may come too late, and fail.
            command.args(words).stdin(Stdio::null()).stderr(Stdio::null()).status()?;
            guardian.no_diff().context(line)?;
        }
        if round == 0 {
            for words in ["status", "events", "explain --last", "snapshot"] {
                guardian.ask(words)?;
            }
            guardian.metrics()?;
        }
    }
    drop(pods);
    guardian.stop().map(drop)
}

/// `llvm-profdata` of the compiler's LLVM: of rustup's component `llvm-tools`, or Debian's.
fn profdata() -> Result<PathBuf> {
    let llvm = toolchain::llvm(&toolchain::rustc()?).context("rustc does not say which LLVM it has")?;
    let sysroot = answer(Command::new("rustc").args(["--print", "sysroot"])).unwrap_or_default();
    let places = [
        Path::new(&sysroot).join(format!("lib/rustlib/{}/bin/llvm-profdata", build::host()?)),
        linker::prefix(llvm).join("bin/llvm-profdata"),
    ];
    let find = || places.iter().find(|place| place.is_file()).cloned();
    if find().is_none() {
        packages::install(&[&format!("llvm-{llvm}")], "the profile")?;
    }
    find().with_context(|| {
        format!("no llvm-profdata of LLVM {llvm}: `rustup component add llvm-tools`, or Debian's llvm-{llvm}")
    })
}
