//! The outer shape of rtnetlink: frames in a datagram, attributes in a frame.

use rtnetlink::packet_core::NetlinkBuffer;

/// The size of `struct nlmsghdr`.
pub(super) const NLMSG_HDRLEN: usize = 16;

/// The numbers of `include/uapi/linux/netlink.h` and `rtnetlink.h` that stand in message headers.
#[allow(missing_docs, reason = "the kernel's names say it")]
pub mod nl {
    pub const NLMSG_ERROR: u16 = 2;
    pub const NLMSG_DONE: u16 = 3;

    pub const RTM_NEWLINK: u16 = 16;
    pub const RTM_DELLINK: u16 = 17;
    pub const RTM_GETLINK: u16 = 18;
    pub const RTM_NEWADDR: u16 = 20;
    pub const RTM_DELADDR: u16 = 21;
    pub const RTM_GETADDR: u16 = 22;
    pub const RTM_NEWROUTE: u16 = 24;
    pub const RTM_DELROUTE: u16 = 25;
    pub const RTM_GETROUTE: u16 = 26;
    pub const RTM_NEWRULE: u16 = 32;
    pub const RTM_DELRULE: u16 = 33;
    pub const RTM_GETRULE: u16 = 34;
    pub const RTM_NEWNEXTHOP: u16 = 104;
    pub const RTM_DELNEXTHOP: u16 = 105;
    pub const RTM_GETNEXTHOP: u16 = 106;
    pub const RTM_NEWLINKPROP: u16 = 108;

    pub const NLM_F_REQUEST: u16 = 0x1;
    pub const NLM_F_ACK: u16 = 0x4;
    pub const NLM_F_ECHO: u16 = 0x8;
    pub const NLM_F_DUMP_INTR: u16 = 0x10;
    /// `NLM_F_ROOT | NLM_F_MATCH` of a request to read.
    pub const NLM_F_DUMP: u16 = 0x300;
    /// `NLM_F_REPLACE` of a request to add, also in the notification of a replace.
    pub const NLM_F_REPLACE: u16 = 0x100;
    pub const NLM_F_EXCL: u16 = 0x200;
    pub const NLM_F_CREATE: u16 = 0x400;
    pub const NLM_F_APPEND: u16 = 0x800;
    /// `NLM_F_ACK_TLVS` of an answer: attributes follow the acknowledged header.
    pub const NLM_F_ACK_TLVS: u16 = 0x200;

    pub const NLA_F_NESTED: u16 = 0x8000;
    /// `NLA_TYPE_MASK`: the type without `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
    pub const NLA_TYPE_MASK: u16 = 0x3fff;
}

/// Why bytes are not the message they claim to be. The kernel does not send such messages; a cut or
/// forged one does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The datagram ends within a message, or a length field says so.
    #[error("a netlink message is cut short: {0}")]
    Frame(String),
    /// The fixed part of a message is not all there.
    #[error("message type {kind} has {have} bytes, fewer than the {need} of its header")]
    Header {
        /// `nlmsg_type`.
        kind: u16,
        /// Bytes there.
        have: usize,
        /// Bytes wanted.
        need: usize,
    },
    /// An attribute reaches beyond the message or is shorter than its own header.
    #[error("an attribute claims {claimed} bytes where {left} are left")]
    Attribute {
        /// Its length field.
        claimed: usize,
        /// Bytes left for it.
        left: usize,
    },
    /// An attribute has a value of a size that its type does not have.
    #[error("attribute {number} of message type {kind} has a value of {len} bytes")]
    Value {
        /// `nlmsg_type`.
        kind: u16,
        /// The attribute's type.
        number: u16,
        /// Bytes in its value.
        len: usize,
    },
    /// An attribute that such a message always has is not there.
    #[error("message type {kind} lacks attribute {number}")]
    Missing {
        /// `nlmsg_type`.
        kind: u16,
        /// The attribute's type.
        number: u16,
    },
    /// A prefix length is more than its family has bits.
    #[error("a prefix length of {0} bits is more than the address has")]
    PrefixLength(u8),
}

