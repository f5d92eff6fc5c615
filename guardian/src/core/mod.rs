//! The pure state machine: desired and observed state, verdicts, plans, damping.
//!
//! No I/O, no clock, no task: [`Core::step`] takes what happened and when, and says what is to be done.
//! It can be replayed from a recording and tested against a model of the kernel.

#[cfg(test)]
mod addresses_tests;
mod alternatives;
mod cables;
#[cfg(test)]
mod cables_tests;
mod damping;
mod flow;
mod incident;
mod lending;
#[cfg(test)]
mod lending_tests;
mod links;
mod loan;
mod losses;
mod machine;
mod objects;
#[cfg(test)]
mod objects_tests;
mod origin;
pub mod plan;
mod restore;
mod rib;
#[cfg(test)]
mod rivals_tests;
#[cfg(test)]
mod scenarios;
mod scope;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod stage;
mod suspicion;
#[cfg(test)]
mod testing;
mod view;

pub use damping::Damping;
pub use flow::{Dump, Effect, Input, Reason, Report};
pub use lending::is_networkd;
pub use machine::{Core, Settings};
pub use restore::Waited;
pub use scope::Scope;
pub use view::{Counts, Missing};
