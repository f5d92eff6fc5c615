//! `bpf-linker`, which has to have the LLVM of the compiler whose bitcode it links.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, ensure};

use crate::{
    packages,
    program::{answer, install_crate, say, tools},
};

/// The version this workspace is built with.
const VERSION: &str = "0.13.0";
/// The LLVM majors it can be built for.
const LLVM: std::ops::RangeInclusive<u32> = 21..=23;

/// What building it needs beside LLVM: a file that is there when the package is, and the package.
const LIBRARIES: &[(&str, &str)] = &[
    ("zstd.h", "libzstd-dev"),
    ("zlib.h", "zlib1g-dev"),
    ("libxml2/libxml/xmlversion.h", "libxml2-dev"),
    ("ffi.h", "libffi-dev"),
];

/// Where Debian's LLVM of this major is.
pub fn prefix(llvm: u32) -> PathBuf {
    format!("/usr/lib/llvm-{llvm}").into()
}

/// Whether LLVM's libraries of this major are installed.
pub fn has_llvm(llvm: u32) -> bool {
    LLVM.contains(&llvm)
        && prefix(llvm).join("bin/llvm-config").exists()
        && prefix(llvm).join("include").exists()
}

/// Whether they are, or can be.
pub fn can_have_llvm(llvm: u32) -> bool {
    has_llvm(llvm) || LLVM.contains(&llvm) && packages::is_known(&format!("llvm-{llvm}-dev"))
}

/// Finds the linker for this LLVM among what was built before, or builds it.
pub fn find_or_build(llvm: u32) -> Result<PathBuf> {
    ensure!(
        LLVM.contains(&llvm),
        "bpf-linker {VERSION} is for LLVM {} to {}; the compiler has LLVM {llvm}",
        LLVM.start(),
        LLVM.end()
    );
    let linker = tools().join("bin/bpf-linker");
    let note = tools().join("bpf-linker.llvm");
    let built_for = |major: &str| fs::read_to_string(&note).is_ok_and(|text| text.trim() == major);
    let wanted = format!("{VERSION} {llvm}");
    if built_for(&wanted) && works(&linker) {
        return Ok(linker);
    }
    let mut missing: Vec<String> = Vec::new();
    if !has_llvm(llvm) {
        missing.push(format!("llvm-{llvm}-dev"));
    }
    for (header, package) in LIBRARIES {
        let places = ["/usr/include".into(), format!("/usr/include/{}-linux-gnu", std::env::consts::ARCH)];
        if !places.iter().any(|place| Path::new(place).join(header).exists()) {
            missing.push((*package).into());
        }
    }
    packages::install(&missing.iter().map(String::as_str).collect::<Vec<_>>(), "bpf-linker")?;
    say(&format!("building bpf-linker {VERSION} for LLVM {llvm}, about a minute"));
    install_crate("bpf-linker", VERSION, |cargo| {
        cargo.env("LLVM_PREFIX", prefix(llvm));
        cargo.args(["--no-default-features", "--features", &format!("llvm-{llvm}")]);
    })?;
    fs::write(&note, wanted)?;
    Ok(linker)
}

fn works(linker: &Path) -> bool {
    linker.is_file() && answer(Command::new(linker).arg("--version")).is_some()
}
