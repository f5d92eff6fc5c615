use std::{
    io::{Read as _, Write as _},
    net::TcpStream as BlockingStream,
    thread,
};

use super::*;
use crate::surface::sample;

/// A server whose guard answers `answers` questions and then no more.
fn serve(answers: usize, ready: bool) -> (SocketAddr, Metrics) {
    let (guard, mut questions) = Asker::channel();
    let (ask, mut pulses) = mpsc::channel::<oneshot::Sender<()>>(1);
    let metrics = Metrics::new("0.1.0", "abc").unwrap();
    let sources = Sources {
        guard,
        pulses: vec![Pulse { name: "journal", ask }],
        metrics: metrics.clone(),
        state_dir: "/nonexistent".into(),
        reading: Arc::new(Semaphore::new(1)),
    };
    let http = Http::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = http.addr().unwrap();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.spawn(async move {
            let mut kept = Vec::new();
            for n in 0.. {
                match questions.recv().await {
                    Some(question) if n >= answers => kept.push(question),
                    Some(Ask::Heartbeat(reply)) => reply.send(()).unwrap(),
                    Some(Ask::Status(reply)) => {
                        let mut status = sample::status();
                        status.ready = ready;
                        reply.send(status).unwrap();
                    }
                    _ => break,
                }
            }
        });
        runtime.spawn(async move {
            while let Some(reply) = pulses.recv().await {
                reply.send(()).unwrap();
            }
        });
        runtime.block_on(http.serve(sources)).unwrap();
    });
    (addr, metrics)
}

fn fetch(addr: SocketAddr, path: &str, headers: &str) -> String {
    let mut stream = BlockingStream::connect(addr).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn pages() {
    let (addr, metrics) = serve(100, true);
    metrics.record(&sample::networkd(1));
    let text = fetch(addr, "/metrics", "");
    assert!(text.contains("content-type: text/plain; version=0.0.4"), "{text}");
    assert!(text.contains("\nroute_guardian_actor_deletions_total{actor=\"networkd\"} 1\n"));
    let text = fetch(addr, "/metrics", "Accept: application/openmetrics-text;version=1.0.0\r\n");
    assert!(text.contains("content-type: application/openmetrics-text") && text.contains("# EOF"), "{text}");
    assert!(fetch(addr, "/healthz", "").ends_with("\r\n\r\nok\n"));
    assert!(fetch(addr, "/readyz", "").ends_with("\r\n\r\nready\n"));
    assert!(fetch(addr, "/nothing", "").starts_with("HTTP/1.1 404"));
    let page = fetch(addr, "/", "");
    assert!(page.contains("<h1>node-7</h1><span class=\"pill bad\">degraded</span>"), "{page}");
    assert!(page.contains("&lt;script&gt;") && !page.contains("<script>"), "{page}");
    assert!(page.contains("content-security-policy: default-src 'none'; style-src 'nonce-"), "{page}");
    assert!(!page.contains("http://") && !page.contains("https://"));
}

#[test]
fn a_stuck_loop_is_named() {
    let (addr, _) = serve(0, true);
    let text = fetch(addr, "/healthz", "");
    assert!(text.starts_with("HTTP/1.1 503"), "{text}");
    assert!(
        text.ends_with("\r\n\r\nguard: the guard loop did not answer within 1s: it is stuck\n"),
        "{text}"
    );
    assert!(fetch(addr, "/metrics", "").starts_with("HTTP/1.1 200"));
}

#[test]
fn what_is_missing_for_readiness_is_said() {
    let (addr, _) = serve(100, false);
    let text = fetch(addr, "/readyz", "");
    assert!(text.starts_with("HTTP/1.1 503") && text.contains("first snapshot has not been taken"), "{text}");
}

#[test]
fn a_port_in_use_names_its_holder() {
    let taken = Http::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = taken.addr().unwrap();
    let error = Http::bind(addr).unwrap_err().to_string();
    let me = std::process::id();
    assert!(error.starts_with(&format!("{addr} is in use by ")), "{error}");
    assert!(error.contains(&format!("[{me}]; set [http] listen or --listen")), "{error}");
    let error = Http::bind("192.0.2.1:1".parse().unwrap()).unwrap_err().to_string();
    assert!(error.contains("cannot listen on 192.0.2.1:1"), "{error}");
}
