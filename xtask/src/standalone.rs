//! The binary that needs no file of the system it runs on: what the container image is made of.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{
    build::{self, Kind},
    program::{answer, quietly, root, run},
    setup,
};

/// The most bytes it may have. It is the whole image: every node of a cluster fetches it.
const SIZE_MAX: u64 = 15_000_000;

/// Builds the guardian with the C library inside it, without symbols, and leaves it at
/// `target/static/route-guardian`: the path.
///
/// With the C library that the compiler is for, since the target for musl is not installed everywhere. What glibc
/// cannot do in a static binary, to load modules that look up names of hosts and users, the guardian never asks for.
pub fn build() -> Result<PathBuf> {
    build::object(&setup::tools()?)?;
    run(&mut build::optimised(Kind::Static)?)?;
    let built = root().join("target").join(build::place(Kind::Static)?);
    let binary = root().join("target/static/route-guardian");
    fs::create_dir_all(root().join("target/static"))?;
    fs::copy(&built, &binary).with_context(|| format!("cannot copy {}", built.display()))?;
    check(&binary)?;
    Ok(binary)
}

/// It asks for no loader and no library, is not too large, and runs.
fn check(binary: &Path) -> Result<()> {
    let name = binary.display();
    let headers = answer(
        Command::new("readelf").args(["--wide", "--program-headers", "--dynamic"]).arg(binary),
    )
    .context(
        "cannot read the binary's headers: readelf is missing, which comes with the C compiler's binutils",
    )?;
    ensure!(headers.contains("LOAD"), "readelf shows no segment of {name}");
    ensure!(!headers.contains("INTERP"), "{name} asks for a loader: it is not static");
    ensure!(!headers.contains("(NEEDED)"), "{name} asks for libraries: it is not static");
    let size = fs::metadata(binary)?.len();
    ensure!(size <= SIZE_MAX, "{name} has {size} bytes, and may have {SIZE_MAX}");
    quietly(Command::new(binary).arg("--version"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// These tests themselves are of the usual kind, with a loader and libraries.
    #[test]
    fn a_binary_with_a_loader_is_refused() -> Result<()> {
        let error = check(&std::env::current_exe()?).unwrap_err().to_string();
        assert!(error.contains("it is not static"), "{error}");
        Ok(())
    }
}
