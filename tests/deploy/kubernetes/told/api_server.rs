//! A stand-in for the API server: over TLS, for who has the token, within the rights that the manifests give, and with
//! the API's own schemas for all that it is to keep.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use lab::Lab;
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use serde_json::{Value, json};

use super::schemas::Schemas;
use crate::run;

/// The token of the service account.
pub const TOKEN: &str = "the-token-of-the-service-account";

/// How often a thread that waits looks whether it is to end.
const LOOK: Duration = Duration::from_millis(20);

/// How it behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// As an API server does.
    Serving,
    /// It refuses everything with this code.
    Refusing(u16),
    /// It takes connections and requests, and never answers.
    Hanging,
    /// It takes connections, and does not even begin with TLS.
    Silent,
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Request {
    /// What RBAC calls it, such as `create default/events`; `connect` for a connection on which none came.
    pub right: String,
    /// The code of the answer; 0 for none.
    pub code: u16,
}

/// What is kept, by path, and what came.
#[derive(Debug)]
struct Inside {
    mood: Mood,
    rights: BTreeSet<String>,
    objects: BTreeMap<String, Value>,
    requests: Vec<Request>,
    schemas: Schemas,
}

/// The stand-in. It ends when this is dropped.
#[derive(Debug)]
pub struct ApiServer {
    inside: Arc<Mutex<Inside>>,
    address: SocketAddr,
    tls: Arc<ServerConfig>,
    listening: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
}

impl ApiServer {
    /// Starts it in the network namespace of this thread, with its certificate in `ca.crt` in the lab's folder.
    pub fn start(lab: &Lab, rights: BTreeSet<String>) -> Result<Self> {
        let [key, certificate] = ["key.pem", "ca.crt"].map(|name| lab.dir().join(name));
        run(Command::new(lab::program("openssl")?)
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
            .args(["-days", "2", "-subj", "/CN=kubernetes", "-addext", "subjectAltName=IP:127.0.0.1"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_file(&certificate)?],
                PrivateKeyDer::from_pem_file(&key)?,
            )?;
        let inside = Inside {
            mood: Mood::Serving,
            rights,
            objects: BTreeMap::new(),
            requests: Vec::new(),
            schemas: Schemas::start()?,
        };
        let address = SocketAddr::from(([127, 0, 0, 1], 6443));
        let inside = Arc::new(Mutex::new(inside));
        let mut server = Self { inside, address, tls: Arc::new(tls), listening: None };
        server.come_back()?;
        Ok(server)
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        lock(&self.inside)
    }

    /// It behaves like this from now on.
    pub fn set_mood(&self, mood: Mood) {
        self.inside().mood = mood;
    }

    /// Keeps an object that somebody else has made, after a look at whether it may be one.
    pub fn keep(&self, path: &str, object: Value) -> Result<()> {
        let mut inside = self.inside();
        inside.schemas.check(&object)?;
        inside.objects.insert(path.into(), object);
        Ok(())
    }

    /// An object.
    pub fn object(&self, path: &str) -> Value {
        self.inside().objects.get(path).cloned().unwrap_or_default()
    }

    /// The Events that it has.
    pub fn events(&self) -> Vec<Value> {
        self.inside().objects.values().filter(|object| object["kind"] == "Event").cloned().collect()
    }

    /// What came so far.
    pub fn requests(&self) -> Vec<Request> {
        self.inside().requests.clone()
    }

    /// It is gone: nobody listens, and connections are closed.
    pub fn go(&mut self) {
        if let Some((ending, thread)) = self.listening.take() {
            ending.store(true, Ordering::Relaxed);
            let _ = thread.join();
        }
    }

    /// It is there again.
    pub fn come_back(&mut self) -> Result<()> {
        self.go();
        let listener = TcpListener::bind(self.address).context("cannot listen as an API server")?;
        listener.set_nonblocking(true)?;
        let ending = Arc::new(AtomicBool::new(false));
        let (inside, tls, end) = (self.inside.clone(), self.tls.clone(), ending.clone());
        let thread = thread::spawn(move || {
            let mut connections = Vec::new();
            while !end.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let (inside, tls, end) = (inside.clone(), tls.clone(), end.clone());
                        connections.push(thread::spawn(move || {
                            // A client that goes away is no fault here.
                            let _ = Connection { inside, end }.serve(stream, tls);
                        }));
                    }
                    Err(_) => thread::sleep(LOOK),
                }
            }
            for connection in connections {
                let _ = connection.join();
            }
        });
        self.listening = Some((ending, thread));
        Ok(())
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.go();
    }
}

fn lock(inside: &Mutex<Inside>) -> MutexGuard<'_, Inside> {
    inside.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One connection, with requests one after the other (HTTP/1.1).
