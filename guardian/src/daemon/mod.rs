//! The daemon: a thread that guards and one that tells, around the pure core.
//!
//! The *guard* thread owns sensors, core and executor, and waits for nobody but the kernel. The *edges*
//! thread serves everybody else: journal, metrics, HTTP, the control socket. Bounded channels lie between
//! them, and the guard never waits on one. What the guard awaits besides the kernel, signals, questions, an owner's end,
//! is watched by a third, the *attendant*, which does nothing but wake it.

mod affinity;
mod afterwards;
mod answer;
mod cables;
mod clock;
mod cost;
mod edges;
mod guard;
mod lock;
mod managed;
mod meetings;
mod owner_watch;
mod patience;
mod priority;
mod reactor;
mod record;
mod reload;
mod restart;
mod resync;
mod saved;
mod service;
mod settings;
mod source;
mod write;

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;

use crate::{
    config::{Config, Overrides},
    surface::{
        ask::Asker, control::Control, http::Http, journal::Journal, kubernetes::Kubernetes, metrics::Metrics,
    },
};

/// How long it is waited at the end for threads that read files: a file system may not answer.
const SHUTDOWN: Duration = Duration::from_secs(1);

/// What the command line decides beyond the configuration.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// The configuration file that was named, to be read again on SIGHUP; `None`: the default one.
    pub config_path: Option<PathBuf>,
    /// What goes over the file, also when it is read again.
    pub overrides: Overrides,
    /// Do without BPF.
    pub no_bpf: bool,
    /// Let the BPF programs log.
    pub debug_bpf: bool,
}

/// Runs the daemon until SIGTERM or SIGINT. Everything that can fail is tried before anything is touched.
pub fn run(config: Config, options: RunOptions) -> anyhow::Result<()> {
    let lock = lock::take()?;
    let scope = settings::scope(&config)?;
    let owner = settings::owner(&config)?;
    let journal = Journal::open(&config.state.dir, config.state.journal_max)?;
    let control = Control::bind(&config.control.socket)?;
    let http = config.http.listen.map(Http::bind).transpose()?;
    let commit = option_env!("ROUTE_GUARDIAN_COMMIT").unwrap_or("unknown");
    let metrics = Metrics::new(env!("CARGO_PKG_VERSION"), commit).context("cannot set up the metrics")?;

    if let Some(beyond) = config.beyond_this_build() {
        log::warn!("{beyond}");
    }
    let (asker, asks) = Asker::channel();
    let kubernetes = Kubernetes::start(&config.kubernetes, metrics.clone(), asker.clone())
        .context("cannot start the thread that tells Kubernetes")?;
    let edges = edges::Edges { journal, control, http, kubernetes, metrics: metrics.clone(), guard: asker };
    let (told, edges) = edges.start(config.state.dir.clone()).context("cannot start the edges thread")?;

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("attendant")
        .enable_all()
        .build()
        .context("cannot start the guard's runtime")?;
    // After the others have started: they are in no hurry.
    if let Err(error) = priority::raise() {
        log::warn!("on a busy node restores take longer: no priority for the guard thread ({error})");
    }
    let within = runtime.enter();
    let result = guard::Signals::new().context("cannot wait for signals").and_then(|signals| {
        guard::Guard::new(guard::Start { config, options, scope, owner, metrics, told, asks })?.run(signals)
    });
    drop(within);
    // The journal takes what is on its way, then the edges end.
    runtime.shutdown_timeout(SHUTDOWN);
    edges.finish();
    drop(lock);
    result
}
