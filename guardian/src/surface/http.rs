//! HTTP: `/metrics`, `/healthz`, `/readyz`, and a page for people. It only reads.

use std::{
    io,
    net::{SocketAddr, TcpListener as BlockingListener},
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    extract::{Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::get,
    serve::Listener,
};
use prometheus::TEXT_FORMAT;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::spawn_blocking,
    time::{Sleep, sleep, timeout},
};

use super::{
    ask::{Ask, Asker},
    listener,
    metrics::Metrics,
    openmetrics, page,
};

/// How long a loop may take to show that it turns.
const PATIENCE: Duration = Duration::from_secs(1);

/// The most connections at a time; others wait in the listen queue.
const CONNECTIONS_MAX: usize = 64;

/// How long a connection may be silent: longer than scrapers wait between two scrapes.
const IDLE_MAX: Duration = Duration::from_secs(150);

/// Why the port cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Somebody has it.
    #[error(
        "{addr} is in use{by}; set [http] listen or --listen to another address, or \"\" to switch it off"
    )]
    InUse {
        /// The address.
        addr: SocketAddr,
        /// ` by comm[pid]` where that is known, else empty.
        by: String,
    },
    /// The kernel refused.
    #[error("cannot listen on {addr}: {error}; set [http] listen or --listen to an address of this machine")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the kernel said.
        error: io::Error,
    },
}

/// A loop of the daemon that can be asked to show that it turns.
#[derive(Clone, Debug)]
pub struct Pulse {
    /// The name of the loop, such as `journal`.
    pub name: &'static str,
    /// It answers every question that it takes from the other end.
    pub ask: mpsc::Sender<oneshot::Sender<()>>,
}

/// What the pages are made from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The guard thread.
    pub guard: Asker,
    /// The other loops.
    pub pulses: Vec<Pulse>,
    /// The metrics.
    pub metrics: Metrics,
    /// The state folder, which has the journal.
    pub state_dir: PathBuf,
    /// Whose turn it is to read the journal.
    pub reading: Arc<Semaphore>,
}

/// The bound port.
#[derive(Debug)]
pub struct Http(BlockingListener);

impl Http {
    /// Takes the port. Needs no runtime, and touches nothing else.
    pub fn bind(addr: SocketAddr) -> Result<Self, HttpError> {
        let listen = |error| HttpError::Listen { addr, error };
        let socket = BlockingListener::bind(addr).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => {
                let by = listener::holder(addr).map(|who| format!(" by {who}")).unwrap_or_default();
                HttpError::InUse { addr, by }
            }
            _ => listen(error),
        })?;
        socket.set_nonblocking(true).map_err(listen)?;
        Ok(Self(socket))
    }

    /// The address, with the port that the kernel chose where 0 was asked for.
    pub fn addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Serves for ever. To be called in the edges' runtime.
    ///
    /// # Errors
    /// If the runtime cannot take the socket.
    pub async fn serve(self, sources: Sources) -> io::Result<()> {
        let router = Router::new()
            .route("/", get(status))
            .route("/metrics", get(metrics))
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .fallback(|| async {
                (StatusCode::NOT_FOUND, "not found; there are /, /metrics, /healthz and /readyz\n")
            })
            .with_state(Arc::new(sources));
        let limited = Limited {
            listener: TcpListener::from_std(self.0)?,
            places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        };
        axum::serve(limited, router).await
    }
}

async fn metrics(State(sources): State<Arc<Sources>>, headers: HeaderMap) -> Response {
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let accept = accept.collect::<Vec<_>>().join(",");
    if openmetrics::preferred(&accept) {
        let text = openmetrics::encode(&sources.metrics.gather());
        ([(header::CONTENT_TYPE, HeaderValue::from_static(openmetrics::CONTENT_TYPE))], text).into_response()
    } else {
        let kind = HeaderValue::from_static(TEXT_FORMAT);
        ([(header::CONTENT_TYPE, kind)], sources.metrics.text()).into_response()
    }
}

