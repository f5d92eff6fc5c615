//! What Kubernetes is told: the real guardian in a network namespace, and a stand-in for the API server.

mod api_server;
mod away;
mod condition;
mod events;
mod idle;
pub mod pod;
mod schemas;
