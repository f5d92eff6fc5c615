//! Where the guard thread sleeps.
//!
//! A change wakes it by the shortest way there is, one `epoll_wait(2)`: a runtime's way out of sleep and into it again
//! is code that a CPU which has been idle must fetch first, and whoever made the change waits for that CPU. What the
//! guard awaits besides is driven by a runtime on a thread of its own, and rings the bell here when it is ready.

use std::{
    io,
    os::fd::RawFd,
    sync::Arc,
    task::{Wake, Waker},
    time::Duration,
};

use mio::{Events, Interest, Poll, Token, unix::SourceFd};

const SOURCE: Token = Token(0);
const BELL: Token = Token(1);

/// What has ended a sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// The source, or nothing at all.
    Source,
    /// A source that has lost something (`EPOLLERR`: `ENOBUFS` of `netlink(7)`), and may not wake again before it is told
    /// that this has been heard.
    Loss,
    /// The bell, and perhaps the source too. It may have rung for nothing.
    Bell,
    /// The end of the time.
    Time,
}

/// Sleeps until a source has something to take, the bell rings, or it is time.
#[derive(Debug)]
pub struct Reactor {
    poll: Poll,
    events: Events,
    bell: Arc<Bell>,
}

#[derive(Debug)]
struct Bell(mio::Waker);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Err(error) = self.0.wake() {
            log::error!("cannot wake the guard thread: {error}");
        }
    }
}

impl Reactor {
    /// Fails where the kernel gives no descriptor.
    pub fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let bell = Arc::new(Bell(mio::Waker::new(poll.registry(), BELL)?));
        Ok(Self { poll, events: Events::with_capacity(4), bell })
    }

    /// Wakes for a source from now on, also for what it has already: whenever something comes to it that was empty
    /// (`EPOLLET` of `epoll(7)`), so that it is to be taken until nothing is left.
    pub fn watch(&self, descriptors: &[RawFd]) -> io::Result<()> {
        let registry = self.poll.registry();
        descriptors.iter().try_for_each(|fd| registry.register(&mut SourceFd(fd), SOURCE, Interest::READABLE))
    }

    /// No longer wakes for a source.
    pub fn forget(&self, descriptors: &[RawFd]) -> io::Result<()> {
        descriptors.iter().try_for_each(|fd| self.poll.registry().deregister(&mut SourceFd(fd)))
    }

    /// What futures are polled with, so that they ring the bell when they get ready.
    pub fn bell(&self) -> Waker {
        Waker::from(Arc::clone(&self.bell))
    }

    /// Sleeps, for `limit` at most, to the next millisecond.
    pub fn sleep(&mut self, limit: Option<Duration>) -> io::Result<Woken> {
        match self.poll.poll(&mut self.events, limit) {
            // A debugger, or a stop signal.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Woken::Source),
            result => result?,
        }
        let rung = self.events.iter().any(|event| event.token() == BELL);
        Ok(if self.events.iter().any(mio::event::Event::is_error) {
            Woken::Loss
        } else if rung {
            Woken::Bell
        } else if self.events.is_empty() {
            Woken::Time
        } else {
            Woken::Source
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, net::UdpSocket, os::fd::AsRawFd as _, os::unix::net::UnixStream, thread};

    use super::*;

    const LONG: Option<Duration> = Some(Duration::from_secs(60));

    #[test]
    fn a_bell_that_rang_before_is_heard_once() {
        let mut reactor = Reactor::new().unwrap();
        reactor.bell().wake();
        assert_eq!(reactor.sleep(LONG).unwrap(), Woken::Bell);
        assert_eq!(reactor.sleep(Some(Duration::from_millis(1))).unwrap(), Woken::Time);
    }

    #[test]
    fn a_bell_rings_from_another_thread() {
        let mut reactor = Reactor::new().unwrap();
        let bell = reactor.bell();
        let ringer = thread::spawn(move || bell.wake());
        assert_eq!(reactor.sleep(LONG).unwrap(), Woken::Bell);
        ringer.join().unwrap();
    }

    #[test]
    fn a_source_that_fails_is_told_from_one_that_has_something() {
        let mut reactor = Reactor::new().unwrap();
        let source = UdpSocket::bind("127.0.0.1:0").unwrap();
        let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        source.connect(nobody).unwrap();
        reactor.watch(&[source.as_raw_fd()]).unwrap();
        assert_eq!(reactor.sleep(Some(Duration::from_millis(1))).unwrap(), Woken::Time);
        source.send(b"1").unwrap();
        assert_eq!(reactor.sleep(LONG).unwrap(), Woken::Loss);
    }

    #[test]
    fn a_source_wakes_without_the_bell_for_what_it_has_and_for_what_comes() {
        let mut reactor = Reactor::new().unwrap();
        let (source, mut peer) = UnixStream::pair().unwrap();
        peer.write_all(b"1").unwrap();
        reactor.watch(&[source.as_raw_fd()]).unwrap();
        assert_eq!(reactor.sleep(LONG).unwrap(), Woken::Source);
        peer.write_all(b"2").unwrap();
        assert_eq!(reactor.sleep(LONG).unwrap(), Woken::Source);
        reactor.bell().wake();
        peer.write_all(b"3").unwrap();
        assert_eq!(reactor.sleep(LONG).unwrap(), Woken::Bell);
        reactor.forget(&[source.as_raw_fd()]).unwrap();
        peer.write_all(b"4").unwrap();
        reactor.bell().wake();
        assert_eq!(reactor.sleep(LONG).unwrap(), Woken::Bell);
    }
}
