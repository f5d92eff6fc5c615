//! The unit and the packages: what systemd says of it, what is in them, and how they come and go on a clean Debian, also
//! with systemd as its first process.

mod booted;
mod debian;
mod files;
mod life;
mod rpm;
mod unit;

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

use crate::top;

/// The package with this ending that `cargo xtask package` has made.
fn package(ending: &str) -> Result<PathBuf> {
    let folder = top().join("target/package");
    let files = fs::read_dir(&folder).map(|files| files.filter_map(Result::ok).collect::<Vec<_>>());
    let mut found = files.unwrap_or_default().into_iter().map(|file| file.path());
    found
        .find(|path| path.extension().is_some_and(|extension| extension == ending))
        .with_context(|| format!("no .{ending} in {}; `cargo xtask package` makes it", folder.display()))
}
