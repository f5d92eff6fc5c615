//! The unit and the packages: what systemd says of it, what is in them, and how they come and go on a clean Debian, also
//! with systemd as its first process.

mod booted;
mod debian;
mod files;
mod life;
mod unit;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, ensure};

/// The top of the repository.
fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"))
}

/// The package with this ending that `cargo xtask package` has made.
fn package(ending: &str) -> Result<PathBuf> {
    let folder = top().join("target/package");
    let files = fs::read_dir(&folder).map(|files| files.filter_map(Result::ok).collect::<Vec<_>>());
    let mut found = files.unwrap_or_default().into_iter().map(|file| file.path());
    found
        .find(|path| path.extension().is_some_and(|extension| extension == ending))
        .with_context(|| format!("no .{ending} in {}; `cargo xtask package` makes it", folder.display()))
}

/// Runs a command; an error with what it said if it fails.
fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "{command:?} failed: {}:\n{}", output.status, said(&output));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// All that a program said.
fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said).into_owned()).concat()
}
