//! Requests to the kernel and its answers, on a socket of their own.
//!
//! The kernel works through a datagram of rtnetlink requests before the `sendto` that carries it returns
//! (`netlink_unicast_kernel` in `net/netlink/af_netlink.c`), so every answer is waiting by then: a write costs
//! its system calls and no wake-up.

use std::{io, time::Duration};

use rtnetlink::packet_core::{NetlinkHeader, NetlinkSerializable};
use rtnetlink::sys::Socket;

use super::{
    decode::decode,
    encode::Request,
    message::{Frame, NLMSG_HDRLEN, attributes, frames, nl, u32_at},
    socket,
};
use crate::model::Notice;

/// For an answer that is not there when the request has been sent. It always is.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// Longer than the longest answer: no attribute exceeds 64 KiB.
const DATAGRAM: usize = 128 * 1024;
/// `NLMSGERR_ATTR_MSG`.
const NLMSGERR_ATTR_MSG: u16 = 1;

/// What came back for one request.
#[derive(Default)]
pub(super) struct Answer {
    /// The echoed notifications; several where an IPv6 multipath route is removed.
    pub echoes: Vec<Notice>,
    /// The acknowledgement: an error number (0 for success) and the kernel's words.
    pub ack: Option<(i32, Option<String>)>,
}

/// The socket and its buffers.
pub(super) struct Wire {
    socket: Socket,
    /// The sequence number of the last request.
    sequence: u32,
    out: Vec<u8>,
    buffer: Vec<u8>,
}

impl Wire {
    /// Opens a socket with a port id, 0 for one of the kernel's choice.
    pub fn open(port: u32, receive_buffer: usize) -> io::Result<Self> {
        let mut socket = socket::unbound()?;
        socket::prepare(&mut socket, port, receive_buffer)?;
        socket::set_receive_timeout(&socket, ANSWER_LIMIT)?;
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        Ok(Self { socket, sequence: 0, out: Vec::new(), buffer: Vec::with_capacity(DATAGRAM) })
    }

    /// The port id that others see.
    pub fn port(&self) -> io::Result<u32> {
        socket::port(&self.socket)
    }

    /// Sends the requests in one datagram. The answers, and whether the socket can be used again: one that has lost
    /// an answer may get it later.
    pub fn exchange<'a>(
        &mut self,
        requests: impl Iterator<Item = &'a Request>,
    ) -> io::Result<(Vec<Answer>, bool)> {
        let first = self.sequence.wrapping_add(1);
        self.out.clear();
        for request in requests {
            self.sequence = self.sequence.wrapping_add(1);
            push(&mut self.out, request, self.sequence);
        }
        let mut awaited = self.sequence.wrapping_add(1).wrapping_sub(first) as usize;
        let mut answers: Vec<Answer> = Vec::new();
        answers.resize_with(awaited, Answer::default);
        if awaited == 0 {
            return Ok((answers, true));
        }
        self.socket.send_to(&self.out, &socket::kernel(), 0)?;
        // An overrun is told first; what was queued before it is still there, and no more will come.
        let mut overrun = false;
        while awaited > 0 {
            self.buffer.clear();
            match self.socket.recv_from(&mut self.buffer, if overrun { libc::MSG_DONTWAIT } else { 0 }) {
                // Anybody with CAP_NET_ADMIN may write to this port; only the kernel is believed.
                Ok((_, from)) if from.port_number() != 0 => continue,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    overrun = true;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok((answers, false)),
                Err(error) => return Err(error),
            }
            for frame in frames(&self.buffer) {
                let Ok(frame) = frame else { return Ok((answers, false)) };
                if let Some(answer) = answers.get_mut(frame.header.seq.wrapping_sub(first) as usize) {
                    let was_open = answer.ack.is_none();
                    answer.take(&frame);
                    awaited -= usize::from(was_open && answer.ack.is_some());
                }
            }
        }
        Ok((answers, !overrun))
    }
}

/// Appends one message to a datagram.
pub(super) fn push(datagram: &mut Vec<u8>, request: &Request, sequence: u32) {
    let start = datagram.len();
    let len = NLMSG_HDRLEN + request.buffer_len();
    datagram.resize(start + len.next_multiple_of(4), 0);
    let mut header = NetlinkHeader::default();
    header.length = len as u32;
    header.message_type = request.message_type();
    header.flags = request.flags();
    header.sequence_number = sequence;
    let Some(message) = datagram.get_mut(start..start + len) else { return };
    let (head, body) = message.split_at_mut(NLMSG_HDRLEN);
    rtnetlink::packet_core::Emitable::emit(&header, head);
    request.serialize(body);
}

impl Answer {
    fn take(&mut self, frame: &Frame<'_>) {
        if frame.header.kind != nl::NLMSG_ERROR {
            match decode(frame) {
                Ok(Some(notice)) => self.echoes.push(notice),
                Ok(None) => {}
                Err(error) => log::warn!("the kernel's echo of a request cannot be read: {error}"),
            }
            return;
        }
        // `struct nlmsgerr`: the error, negative, and the header of the request.
        let errno = u32_at(frame.payload, 0).map_or(libc::EPROTO, |code| code.cast_signed().saturating_abs());
        let has_words = frame.header.flags & nl::NLM_F_ACK_TLVS != 0;
        self.ack = Some((errno, if has_words { words(frame.payload) } else { None }));
    }
}

/// `NLMSGERR_ATTR_MSG` behind the acknowledged header (`netlink_ack`, with `NETLINK_CAP_ACK`).
fn words(error: &[u8]) -> Option<String> {
    let behind = error.get(4 + NLMSG_HDRLEN..)?;
    attributes(behind).flatten().find_map(|(kind, value)| {
        let text = value.split(|&byte| byte == 0).next()?;
        (kind & nl::NLA_TYPE_MASK == NLMSGERR_ATTR_MSG).then(|| String::from_utf8_lossy(text).into_owned())
    })
}
