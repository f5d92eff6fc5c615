//! What operators see and ask: journal, metrics, HTTP, the control socket, and text for people.

pub mod ask;
pub mod client;
pub mod control;
pub mod http;
pub mod incident;
pub mod journal;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
#[cfg(not(feature = "kubernetes"))]
#[path = "without_kubernetes.rs"]
pub mod kubernetes;
mod listener;
pub mod metrics;
pub mod openmetrics;
mod page;
pub mod protocol;
pub mod query;
pub mod report;
#[cfg(test)]
pub(crate) mod sample;
pub mod text;
