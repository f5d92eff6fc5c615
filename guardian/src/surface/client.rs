//! The control socket: the side of the command line. It blocks.

use std::{
    io::{self, BufRead as _, BufReader, ErrorKind, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use super::protocol::{Reply, Request};

/// How long the daemon may take over its first reply.
const PATIENCE: Duration = Duration::from_secs(15);

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no guardian is running: nobody listens on {0}")]
    NotRunning(PathBuf),
    /// The socket is not for this user.
    #[error("permission denied on {0}: it is for root and the socket's group")]
    Denied(PathBuf),
    /// It broke off.
    #[error("the daemon on {path} did not answer: {error}")]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
    /// The daemon says no.
    #[error("{0}")]
    Refused(String),
}

/// The replies to one request, as they come.
#[derive(Debug)]
pub struct Replies {
    path: PathBuf,
    lines: BufReader<UnixStream>,
}

/// Asks the daemon that listens on `path`.
pub fn ask(path: &Path, request: &Request) -> Result<Replies, ClientError> {
    let broken = |error: io::Error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => ClientError::NotRunning(path.to_owned()),
        ErrorKind::PermissionDenied => ClientError::Denied(path.to_owned()),
        _ => ClientError::Broken { path: path.to_owned(), error },
    };
    let mut stream = UnixStream::connect(path).map_err(broken)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(broken)?;
    let mut line = serde_json::to_vec(request).map_err(|error| broken(error.into()))?;
    line.push(b'\n');
    stream.write_all(&line).map_err(broken)?;
    Ok(Replies { path: path.to_owned(), lines: BufReader::new(stream) })
}

impl Replies {
    /// The next reply; `None` when the daemon has said everything.
    pub fn next_reply(&mut self) -> Result<Option<Reply>, ClientError> {
        let broken = |error| ClientError::Broken { path: self.path.clone(), error };
        let mut line = String::new();
        match self.lines.read_line(&mut line) {
            Ok(0) => Ok(None),
            Ok(_) => match serde_json::from_str(&line) {
                Ok(Reply::Error(why)) => Err(ClientError::Refused(why)),
                Ok(reply) => Ok(Some(reply)),
                Err(error) => Err(broken(error.into())),
            },
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                Err(broken(io::Error::new(ErrorKind::TimedOut, "it is silent")))
            }
            Err(error) => Err(broken(error)),
        }
    }

    /// The only reply.
    pub fn one(mut self) -> Result<Reply, ClientError> {
        self.next_reply()?.ok_or_else(|| ClientError::Broken {
            path: self.path.clone(),
            error: io::Error::new(ErrorKind::UnexpectedEof, "it hung up"),
        })
    }

    /// Waits for ever from here on: for those who follow.
    pub fn wait_for_ever(&self) -> Result<(), ClientError> {
        self.lines
            .get_ref()
            .set_read_timeout(None)
            .map_err(|error| ClientError::Broken { path: self.path.clone(), error })
    }
}
