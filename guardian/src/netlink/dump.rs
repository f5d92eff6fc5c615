//! What the kernel holds now: links, addresses, nexthop objects, routes and rules.
//!
//! Blocking, on a socket of its own, with `NETLINK_GET_STRICT_CHK`: the kernel filters by table and
//! leaves cached routes out.

use std::{io, time::Duration};

use rtnetlink::sys::Socket;

use super::{
    decode::decode,
    encode::Request,
    message::{DecodeError, Frame, frames, nl, u32_at},
    socket,
    wire::push,
};
use crate::model::{Family, Links, Notice, Object, Route};

/// The kernel fills dump datagrams up to 32 KiB (`netlink_recvmsg`); a single message may be longer
/// only where an attribute of 64 KiB makes it so.
const DATAGRAM: usize = 128 * 1024;
const RECEIVE_BUFFER: usize = 1 << 20;
/// How often an interrupted dump is tried again before it is taken as it is.
const RETRIES: u32 = 8;
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// The size of `struct ifaddrmsg` and of `struct nhmsg`.
const HEADER: usize = 8;
/// The size of `struct rtmsg` and of `struct fib_rule_hdr`.
const RTMSG_LEN: usize = 12;

/// Why there is no dump.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The socket failed, or the kernel did not answer within five seconds.
    #[error("cannot read the kernel's {what}: {source}")]
    Io {
        /// Which objects.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The kernel sent something that is no message.
    #[error("cannot understand the kernel's {what}: {source}")]
    Decode {
        /// Which objects.
        what: &'static str,
        /// The cause.
        source: DecodeError,
    },
}

/// The objects of a network namespace.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// All of them in the order in which they need each other: links (with what they are ports of), addresses,
    /// nexthop objects, routes and rules, of both families and all tables.
    pub objects: Vec<Object>,
    /// How often the kernel said that things had changed while it was reading them out
    /// (`NLM_F_DUMP_INTR`), or the receive buffer overran.
    pub interrupted: u32,
    /// Whether every part came through uninterrupted in the end.
    pub complete: bool,
}

impl State {
    /// The links among the objects.
    pub fn links(&self) -> Links {
        let link = |object: &Object| match object {
            Object::Link(link) => Some(link.clone()),
            _ => None,
        };
        self.objects.iter().filter_map(link).collect()
    }
}

/// The routes of a network namespace.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    /// The routes of both families.
    pub routes: Vec<Route>,
    /// As in [`State`].
    pub interrupted: u32,
    /// As in [`State`].
    pub complete: bool,
}

/// Reads everything. An interrupted part is read again, up to eight times.
///
/// The parts are read one after the other: what changes between them is for the listener to tell.
pub fn dump() -> Result<State, DumpError> {
    let mut dumper = Dumper::open()?;
    let mut objects = Vec::new();
    dumper.objects("links", &Request::dump_links(), &mut objects)?;
    dumper.objects("addresses", &Request::dump(nl::RTM_GETADDR, vec![0; HEADER]), &mut objects)?;
    match dumper.objects("nexthop objects", &Request::dump(nl::RTM_GETNEXTHOP, vec![0; HEADER]), &mut objects)
    {
        // Kernels before 5.3 have none.
        Err(DumpError::Io { source, .. }) if source.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
        result => result?,
    }
    objects.extend(dumper.routes(None)?.into_iter().map(Object::Route));
    dumper.objects("rules", &Request::dump(nl::RTM_GETRULE, vec![0; RTMSG_LEN]), &mut objects)?;
    Ok(State { objects, interrupted: dumper.interrupted, complete: dumper.complete })
}

/// Reads the routes of one table, or of all. A table that does not exist has none.
pub fn dump_routes(table: Option<u32>) -> Result<Routes, DumpError> {
    let mut dumper = Dumper::open()?;
    let routes = dumper.routes(table)?;
    Ok(Routes { routes, interrupted: dumper.interrupted, complete: dumper.complete })
}

struct Dumper {
    socket: Socket,
    buffer: Vec<u8>,
    sequence: u32,
    interrupted: u32,
    complete: bool,
}

/// How one pass through a dump ended.
enum Pass {
    Whole,
    Interrupted,
}