struct Connection {
    inside: Arc<Mutex<Inside>>,
    end: Arc<AtomicBool>,
}

impl Connection {
    fn serve(&self, stream: TcpStream, tls: Arc<ServerConfig>) -> Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(LOOK))?;
        if lock(&self.inside).mood == Mood::Silent {
            self.keep_waiting("connect".into(), Mood::Silent);
            return Ok(());
        }
        let mut stream = StreamOwned::new(ServerConnection::new(tls)?, stream);
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.extend(self.read(&mut stream, 1)?);
            }
            let head = String::from_utf8(head)?;
            let field = |name: &str| {
                let mut fields = head.lines().filter_map(|line| line.split_once(": "));
                fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
            };
            let length = field("content-length").map_or(Ok(0), |length| length.parse::<usize>())?;
            let body = self.read(&mut stream, length)?;
            let mut words = head.split(' ');
            let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let path = path.split('?').next().unwrap_or_default().trim_end_matches('/');
            let is_known = field("authorization").is_some_and(|who| who == format!("Bearer {TOKEN}"));
            let kind = field("content-type").unwrap_or_default();
            let Some((code, answer)) = self.answer(method, path, &kind, is_known, &body) else {
                return Ok(());
            };
            let answer = answer.to_string();
            write!(
                stream,
                "HTTP/1.1 {code} -\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{answer}",
                answer.len()
            )?;
            stream.flush()?;
        }
    }

    /// Does nothing for as long as it is in this mood.
    fn keep_waiting(&self, right: String, mood: Mood) {
        lock(&self.inside).requests.push(Request { right, code: 0 });
        while lock(&self.inside).mood == mood && !self.end.load(Ordering::Relaxed) {
            thread::sleep(LOOK);
        }
    }

    /// So many bytes, unless it is to end.
    fn read(&self, from: &mut impl Read, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        let mut there = 0;
        while there < length {
            match from.read(&mut bytes[there..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(more) => there += more,
                // Interrupted: a receive with a time limit is not taken up again after a freeze (`signal(7)`).
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) =>
                {
                    if self.end.load(Ordering::Relaxed) {
                        return Err(ErrorKind::ConnectionAborted.into());
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(bytes)
    }

    /// The answer; `None` if there is none until it ends.
    fn answer(
        &self,
        method: &str,
        path: &str,
        kind: &str,
        is_known: bool,
        body: &[u8],
    ) -> Option<(u16, Value)> {
        let right = right(method, path);
        let mood = lock(&self.inside).mood;
        if matches!(mood, Mood::Hanging | Mood::Silent) {
            self.keep_waiting(right, mood);
            return None;
        }
        let mut inside = lock(&self.inside);
        let result = match mood {
            Mood::Refusing(code) => Err((code, "the stand-in refuses everything".into())),
            _ if !is_known => Err((401, "Unauthorized".into())),
            _ if !inside.rights.contains(&right) => {
                Err((403, format!("nobody has given the right to {right}")))
            }
            _ => inside.act(method, path, kind, body),
        };
        let (code, answer) = result.unwrap_or_else(|(code, message)| {
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": message, "reason": "", "code": code,
            });
            (code, status)
        });
        inside.requests.push(Request { right, code });
        Some((code, answer))
    }
}

/// What RBAC calls a request.
fn right(method: &str, path: &str) -> String {
    let verb = match method {
        "POST" => "create",
        "PATCH" => "patch",
        "GET" => "get",
        other => other,
    };
    let what = match path.split('/').skip(1).collect::<Vec<_>>()[..] {
        ["api", "v1", "namespaces", namespace, kind] | ["api", "v1", "namespaces", namespace, kind, _] => {
            format!("{namespace}/{kind}")
        }
        ["api", "v1", kind, _] => kind.to_owned(),
        ["api", "v1", kind, _, part] => format!("{kind}/{part}"),
        _ => path.to_owned(),
    };
    format!("{verb} {what}")
}

type Answer = Result<(u16, Value), (u16, String)>;

impl Inside {
    fn act(&mut self, method: &str, path: &str, kind: &str, body: &[u8]) -> Answer {
        let text = |error: &dyn std::fmt::Display| (400, error.to_string());
        let body = match method {
            "GET" => Value::Null,
            _ => serde_json::from_slice(body).map_err(|error| text(&error))?,
        };
        if method == "POST" {
            let name = body["metadata"]["name"].as_str().unwrap_or_default();
            let (path, namespace) = (format!("{path}/{name}"), &body["metadata"]["namespace"]);
            if path.split('/').nth(4) != namespace.as_str() {
                return Err((400, format!("namespace {namespace} of the object is not that of the request")));
            }
            if self.objects.contains_key(&path) {
                return Err((409, format!("{name} already exists")));
            }
            self.check(&body)?;
            self.objects.insert(path, body.clone());
            return Ok((201, body));
        }
        let stored = self.objects.get(path.trim_end_matches("/status")).cloned();
        let mut object = stored.ok_or_else(|| (404, format!("{path} not found")))?;
        if method == "PATCH" {
            if kind != "application/strategic-merge-patch+json" {
                return Err((415, format!("{kind} is not supported here")));
            }
            if path.ends_with("/status")
                && body.as_object().is_some_and(|body| body.keys().any(|k| k != "status"))
            {
                return Err((400, "more than the status is patched".into()));
            }
            merge(&mut object, &body);
            self.check(&object)?;
            self.objects.insert(path.trim_end_matches("/status").into(), object.clone());
        }
        Ok((200, object))
    }

    /// What the schemas say, and what they do not (`pkg/apis/core/validation/events.go`).
    fn check(&mut self, object: &Value) -> Result<(), (u16, String)> {
        self.schemas.check(object).map_err(|error| (422, format!("{error:#}")))?;
        if object["kind"] == "Event" {
            let about = &object["involvedObject"]["namespace"];
            if about.is_null() && object["metadata"]["namespace"] != "default" {
                return Err((422, "involvedObject.namespace does not match the Event's".into()));
            }
        }
        Ok(())
    }
}

/// A strategic merge patch; of the lists that occur here, conditions are merged by their type.
fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (key, value) in patch {
        match (key.as_str(), value, &mut object[key]) {
            ("conditions", Value::Array(patches), Value::Array(conditions)) => {
                for patch in patches {
                    match conditions.iter_mut().find(|condition| condition["type"] == patch["type"]) {
                        Some(condition) => merge(condition, patch),
                        None => conditions.push(patch.clone()),
                    }
                }
            }
            (_, value, object) => merge(object, value),
        }
    }
}

