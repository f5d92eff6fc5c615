//! What operators see and ask: journal, metrics, HTTP, the control socket, and text for people.

pub mod journal;
pub mod metrics;
pub mod openmetrics;
pub mod query;
#[cfg(test)]
pub(crate) mod sample;
