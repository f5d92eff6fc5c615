//! A whole node in a guest: systemd as the first process, its networkd on a network card, kube-router's real kinds of
//! links, a pod that asks a DNS server on another node by a service address, and the guardian as the installed unit.
//!
//! It takes the machine that it runs on apart: `cargo xtask vm --node` starts it in a guest of each kernel.

mod rig;
mod scenarios;
mod unit;