/// A stand-in that takes everything would prove nothing.
#[test]
fn the_stand_in_refuses_what_an_api_server_refuses() -> Result<()> {
    let mut schemas = Schemas::start()?;
    let event = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "a", "namespace": "default"},
        "involvedObject": {"kind": "Node", "name": "n"}, "count": 1,
    });
    schemas.check(&event)?;
    for (path, wrong) in [("/count", json!("1")), ("/kind", json!("Evnt")), ("/metadata/nam", json!("b"))] {
        let mut bad = event.clone();
        let (parent, name) = path.rsplit_once('/').context("no path")?;
        bad.pointer_mut(parent).context("no parent")?[name] = wrong;
        assert!(schemas.check(&bad).is_err(), "{bad}");
    }
    let rights = BTreeSet::new();
    let mut inside =
        Inside { mood: Mood::Serving, rights, objects: BTreeMap::new(), requests: Vec::new(), schemas };
    let path = "/api/v1/namespaces/default/events";
    let mut post =
        |event: &Value| inside.act("POST", path, "", event.to_string().as_bytes()).map(|done| done.0);
    assert_eq!(post(&event), Ok(201));
    assert_eq!(post(&event).map_err(|error| error.0), Err(409));
    let mut elsewhere = event.clone();
    elsewhere["metadata"]["namespace"] = json!("kube-system");
    assert_eq!(post(&elsewhere).map_err(|error| error.0), Err(400));
    let patch = |inside: &mut Inside, name: &str, patch: &Value| {
        let kind = "application/strategic-merge-patch+json";
        let done = inside.act("PATCH", &format!("{path}/{name}"), kind, patch.to_string().as_bytes());
        done.map_err(|error| error.0).map(|done| done.1)
    };
    assert_eq!(patch(&mut inside, "b", &json!({"count": 2})), Err(404));
    assert_eq!(patch(&mut inside, "a", &json!({"count": "2"})), Err(422));
    assert_eq!(
        patch(&mut inside, "a", &json!({"count": 2})).map(|event| event["count"].clone()),
        Ok(json!(2))
    );
    Ok(())
}

/// Merged by their type, as the API does it: the others stay.
#[test]
fn conditions_are_merged_by_their_type() {
    let mut node = json!({"status": {"conditions": [
        {"type": "Ready", "status": "True"}, {"type": "A", "status": "True", "lastTransitionTime": "1"},
    ]}});
    merge(&mut node, &json!({"status": {"conditions": [{"type": "A", "status": "False"}, {"type": "B"}]}}));
    assert_eq!(
        node["status"]["conditions"],
        json!([
            {"type": "Ready", "status": "True"},
            {"type": "A", "status": "False", "lastTransitionTime": "1"},
            {"type": "B"},
        ])
    );
}
