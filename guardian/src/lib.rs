//! The route guardian, as a library for its binary and its tests.
//!
//! A folder a subject; arrows only point down: `model` < `core` < (`netlink`, `procfs`) <
//! (`sensor`, `attribution`, `knowledge`) <
//! `surface` < `daemon` < `cli`.

pub mod attribution;
mod causes;
pub mod cli;
pub mod config;
pub mod core;
pub mod daemon;
mod footprint;
pub mod knowledge;
pub mod model;
pub mod netlink;
pub mod procfs;
pub mod sensor;
pub mod surface;
