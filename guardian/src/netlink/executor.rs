//! The only code that writes to the kernel.
//!
//! Requests go out by netlink-proto's [`Connection`], many in one datagram. The kernel works through a
//! datagram of rtnetlink requests before the `sendto` that carries it returns (`netlink_unicast_kernel`),
//! so every answer is waiting by then: the connection is polled here instead of in a task of its own,
//! and reads before it asks the reactor. A write costs its system calls and no wake-up.
//!
//! Each request is answered by an echo of the kernel's own notification (`NLM_F_ECHO`, `nlmsg_notify`),
//! which tells what the kernel now holds, and by an acknowledgement.

use std::{
    convert::Infallible,
    io,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, StreamExt, channel::mpsc::UnboundedReceiver};
use rtnetlink::packet_core::{
    ErrorMessage, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use rtnetlink::proto::{Connection, ConnectionHandle, NetlinkCodec, from_socket_with_codec};
use rtnetlink::sys::{AsyncSocket, Socket, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};

use super::{
    decode::decode,
    encode::{EncodeError, Request},
    message::{DecodeError, Frame, Header, NLMSG_HDRLEN, attributes, nl},
    socket,
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
/// For an answer that is not there when the request has been sent. It always is.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// `NLMSGERR_ATTR_MSG`.
const NLMSGERR_ATTR_MSG: u16 = 1;

/// Writes routes to the kernel, in the network namespace of the thread that opened it.
pub struct Executor {
    wire: Option<Wire>,
    port: u32,
}

/// What came back for one request.
#[derive(Default)]
struct Answer {
    /// The echoed notifications; several where an IPv6 multipath route is removed.
    echoes: Vec<Notice>,
    /// The acknowledgement: an error number (0 for success) and the kernel's words.
    ack: Option<(i32, Option<String>)>,
}

impl Executor {
    /// Opens the socket. Must be called within a tokio runtime with I/O and time enabled.
    ///
    /// # Errors
    /// Those of `socket`, `bind` and `setsockopt`. Whether the process may write routes
    /// (`CAP_NET_ADMIN`) shows only when it does.
    pub fn open() -> io::Result<Self> {
        Self::with_receive_buffer(RECEIVE_BUFFER)
    }

    pub(super) fn with_receive_buffer(bytes: usize) -> io::Result<Self> {
        let mut wire = Wire::open(0, bytes)?;
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
    /// Yields to the runtime after each 128 requests; may be dropped there, with the rest undone.
    pub async fn apply(&mut self, actions: &[Action]) -> Vec<Applied> {
        let mut results = Vec::with_capacity(actions.len());
        let mut rest = actions;
        while !rest.is_empty() {
            if !results.is_empty() {
                tokio::task::yield_now().await;
            }
            let (requests, taken) = batch(rest);
            let (now, later) = rest.split_at(taken);
            rest = later;

            let wanted = requests.iter().filter(|request| request.is_ok()).count();
            let (sendable, encoded) = requests.into_iter().fold(
                (Vec::with_capacity(wanted), Vec::with_capacity(taken)),
                |(mut sendable, mut encoded), request| {
                    encoded.push(request.map(|request| sendable.push(request.into_message())));
                    (sendable, encoded)
                },
            );
            let exchanged = if sendable.is_empty() { Ok(Vec::new()) } else { self.exchange(sendable).await };
            let (mut answers, lost) = match exchanged {
                Ok(answers) => (answers.into_iter(), String::from("the kernel's answer was lost")),
                Err(error) => (Vec::new().into_iter(), format!("the netlink socket failed: {error}")),
            };
            for (action, encoded) in now.iter().zip(encoded) {
                results.push(match encoded {
                    Err(error) => Applied::Refused { errno: error.errno(), message: Some(error.to_string()) },
                    Ok(()) => judge(action, answers.next().unwrap_or_default(), &lost),
                });
            }
        }
        results
    }

    /// Sends the requests as one datagram and returns an answer for each, empty where it was lost.
    async fn exchange(&mut self, requests: Vec<NetlinkMessage<Message>>) -> io::Result<Vec<Answer>> {
        let mut wire = match self.wire.take() {
            Some(wire) => wire,
            // After a failure. The same port id, for those who know it.
            None => Wire::open(self.port, RECEIVE_BUFFER)?,
        };
        let (answers, intact) = wire.exchange(requests).await?;
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

/// The connection and what hangs on it.
struct Wire {
    connection: Connection<Message, Eager>,
    handle: ConnectionHandle<Message>,
    unsolicited: UnboundedReceiver<(NetlinkMessage<Message>, SocketAddr)>,
    /// The sequence number of the last request; netlink-proto counts the same way.
    sequence: u32,
}

impl Wire {
    fn open(port: u32, receive_buffer: usize) -> io::Result<Self> {
        let mut eager = Eager::new(NETLINK_ROUTE)?;
        socket::prepare(eager.socket_mut(), port, receive_buffer)?;
        eager.socket_ref().set_ext_ack(true)?;
        eager.socket_ref().set_cap_ack(true)?;
        let (mut connection, handle, unsolicited) = from_socket_with_codec::<_, _, NetlinkCodec>(eager);
        connection.set_forward_ack(true);
        Ok(Self { connection, handle, unsolicited, sequence: 0 })
    }

    fn port(&mut self) -> io::Result<u32> {
        socket::port(self.connection.socket_mut().socket_ref())
    }

    /// The answers, and whether the connection can be used again: one that has lost an answer keeps
    /// waiting for it.
    async fn exchange(&mut self, requests: Vec<NetlinkMessage<Message>>) -> io::Result<(Vec<Answer>, bool)> {
        let mut answers: Vec<Answer> = Vec::new();
        answers.resize_with(requests.len(), Answer::default);
        let first = self.sequence.wrapping_add(1);
        self.sequence = self.sequence.wrapping_add(requests.len() as u32);

        let replies = self.handle.request_batch(requests, socket::kernel()).map_err(io::Error::other)?;
        let mut replies = pin!(replies);
        let mut attempt = std::future::poll_fn(|cx| {
            // The first round sends, the second reads.
            for _ in 0..2 {
                if Pin::new(&mut self.connection).poll(cx).is_ready() {
                    return Poll::Ready(Err(io::Error::other("the connection closed")));
                }
                while let Poll::Ready(reply) = replies.as_mut().poll_next(cx) {
                    let Some(reply) = reply else { return Poll::Ready(Ok(true)) };
                    let index = reply.header.sequence_number.wrapping_sub(first) as usize;
                    if let Some(answer) = answers.get_mut(index) {
                        answer.take(reply);
                    }
                }
                while let Poll::Ready(Some((message, _))) = self.unsolicited.poll_next_unpin(cx) {
                    if matches!(message.payload, NetlinkPayload::Overrun(_)) {
                        return Poll::Ready(Ok(false));
                    }
                }
            }
            Poll::Pending
        });
        let at_once = futures::future::poll_immediate(&mut attempt).await;
        let intact = match at_once {
            Some(result) => result?,
            None => tokio::time::timeout(ANSWER_LIMIT, attempt).await.unwrap_or(Ok(false))?,
        };
        Ok((answers, intact))
    }
}

impl Answer {
    fn take(&mut self, reply: NetlinkMessage<Message>) {
        let has_words = reply.header.flags & nl::NLM_F_ACK_TLVS != 0;
        match reply.payload {
            NetlinkPayload::InnerMessage(Message::Echo(Ok(Some(notice)))) => self.echoes.push(notice),
            NetlinkPayload::InnerMessage(Message::Echo(Err(error))) => {
                log::warn!("the kernel's echo of a route cannot be read: {error}");
            }
            NetlinkPayload::Error(error) => {
                self.ack =
                    Some((error.raw_code().saturating_abs(), if has_words { words(&error) } else { None }));
            }
            _ => {}
        }
    }
}

/// `NLMSGERR_ATTR_MSG` behind the acknowledged header (`netlink_ack`, with `NETLINK_CAP_ACK`).
fn words(error: &ErrorMessage) -> Option<String> {
    let behind = error.header.get(NLMSG_HDRLEN..)?;
    attributes(behind).flatten().find_map(|(kind, value)| {
        let text = value.split(|&byte| byte == 0).next()?;
        (kind & nl::NLA_TYPE_MASK == NLMSGERR_ATTR_MSG).then(|| String::from_utf8_lossy(text).into_owned())
    })
}

/// What goes over the connection: requests out, echoes in. Both in the kernel's own bytes, where
/// `RouteNetlinkMessage` would drop what it cannot parse.
#[derive(Debug)]
enum Message {
    Request(Request),
    Echo(Result<Option<Notice>, DecodeError>),
}

impl From<Request> for Message {
    fn from(request: Request) -> Self {
        Self::Request(request)
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        match self {
            Self::Request(request) => request.message_type(),
            Self::Echo(_) => 0,
        }
    }

    fn buffer_len(&self) -> usize {
        match self {
            Self::Request(request) => request.buffer_len(),
            Self::Echo(_) => 0,
        }
    }

    fn serialize(&self, buffer: &mut [u8]) {
        if let Self::Request(request) = self {
            request.serialize(buffer);
        }
    }
}

impl NetlinkDeserializable for Message {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        let header = Header {
            kind: header.message_type,
            flags: header.flags,
            port: header.port_number,
            seq: header.sequence_number,
        };
        Ok(Self::Echo(decode(&Frame { header, payload })))
    }
}

/// A [`TokioSocket`] that tries before it asks the reactor.
struct Eager(TokioSocket);

impl AsyncSocket for Eager {
    fn socket_ref(&self) -> &Socket {
        self.0.socket_ref()
    }

    fn socket_mut(&mut self) -> &mut Socket {
        self.0.socket_mut()
    }

    fn new(protocol: isize) -> io::Result<Self> {
        TokioSocket::new(protocol).map(Self)
    }

    fn poll_send(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_send(cx, buf)
    }

    fn poll_send_to(&self, cx: &mut Context<'_>, buf: &[u8], addr: &SocketAddr) -> Poll<io::Result<usize>> {
        match self.0.socket_ref().send_to(buf, addr, 0) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.0.poll_send_to(cx, buf, addr),
            result => Poll::Ready(result),
        }
    }

    fn poll_recv<B: bytes::BufMut>(&self, cx: &mut Context<'_>, buf: &mut B) -> Poll<io::Result<()>> {
        self.0.poll_recv(cx, buf)
    }

    fn poll_recv_from<B: bytes::BufMut>(
        &self,
        cx: &mut Context<'_>,
        buf: &mut B,
    ) -> Poll<io::Result<SocketAddr>> {
        match self.0.socket_ref().recv_from(buf, 0) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.0.poll_recv_from(cx, buf),
            result => Poll::Ready(result.map(|(_, addr)| addr)),
        }
    }

    fn poll_recv_from_full(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Vec<u8>, SocketAddr)>> {
        self.0.poll_recv_from_full(cx)
    }
}
