//! Namespace tests: the real guardian, with real eBPF, against the real kernel.
//!
//! Each test makes network namespaces of its own. They need root; `cargo xtask test` sees to that, and to the
//! build and the programs they use.

mod absence;
mod actors;
mod affinity;
mod cables;
mod churn;
mod cost;
mod damping;
mod deployment;
mod fights;
mod footprint;
mod foreign;
mod incidents;
mod modes;
mod neighbours;
mod networkd;
mod networkd_cases;
mod networkmanager;
mod origin;
mod owner;
mod ownership;
mod page;
mod paths;
mod queries;
mod race;
mod random;
mod refusals;
mod reload;
mod restart;
mod service;
mod shapes;
mod silent;
mod without_guardian;
