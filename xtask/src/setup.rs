//! Finds or installs what the build, the tests, the demo and the benchmark need, and remembers it.

use std::{
    fs,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use anyhow::{Context, Result};

use crate::{
    linker,
    packages::{self, Wanted},
    program,
    toolchain::{self, Compiler},
};

/// What compiles and links the BPF programs.
#[derive(Clone, Debug)]
pub struct Tools {
    /// The compiler.
    pub compiler: Compiler,
    /// `bpf-linker` for its LLVM.
    pub linker: PathBuf,
}

/// The tools of the last time if they are still what they were, or else what is found or installed now.
pub fn tools() -> Result<Tools> {
    let stamp = program::tools().join("stamp");
    if let Some(tools) = fs::read_to_string(&stamp).ok().and_then(|text| remembered(&text)) {
        return Ok(tools);
    }
    let compiler = toolchain::find_or_install()?;
    let linker = linker::find_or_build(compiler.llvm)?;
    let tools = Tools { compiler, linker };
    fs::write(&stamp, note(&tools)).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(tools)
}

/// Installs what of these programs is missing.
pub fn programs(wanted: &[Wanted]) -> Result<()> {
    let mut missing: Vec<_> =
        wanted.iter().filter(|(p, _)| !packages::is_there(p)).map(|(_, p)| *p).collect();
    missing.sort_unstable();
    missing.dedup();
    packages::install(&missing, "the programs that are run here")
}

/// When the file was changed last and how large it is: another compiler or linker in its place is noticed.
fn trace(path: &Path) -> Option<String> {
    let file = fs::metadata(path).ok()?;
    let at = file.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(format!("{}.{}", at.as_nanos(), file.len()))
}

fn note(tools: &Tools) -> String {
    let Compiler { rustc, cargo, llvm, version } = &tools.compiler;
    let traces = [rustc, cargo, &tools.linker].map(|path| trace(path).unwrap_or_default()).join(" ");
    let paths = [rustc, cargo, &tools.linker].map(|path| path.display().to_string()).join("\n");
    format!("{paths}\n{llvm}\n{version}\n{traces}\n")
}

fn remembered(text: &str) -> Option<Tools> {
    let mut lines = text.lines();
    let (rustc, cargo, linker) = (lines.next()?.into(), lines.next()?.into(), lines.next()?.into());
    let (llvm, version) = (lines.next()?.parse().ok()?, lines.next()?.to_owned());
    let tools = Tools { compiler: Compiler { rustc, cargo, llvm, version }, linker };
    (note(&tools) == text && [&tools.compiler.rustc, &tools.linker].iter().all(|path| path.is_file()))
        .then_some(tools)
}
