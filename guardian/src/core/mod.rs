//! The pure state machine: desired and observed state, verdicts, plans, damping.

pub mod plan;