/// Every loop is asked at once; the answer takes no longer than the slowest may.
async fn healthz(State(sources): State<Arc<Sources>>) -> Response {
    let mut stuck = Vec::new();
    let guard = {
        let guard = sources.guard.clone();
        tokio::spawn(async move { guard.ask(PATIENCE, Ask::Heartbeat).await })
    };
    let others: Vec<_> = sources.pulses.iter().cloned().map(|pulse| tokio::spawn(beats(pulse))).collect();
    if let Ok(Err(error)) = guard.await {
        stuck.push(format!("guard: {error}\n"));
    }
    for other in others {
        if let Ok(Err(error)) = other.await {
            stuck.push(error);
        }
    }
    if stuck.is_empty() {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, stuck.concat()).into_response()
    }
}

async fn beats(pulse: Pulse) -> Result<(), String> {
    let (reply, answer) = oneshot::channel();
    let asked = async {
        // Closed or unanswered both mean that the loop has ended.
        pulse.ask.send(reply).await.ok();
        answer.await
    };
    match timeout(PATIENCE, asked).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(format!("{}: the loop has ended\n", pulse.name)),
        Err(_) => Err(format!("{}: the loop did not answer within {PATIENCE:?}: it is stuck\n", pulse.name)),
    }
}

async fn readyz(State(sources): State<Arc<Sources>>) -> Response {
    let missing = match sources.guard.ask(PATIENCE, Ask::Status).await {
        Ok(status) => status.not_ready(),
        Err(error) => vec![error.to_string()],
    };
    if missing.is_empty() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, missing.join("\n") + "\n").into_response()
    }
}

async fn status(State(sources): State<Arc<Sources>>, Query(filter): Query<page::Filter>) -> Response {
    let mut status = match sources.guard.ask(PATIENCE, Ask::Status).await {
        Ok(status) => status,
        Err(error) => return (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    };
    status.lost = sources.metrics.lost();
    status.resyncs = sources.metrics.resyncs();
    // One reader at a time: the journal may be large, and many may look. It is never closed.
    let _turn = sources.reading.acquire().await.ok();
    let dir = sources.state_dir.clone();
    let wanted = filter.clone();
    let shown = match spawn_blocking(move || page::load(&dir, &wanted)).await {
        Ok(shown) => shown.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let page = page::render(&status, &filter, &shown);
    let headers = [
        (header::CONTENT_SECURITY_POLICY, page.policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::REFERRER_POLICY, "no-referrer".to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    (headers, Html(page.html)).into_response()
}

/// A listener with a bound on its connections.
struct Limited {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl Listener for Limited {
    type Io = Held;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // The semaphore is never closed; without a place the connection would only go uncounted.
        let place = self.places.clone().acquire_owned().await.ok();
        let (stream, addr) = Listener::accept(&mut self.listener).await;
        (Held { stream, idle: Box::pin(sleep(IDLE_MAX)), _place: place }, addr)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection and its place. Who says nothing for [`IDLE_MAX`] loses both.
struct Held {
    stream: TcpStream,
    idle: Pin<Box<Sleep>>,
    _place: Option<OwnedSemaphorePermit>,
}

mod pass {
    //! A [`super::Held`] reads and writes as its stream does.

    use std::{
        future::Future as _,
        io,
        pin::Pin,
        task::{Context, Poll},
    };

    use tokio::{
        io::{AsyncRead, AsyncWrite, ReadBuf},
        time::Instant,
    };

    use super::{Held, IDLE_MAX};

    impl AsyncRead for Held {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            to: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let read = Pin::new(&mut self.stream).poll_read(cx, to);
            if read.is_ready() {
                let later = Instant::now() + IDLE_MAX;
                self.idle.as_mut().reset(later);
            } else if self.idle.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            read
        }
    }

    impl AsyncWrite for Held {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            from: &[u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.stream).poll_write(cx, from)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_shutdown(cx)
        }
    }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