impl Dumper {
    fn open() -> Result<Self, DumpError> {
        let open = || {
            let socket = socket::open(RECEIVE_BUFFER)?;
            socket::set_receive_timeout(&socket, ANSWER_LIMIT)?;
            // Kernels before 4.20 do not have it; what they send too much is left out here.
            let _ = socket.set_netlink_get_strict_chk(true);
            Ok(socket)
        };
        Ok(Self {
            socket: open().map_err(|source| DumpError::Io { what: "state", source })?,
            buffer: Vec::with_capacity(DATAGRAM),
            sequence: 0,
            interrupted: 0,
            complete: true,
        })
    }

    fn routes(&mut self, table: Option<u32>) -> Result<Vec<Route>, DumpError> {
        let mut routes = Vec::new();
        for family in Family::ALL {
            let pick = |notice| match notice {
                Notice::Set { object: Object::Route(route), .. }
                    if route.family() == family && table.is_none_or(|table| route.key.table == table) =>
                {
                    Some(route)
                }
                _ => None,
            };
            let mut found = Vec::new();
            match self.read("routes", &route_request(family, table), pick, &mut found) {
                // fib_get_table found none.
                Err(DumpError::Io { source, .. })
                    if table.is_some() && source.raw_os_error() == Some(libc::ENOENT) => {}
                result => result?,
            }
            routes.append(&mut found);
        }
        Ok(routes)
    }

    /// Reads all objects of a kind.
    fn objects(
        &mut self,
        what: &'static str,
        request: &Request,
        objects: &mut Vec<Object>,
    ) -> Result<(), DumpError> {
        let pick = |notice| match notice {
            Notice::Set { object, .. } => Some(object),
            Notice::Gone { .. } => None,
        };
        let mut found = Vec::new();
        self.read(what, request, pick, &mut found)?;
        objects.append(&mut found);
        Ok(())
    }

    /// Reads one kind of object whole, trying again while it is interrupted.
    fn read<T>(
        &mut self,
        what: &'static str,
        request: &Request,
        pick: impl Fn(Notice) -> Option<T>,
        found: &mut Vec<T>,
    ) -> Result<(), DumpError> {
        for _ in 0..=RETRIES {
            found.clear();
            let each = |frame: &Frame<'_>| -> Result<(), DumpError> {
                let notice = decode(frame).unwrap_or_else(|error| {
                    // One odd object must not hide all others.
                    log::warn!("one of the kernel's {what} cannot be read and is left out: {error}");
                    None
                });
                found.extend(notice.and_then(&pick));
                Ok(())
            };
            match self.pass(what, request, each)? {
                Pass::Whole => return Ok(()),
                Pass::Interrupted => self.interrupted += 1,
            }
        }
        self.complete = false;
        Ok(())
    }

    fn pass(
        &mut self,
        what: &'static str,
        request: &Request,
        mut each: impl FnMut(&Frame<'_>) -> Result<(), DumpError>,
    ) -> Result<Pass, DumpError> {
        let io = |source| DumpError::Io { what, source };
        self.sequence += 1;
        let mut bytes = Vec::new();
        push(&mut bytes, request, self.sequence);
        self.socket.send_to(&bytes, &socket::kernel(), 0).map_err(io)?;

        let mut interrupted = false;
        loop {
            self.buffer.clear();
            let len = match self.socket.recv(&mut self.buffer, libc::MSG_TRUNC) {
                Ok(len) => len,
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => continue,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    interrupted = true;
                    continue;
                }
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {
                    return Err(io(io::ErrorKind::TimedOut.into()));
                }
                Err(error) => return Err(io(error)),
            };
            if len > self.buffer.len() {
                return Err(io(io::Error::from_raw_os_error(libc::EMSGSIZE)));
            }
            for frame in frames(&self.buffer) {
                let frame = frame.map_err(|source| DumpError::Decode { what, source })?;
                if frame.header.seq != self.sequence {
                    continue;
                }
                interrupted |= frame.header.flags & nl::NLM_F_DUMP_INTR != 0;
                match frame.header.kind {
                    nl::NLMSG_DONE | nl::NLMSG_ERROR => {
                        let code = u32_at(frame.payload, 0).unwrap_or(0).cast_signed();
                        if code < 0 {
                            return Err(io(io::Error::from_raw_os_error(code.saturating_neg())));
                        }
                        return Ok(if interrupted { Pass::Interrupted } else { Pass::Whole });
                    }
                    _ => each(&frame)?,
                }
            }
        }
    }
}

/// `table` is `None` for all.
fn route_request(family: Family, table: Option<u32>) -> Request {
    let mut fixed = vec![0; RTMSG_LEN];
    if let Some(first) = fixed.first_mut() {
        *first = family.number();
    }
    Request::dump_routes(fixed, table)
}
