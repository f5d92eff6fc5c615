//! What the edges ask the guard thread, over one bounded channel.

use std::time::Duration;

use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::report::{DiffReport, RestoreReport, Snapshot, StatusReport};

/// How many questions may wait for the guard thread.
pub const CAPACITY: usize = 64;

/// A question to the guard thread. It answers between events; who asked may have given up meanwhile, so a
/// reply that cannot be sent is not an error.
#[derive(Debug)]
pub enum Ask {
    /// Proof that the loop turns.
    Heartbeat(oneshot::Sender<()>),
    /// How it is.
    Status(oneshot::Sender<StatusReport>),
    /// The desired state, or the observed one.
    Snapshot {
        /// What the guardian believes that the kernel holds in scope, instead of what is desired.
        observed: bool,
        /// The reply.
        reply: oneshot::Sender<Snapshot>,
    },
    /// Desired state against the kernel, which is read for it.
    Diff {
        /// Compare this instead of the desired state.
        desired: Option<Snapshot>,
        /// The reply, or why the kernel could not be read.
        reply: oneshot::Sender<Result<DiffReport, String>>,
    },
    /// Put back now what is missing; what is held is released first.
    Restore {
        /// Only say what would be written.
        dry_run: bool,
        /// The reply, or why it is refused.
        reply: oneshot::Sender<Result<RestoreReport, String>>,
    },
    /// Let go of what damping holds.
    Release {
        /// Only objects that go by this ([`is_called`](super::report::is_called)); all without it.
        key: Option<String>,
        /// How many were released.
        reply: oneshot::Sender<usize>,
    },
    /// Read the configuration again and keep the last good one.
    Reload(oneshot::Sender<Result<(), String>>),
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// Too many questions wait already.
    #[error("the guard loop has too many questions waiting; try again")]
    Busy,
    /// No answer in time.
    #[error("the guard loop did not answer within {0:?}: it is stuck")]
    Stuck(Duration),
    /// It has ended.
    #[error("the guard loop has ended")]
    Ended,
}

/// The asking end.
#[derive(Clone, Debug)]
pub struct Asker(mpsc::Sender<Ask>);

impl Asker {
    /// A bounded channel of questions: the asking end, and the end for the guard thread.
    pub fn channel() -> (Self, mpsc::Receiver<Ask>) {
        let (sender, receiver) = mpsc::channel(CAPACITY);
        (Self(sender), receiver)
    }

    /// Asks, and waits at most `patience` for the answer.
    pub async fn ask<T>(
        &self,
        patience: Duration,
        question: impl FnOnce(oneshot::Sender<T>) -> Ask,
    ) -> Result<T, AskError> {
        let (reply, answer) = oneshot::channel();
        self.0.try_send(question(reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => AskError::Busy,
            mpsc::error::TrySendError::Closed(_) => AskError::Ended,
        })?;
        match timeout(patience, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(AskError::Ended),
            Err(_) => Err(AskError::Stuck(patience)),
        }
    }
}
