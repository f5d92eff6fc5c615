//! The only code that writes to the kernel.
//!
//! Many requests go out in one datagram; [`wire`](super::wire) carries them and brings the answers. Each
//! request is answered by an echo of the kernel's own notification (`NLM_F_ECHO`, `nlmsg_notify`), which
//! tells what the kernel now holds, and by an acknowledgement. Links are not echoed before Linux 6.2 and IPv6
//! addresses not at all: these are asked for afterwards.
//!
//! Links and ports go step by step (`links`): what is to be set next hangs on what was answered.

mod judge;
mod links;

use std::io;

use rtnetlink::packet_core::NetlinkSerializable;

use super::{
    encode::{EncodeError, Request},
    message::nl,
    wire::{Answer, Wire},
};
use crate::{
    core::plan::{Action, Applied},
    model::{Family, Object},
};
use judge::judge;

/// Requests in flight. With the answers to each (under 2 KiB of kernel memory for most routes) they
/// fit the receive buffer many times over.
const IN_FLIGHT: usize = 128;
/// Bytes of requests in one datagram, below the default `net.core.wmem_default`.
const DATAGRAM_MAX: usize = 64 * 1024;
const RECEIVE_BUFFER: usize = 4 << 20;

/// Writes objects to the kernel, in the network namespace of the thread that opened it.
pub struct Executor {
    wire: Option<Wire>,
    port: u32,
}

impl Executor {
    /// Opens the socket.
    ///
    /// # Errors
    /// Those of `socket`, `bind` and `setsockopt`. Whether the process may write
    /// (`CAP_NET_ADMIN`) shows only when it does.
    pub fn open() -> io::Result<Self> {
        Self::with_receive_buffer(RECEIVE_BUFFER)
    }

    pub(super) fn with_receive_buffer(bytes: usize) -> io::Result<Self> {
        let wire = Wire::open(0, bytes)?;
        let port = wire.port()?;
        Ok(Self { wire: Some(wire), port })
    }

    /// The port id of the socket: `nlmsg_pid` of all notifications that this executor causes.
    pub const fn port(&self) -> u32 {
        self.port
    }

    /// Carries the actions out, in order, and says what came of each, in the same order. An action that
    /// fails does not stop the next.
    ///
    /// Two links that are the ends of one veth are made in one go where both are among the actions; where one
    /// is missing it is made with its index and a name of the kernel's choice.
    pub fn apply(&mut self, actions: &[Action]) -> Vec<Applied> {
        let mut results = Vec::with_capacity(actions.len());
        let mut rest = actions;
        while let Some(first) = rest.first() {
            if stepwise(first) {
                results.push(self.apply_to_link(first, actions));
                rest = rest.get(1..).unwrap_or_default();
                continue;
            }
            let batches = batch(rest);
            let (now, later) = rest.split_at(batches.len());
            rest = later;
            let exchanged = self.exchange(batches.iter().flatten().flatten());
            let (mut answers, lost) = match exchanged {
                Ok(answers) => (answers.into_iter(), String::from("the kernel's answer was lost")),
                Err(error) => (Vec::new().into_iter(), format!("the netlink socket failed: {error}")),
            };
            for (action, requests) in now.iter().zip(batches) {
                results.push(match requests {
                    Err(error) => Applied::Refused { errno: error.errno(), message: Some(error.to_string()) },
                    Ok(requests) => judge(
                        action,
                        merged(requests.iter().map(|_| answers.next().unwrap_or_default())),
                        &lost,
                    ),
                });
            }
        }
        results
    }

    /// Sends the requests as one datagram and returns an answer for each, empty where it was lost.
    fn exchange<'a>(&mut self, requests: impl Iterator<Item = &'a Request>) -> io::Result<Vec<Answer>> {
        let mut wire = match self.wire.take() {
            Some(wire) => wire,
            // After a failure. The same port id, for those who know it.
            None => Wire::open(self.port, RECEIVE_BUFFER)?,
        };
        let (answers, intact) = wire.exchange(requests)?;
        if intact {
            self.wire = Some(wire);
        }
        Ok(answers)
    }
}

/// Whether the requests of an action hang on the answers to those before them.
const fn stepwise(action: &Action) -> bool {
    matches!(action.object(), Object::Link(_) | Object::Port(_))
}

/// The requests of as many actions as go into one datagram: one or two for each.
fn batch(actions: &[Action]) -> Vec<Result<Vec<Request>, EncodeError>> {
    let mut batches = Vec::with_capacity(actions.len().min(IN_FLIGHT));
    let (mut bytes, mut count) = (0, 0);
    for action in actions.iter().take_while(|action| !stepwise(action)) {
        let requests = requests(action);
        let these = requests.as_deref().unwrap_or_default();
        bytes += these.iter().map(NetlinkSerializable::buffer_len).sum::<usize>();
        count += these.len().max(1);
        if (bytes > DATAGRAM_MAX || count > IN_FLIGHT) && !batches.is_empty() {
            break;
        }
        batches.push(requests);
    }
    batches
}

fn requests(action: &Action) -> Result<Vec<Request>, EncodeError> {
    let routes_only = matches!(action, Action::Append(_) | Action::Prepend(_));
    let object = action.object();
    if routes_only && object.route().is_none() {
        return Err(EncodeError::Impossible("only routes stand beside others of the same key"));
    }
    let first = match action {
        Action::Add(object) => Request::set(object, nl::NLM_F_CREATE | nl::NLM_F_EXCL),
        Action::Append(object) => Request::set(object, nl::NLM_F_CREATE | nl::NLM_F_APPEND),
        Action::Prepend(object) => Request::set(object, nl::NLM_F_CREATE),
        // Without NLM_F_EXCL the kernel would add a second one.
        Action::Replace(Object::Rule(_)) => {
            Err(EncodeError::Impossible("a rule that has changed is another rule; no request replaces one"))
        }
        Action::Replace(object) => Request::set(object, nl::NLM_F_REPLACE),
        Action::Remove(object) => return Request::delete(object).map(|request| vec![request]),
    }?;
    Ok(match object {
        Object::Address(address) if address.key.family() == Family::Inet6 => {
            vec![first, Request::get_address(&address.key)]
        }
        _ => vec![first],
    })
}

/// The answer to the requests of one action: the first failure, and what the kernel said in all.
fn merged(answers: impl Iterator<Item = Answer>) -> Answer {
    answers
        .reduce(|first, next| {
            let failed = !matches!(first.ack, Some((0, _)));
            Answer {
                echoes: first.echoes.into_iter().chain(next.echoes).collect(),
                ack: if failed { first.ack } else { next.ack },
            }
        })
        .unwrap_or_default()
}
