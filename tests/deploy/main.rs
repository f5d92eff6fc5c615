//! Tests of what is in `deploy/`: with the programs that it is made for, and the real guardian.
//!
//! They need root, as the namespace tests do; `cargo xtask test` sees to that, to the build and to the programs.

mod kubernetes;
mod prometheus;
mod systemd;
