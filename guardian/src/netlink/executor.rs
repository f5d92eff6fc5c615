//! The only code that writes to the kernel.
//!
//! Many requests go out in one datagram; [`wire`](super::wire) carries them and brings the answers. Each
//! request is answered by an echo of the kernel's own notification (`NLM_F_ECHO`, `nlmsg_notify`), which
//! tells what the kernel now holds, and by an acknowledgement.

use std::io;

use rtnetlink::packet_core::NetlinkSerializable;

use super::{
    encode::{EncodeError, Request},
    message::nl,
    wire::{Answer, Wire},
};
use crate::{
    core::plan::{Action, Applied},
    model::{Family, Notice, Route},
};

/// Requests in flight. With the answers to each (under 2 KiB of kernel memory for most routes) they
/// fit the receive buffer many times over.
const IN_FLIGHT: usize = 128;
/// Bytes of requests in one datagram, below the default `net.core.wmem_default`.
const DATAGRAM_MAX: usize = 64 * 1024;
const RECEIVE_BUFFER: usize = 4 << 20;

/// Writes routes to the kernel, in the network namespace of the thread that opened it.
pub struct Executor {
    wire: Option<Wire>,
    port: u32,
}

impl Executor {
    /// Opens the socket.
    ///
    /// # Errors
    /// Those of `socket`, `bind` and `setsockopt`. Whether the process may write routes
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
    pub fn apply(&mut self, actions: &[Action]) -> Vec<Applied> {
        let mut results = Vec::with_capacity(actions.len());
        let mut rest = actions;
        while !rest.is_empty() {
            let (requests, taken) = batch(rest);
            let (now, later) = rest.split_at(taken);
            rest = later;
            let exchanged = self.exchange(requests.iter().flatten());
            let (mut answers, lost) = match exchanged {
                Ok(answers) => (answers.into_iter(), String::from("the kernel's answer was lost")),
                Err(error) => (Vec::new().into_iter(), format!("the netlink socket failed: {error}")),
            };
            for (action, request) in now.iter().zip(requests) {
                results.push(match request {
                    Err(error) => Applied::Refused { errno: error.errno(), message: Some(error.to_string()) },
                    Ok(_) => judge(action, answers.next().unwrap_or_default(), &lost),
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

/// As many requests as go into one datagram, and how many actions they stand for.
fn batch(actions: &[Action]) -> (Vec<Result<Request, EncodeError>>, usize) {
    let mut requests = Vec::with_capacity(actions.len().min(IN_FLIGHT));
    let mut bytes = 0;
    for action in actions.iter().take(IN_FLIGHT) {
        let request = match action {
            Action::Add(route) => Request::set(route, nl::NLM_F_CREATE | nl::NLM_F_EXCL),
            Action::Append(route) => Request::set(route, nl::NLM_F_CREATE | nl::NLM_F_APPEND),
            Action::Prepend(route) => Request::set(route, nl::NLM_F_CREATE),
            Action::Replace(route) => Request::set(route, nl::NLM_F_REPLACE),
            Action::Remove(route) => Request::delete(route),
        };
        bytes += request.as_ref().map_or(0, NetlinkSerializable::buffer_len);
        if bytes > DATAGRAM_MAX && !requests.is_empty() {
            break;
        }
        requests.push(request);
    }
    let taken = requests.len();
    (requests, taken)
}

/// What the answer means for the action.
fn judge(action: &Action, answer: Answer, lost: &str) -> Applied {
    let removal = matches!(action, Action::Remove(_));
    let replacement = matches!(action, Action::Replace(_));
    match answer.ack {
        None => Applied::Refused { errno: libc::ENOBUFS, message: Some(lost.to_owned()) },
        Some((0, _)) if removal => removed(action.route(), answer.echoes),
        Some((0, _)) => written(action, answer.echoes),
        Some((libc::EEXIST, _)) if !removal => Applied::Exists,
        Some((libc::ESRCH, _)) if removal => Applied::Gone,
        Some((libc::ENOENT, _)) if replacement => Applied::Gone,
        Some((errno, message)) => Applied::Refused { errno, message },
    }
}

/// Compares what the kernel says it holds with what was asked.
fn written(action: &Action, echoes: Vec<Notice>) -> Applied {
    let asked = action.route();
    let held = echoes.into_iter().rev().find_map(|echo| match echo {
        Notice::RouteSet { route, .. } => Some(route),
        _ => None,
    });
    let Some(held) = held else { return Applied::Differs(None) };
    // A leg appended to an IPv6 route comes back with all legs that the route now has.
    let joined = matches!(action, Action::Append(_))
        && asked.family() == Family::Inet6
        && asked.legs.iter().all(|leg| held.legs.contains(leg));
    if asked.same(&held) || (joined && asked.same(&Route { legs: asked.legs.clone(), ..held.clone() })) {
        Applied::Verified
    } else {
        Applied::Differs(Some(held))
    }
}

/// Compares what the kernel says it removed with what was asked: one echo, or one for each IPv6 leg.
fn removed(asked: &Route, echoes: Vec<Notice>) -> Applied {
    let mut gone: Option<Route> = None;
    for echo in echoes {
        let Notice::RouteGone { route } = echo else { continue };
        match &mut gone {
            None => gone = Some(route),
            Some(gone) => {
                gone.legs.extend(route.legs);
                gone.legs.sort();
            }
        }
    }
    match gone {
        Some(gone) if unweighted(asked).same(&unweighted(&gone)) => Applied::Verified,
        gone => Applied::Differs(gone),
    }
}

/// An IPv6 route as the echo of its removal shows it: leg by leg, each like a route of its own, where
/// `rtm_flags` stand for the leg's flags and a weight has no place.
fn unweighted(route: &Route) -> Route {
    let mut route = route.clone();
    if route.family() == Family::Inet6 {
        route.flags = 0;
        for leg in &mut route.legs {
            (leg.hops, leg.flags) = (0, 0);
        }
        route.legs.sort();
    }
    route
}
