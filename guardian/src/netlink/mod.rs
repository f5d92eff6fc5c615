//! Everything that speaks rtnetlink: reading notifications and dumps, and the one writer.
//!
//! - [`message`]: frames and attributes of a datagram, bounds-checked;
//! - [`decode`]: a frame into a [`Notice`](crate::model::Notice);
//! - [`encode`]: an [`Object`](crate::model::Object) into a request or a message that loses none of its bytes;
//! - [`executor`]: the only code that writes to the kernel, over a `wire`;
//! - [`dump`]: what the kernel holds now;
//! - [`listener`]: notifications, for the mode without BPF.
//!
//! Each opens a socket of its own, in the network namespace of the thread that opens it: a flood of
//! notifications cannot push out the answer to a request.

pub mod decode;
pub mod dump;
pub mod encode;
pub mod executor;
pub mod listener;
pub mod message;
mod socket;
#[cfg(test)]
mod tests;
mod wire;

pub use decode::decode;
pub use dump::{DumpError, Routes, State, dump, dump_routes};
pub use encode::{EncodeError, message};
pub use executor::Executor;
pub use listener::{Listener, Received};
pub use message::{DecodeError, Frame, Header, frames};
