//! Finds the BPF object that the sensor embeds. Building it is `cargo xtask build`'s work.

use std::{env, path::PathBuf, process::exit};

fn main() {
    println!("cargo::rerun-if-env-changed=ROUTE_GUARDIAN_BPF");
    let object = env::var_os("ROUTE_GUARDIAN_BPF").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/route-guardian.o"),
        PathBuf::from,
    );
    println!("cargo::rerun-if-changed={}", object.display());
    match object.canonicalize() {
        Ok(path) if path.is_file() => {
            println!("cargo::rustc-env=ROUTE_GUARDIAN_BPF_OBJECT={}", path.display());
        }
        _ => {
            println!(
                "cargo::error=the BPF object {} is missing: run `cargo xtask build`, which makes it, or set \
                 ROUTE_GUARDIAN_BPF to where it is",
                object.display()
            );
            exit(1);
        }
    }
}
