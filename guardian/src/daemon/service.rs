//! What the service manager is told (`sd_notify(3)`), where one asks for it.

use std::{
    env, io,
    sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    thread::{self, JoinHandle},
    time::Duration,
};

use sd_notify::NotifyState;

use super::{clock, guard::Guard};
use crate::model::Stamp;

/// Messages on their way; more are waiting only while the manager itself hangs.
const QUEUE: usize = 16;

/// What there is to tell.
enum Message {
    /// It guards, with a line for people.
    Ready(String),
    /// It takes over another configuration; followed by [`Message::Ready`].
    Reloading,
    /// It ends.
    Stopping,
    /// The guard loop turns.
    Alive,
}

/// The service manager, where there is one. To tell it may take until it listens, so that a thread of its own does it:
/// the guard waits for nobody.
pub(super) struct Service {
    teller: Option<(SyncSender<Message>, JoinHandle<()>)>,
    watchdog: Option<Watchdog>,
}

/// The manager ends who is not heard of for too long.
#[derive(Clone, Copy)]
struct Watchdog {
    every: Duration,
    next: Stamp,
}

impl Service {
    /// Looks into the environment whether somebody wants to be told (`NOTIFY_SOCKET`), and how often
    /// (`WATCHDOG_USEC`, in microseconds; told twice in that time).
    ///
    /// # Errors
    /// The kernel's, where it gives no thread.
    pub fn new() -> io::Result<Self> {
        if env::var_os("NOTIFY_SOCKET").is_none_or(|path| path.is_empty()) {
            return Ok(Self { teller: None, watchdog: None });
        }
        let (sender, messages) = sync_channel(QUEUE);
        let teller = thread::Builder::new().name("service".into()).spawn(move || tell(&messages))?;
        let every = sd_notify::watchdog_enabled().map(|limit| limit / 2).filter(|every| !every.is_zero());
        let watchdog = every.map(|every| Watchdog { every, next: clock::now() });
        Ok(Self { teller: Some((sender, teller)), watchdog })
    }

    /// When the manager is to hear of the guard again; `None` where it does not wait for that.
    pub fn deadline(&self) -> Option<Stamp> {
        self.watchdog.map(|watchdog| watchdog.next)
    }

    /// Tells that the guard loop turns, where that is due. Nobody but the loop may call it: it is the proof.
    pub fn turned(&mut self, now: Stamp) {
        if let Some(watchdog) = self.watchdog.as_mut().filter(|watchdog| watchdog.next <= now) {
            watchdog.next = now.after(watchdog.every);
            self.send(Message::Alive);
        }
    }

    /// Tells that the guard ends.
    pub fn stopping(&self) {
        self.send(Message::Stopping);
    }

    fn send(&self, message: Message) {
        let Some((sender, _)) = &self.teller else { return };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = sender.try_send(message) {
            log::warn!("the service manager does not listen");
        }
    }
}

impl Drop for Service {
    /// Waits until everything is told.
    fn drop(&mut self) {
        if let Some((sender, teller)) = self.teller.take() {
            drop(sender);
            // It has told of its own trouble.
            let _ = teller.join();
        }
    }
}

/// Tells until the guard has nothing more to tell.
fn tell(messages: &Receiver<Message>) {
    let mut failing = false;
    for message in messages {
        let told = match &message {
            Message::Ready(line) => sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(line)]),
            // Without the time systemd from 253 on takes it for an answer to an earlier signal.
            Message::Reloading => NotifyState::monotonic_usec_now()
                .and_then(|time| sd_notify::notify(&[NotifyState::Reloading, time])),
            Message::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
            Message::Alive => sd_notify::notify(&[NotifyState::Watchdog]),
        };
        if let Err(error) = &told
            && !failing
        {
            log::warn!("the service manager at $NOTIFY_SOCKET cannot be told anything: {error}");
        }
        failing = told.is_err();
    }
}

impl Guard {
    /// Tells that it guards; `trouble` is what people should know besides.
    pub(super) fn tell_ready(&self, trouble: Option<&str>) {
        let (profile, mode) = (&self.config.profile, self.config.mode);
        let mut line = format!("guarding: profile {profile}, mode {mode}");
        if self.without_tap.is_some() {
            line.push_str("; no actor can be named");
        }
        if let Some(trouble) = trouble {
            line.push_str("; ");
            line.push_str(trouble);
        }
        self.service.send(Message::Ready(line));
    }

    /// Tells that another configuration is taken over.
    pub(super) fn tell_reloading(&self) {
        self.service.send(Message::Reloading);
    }
}