/// The facts of a `struct nlmsghdr`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// `nlmsg_type`, one of `RTM_*` or `NLMSG_*`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_pid`: the port id of the socket whose request caused it; 0 where no netlink request did.
    pub port: u32,
    /// `nlmsg_seq` of that request.
    pub seq: u32,
}

/// One message: its header and what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The header.
    pub header: Header,
    /// The bytes after it.
    pub payload: &'a [u8],
}

/// The messages of a datagram, in order. Ends after the first that is malformed: nobody can tell where
/// the next begins.
pub const fn frames(datagram: &[u8]) -> Frames<'_> {
    Frames { rest: datagram }
}

/// Iterator of [`frames`].
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut self.rest);
        let buffer = match NetlinkBuffer::new_checked(bytes) {
            Ok(buffer) => buffer,
            Err(error) => return Some(Err(DecodeError::Frame(error.to_string()))),
        };
        let len = (buffer.length() as usize).max(NLMSG_HDRLEN);
        self.rest = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        let header = Header {
            kind: buffer.message_type(),
            flags: buffer.flags(),
            port: buffer.port_number(),
            seq: buffer.sequence_number(),
        };
        Some(Ok(Frame { header, payload: buffer.payload() }))
    }
}

/// The attributes of a message or a nest (`struct nlattr`), in order: the type with its flag bits, and
/// the value without padding. Ends after the first that is malformed.
pub(super) const fn attributes(bytes: &[u8]) -> Attributes<'_> {
    Attributes { rest: bytes }
}

/// Iterator of [`attributes`].
pub(super) struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<(u16, &'a [u8]), DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut self.rest);
        let claimed = u16_at(bytes, 0).map_or(0, usize::from);
        let Some((kind, value)) = u16_at(bytes, 2).zip(bytes.get(4..claimed)) else {
            return Some(Err(DecodeError::Attribute { claimed, left: bytes.len() }));
        };
        self.rest = bytes.get(claimed.next_multiple_of(4)..).unwrap_or_default();
        Some(Ok((kind, value)))
    }
}

/// The native-endian 16-bit number at an offset.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_ne_bytes)
}

/// The native-endian 32-bit number at an offset.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_frames_and_a_cut_one() {
        let mut datagram = Vec::new();
        for (kind, body) in [(24u16, &b"abc"[..]), (25, &b"defg"[..])] {
            datagram.extend((16 + body.len() as u32).to_ne_bytes());
            datagram.extend(kind.to_ne_bytes());
            datagram.extend(0x100u16.to_ne_bytes());
            datagram.extend(7u32.to_ne_bytes());
            datagram.extend(4321u32.to_ne_bytes());
            datagram.extend(body);
            datagram.resize(datagram.len().next_multiple_of(4), 0);
        }
        let good: Vec<_> = frames(&datagram).map(Result::unwrap).collect();
        assert_eq!(good.len(), 2);
        assert_eq!(good[0].payload, b"abc");
        assert_eq!(good[1].header, Header { kind: 25, flags: 0x100, port: 4321, seq: 7 });
        assert_eq!(good[1].payload, b"defg");

        let cut: Vec<_> = frames(&datagram[..datagram.len() - 1]).collect();
        assert!(cut[0].is_ok() && matches!(cut[1], Err(DecodeError::Frame(_))) && cut.len() == 2);
    }

    #[test]
    fn an_attribute_that_lies_about_its_length_ends_the_walk() {
        let bytes = [6, 0, 1, 0, 9, 9, 0, 0, 3, 0, 2, 0, 8, 0, 3, 0];
        let walked: Vec<_> = attributes(&bytes).collect();
        assert_eq!(walked[0], Ok((1, &[9u8, 9][..])));
        assert_eq!(walked[1], Err(DecodeError::Attribute { claimed: 3, left: 8 }));
        assert_eq!(walked.len(), 2);
    }
}
