//! Namespace tests: the real guardian, with real eBPF, against the real kernel.
//!
//! Each test makes network namespaces of its own. They need root; `cargo xtask test` sees to that, and to the
//! build and the programs they use.

mod damping;
mod footprint;
mod foreign;
mod modes;
mod networkd;
mod owner;
mod paths;
mod refusals;
mod shapes;
mod without_guardian;
