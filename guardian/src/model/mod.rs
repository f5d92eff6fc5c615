//! The words of the field as plain data: prefixes, routes, links, actors, event records.
//!
//! The ground floor of the crate. Nothing here does I/O, reads a clock or knows a socket.

pub mod actor;
pub mod address;
pub mod attribute;
pub mod link;
mod mode;
pub mod nexthop;
pub mod notice;
pub mod object;
pub mod prefix;
pub mod record;
pub mod route;
mod route_text;
pub mod rule;
pub mod time;

pub use actor::{Actor, ActorClass, Confidence, Process, ProcessId};
pub use address::{Address, AddressKey};
pub use attribute::Attribute;
pub use link::{Cable, Link, Links, Port};
pub use mode::Mode;
pub use nexthop::Nexthop;
pub use notice::Notice;
pub use object::{Key, Object};
pub use prefix::{Family, Prefix};
pub use route::{Fallen, Leg, Route, RouteKey};
pub use rule::{Rule, RuleKey};
pub use time::Stamp;
