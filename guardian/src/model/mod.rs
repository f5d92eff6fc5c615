//! The words of the field as plain data: prefixes, routes, links, actors, event records.
//!
//! The ground floor of the crate. Nothing here does I/O, reads a clock or knows a socket.

pub mod actor;
pub mod link;
mod mode;
pub mod notice;
pub mod prefix;
pub mod record;
pub mod route;
mod route_text;
pub mod time;

pub use actor::{Actor, ActorClass, Confidence, Process, ProcessId};
pub use link::{Link, Links};
pub use mode::Mode;
pub use notice::{Address, Notice};
pub use prefix::{Family, Prefix};
pub use route::{Attribute, Leg, Route, RouteKey};
pub use time::Stamp;
