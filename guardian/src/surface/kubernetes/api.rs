//! The requests to the API server.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Event, EventSource, Node, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{
    Api, Client, Config,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{
    condition::{self, Known},
    outbox::{Told, Trouble, Write},
};
use crate::causes::chain;

/// Who reports it.
const COMPONENT: &str = "route-guardian";

/// Where Events are of what is in no namespace, such as a Node: the API takes them nowhere else
/// (`pkg/apis/core/validation/events.go`).
const NAMESPACE: &str = "default";

/// How long a connection may take, and an answer with it.
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(10);

/// An API server, by its address and the pod's service account.
#[derive(Clone)]
pub(super) struct Server {
    /// In place of the address in the pod's environment.
    url: Option<String>,
    node: String,
    client: Option<Client>,
}

impl Server {
    pub const fn new(url: Option<String>, node: String) -> Self {
        Self { url, node, client: None }
    }

    /// Reads where it is, and who we are to it, unless that has been done. To be called within a runtime.
    ///
    /// # Errors
    /// [`Trouble::Away`]: what is missing may come.
    pub fn connect(&mut self) -> Result<(), Trouble> {
        if self.client.is_some() {
            return Ok(());
        }
        let mut config = Config::incluster().map_err(|error| {
            Trouble::Away(format!("this is no pod with a token of a service account: {}", chain(&error)))
        })?;
        if let Some(url) = &self.url {
            config.cluster_url = url.parse().map_err(|error| Trouble::Away(chain(&error)))?;
        }
        config.connect_timeout = Some(CONNECT);
        // It is tried again when the back-off says so.
        config.default_retry = false;
        self.client = Some(Client::try_from(config).map_err(|error| Trouble::Away(chain(&error)))?);
        Ok(())
    }

    fn client(&self) -> Result<Client, Trouble> {
        self.client.clone().ok_or_else(|| Trouble::Away("there is no connection".into()))
    }

    /// Makes an Event, or says what has become of it.
    pub async fn write(self, write: Write) -> Result<(), Trouble> {
        let events: Api<Event> = Api::namespaced(self.client()?, NAMESPACE);
        let result = match write {
            Write::Create(told) => {
                let event = event(&self.node, told)?;
                match within(events.create(&PostParams::default(), &event)).await {
                    // The name is nobody else's: the answer to an attempt before this one was lost.
                    Err(error) if is(&error, 409) => return Ok(()),
                    other => other.map(drop),
                }
            }
            Write::Update(told) => {
                let name = name(&self.node, &told.id);
                let patch = json!({
                    "count": i32::try_from(told.count).unwrap_or(i32::MAX),
                    "lastTimestamp": time(&told.last)?,
                    "message": told.message,
                });
                within(events.patch(&name, &PatchParams::default(), &Patch::Strategic(patch))).await.map(drop)
            }
        };
        result.map_err(trouble)
    }

    /// The condition as the Node has it.
    pub async fn condition(self) -> Result<Known, Trouble> {
        let nodes: Api<Node> = Api::all(self.client()?);
        let node = within(nodes.get(&self.node)).await.map_err(trouble)?;
        let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
        let ours = conditions.iter().find(|condition| condition.type_ == condition::TYPE);
        Ok(ours.map_or(Known::Absent, |condition| Known::Degraded(condition.status == "True")))
    }

    /// Patches the Node's status.
    pub async fn patch_status(self, patch: Value) -> Result<(), Trouble> {
        let nodes: Api<Node> = Api::all(self.client()?);
        let patch = Patch::Strategic(patch);
        let done = within(nodes.patch_status(&self.node, &PatchParams::default(), &patch)).await;
        done.map(drop).map_err(trouble)
    }
}

/// Why a request failed, before it is known what that means.
enum Failure {
    Api(kube::Error),
    TimedOut,
}

async fn within<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, Failure> {
    match timeout(ANSWER, request).await {
        Ok(answer) => answer.map_err(Failure::Api),
        Err(_) => Err(Failure::TimedOut),
    }
}

fn is(failure: &Failure, code: u16) -> bool {
    matches!(failure, Failure::Api(kube::Error::Api(status)) if status.code == code)
}

/// Whether it may go better another time: not where the API server has understood the request and does not want it. A
/// token that it does not know (401) may be replaced by the kubelet in a moment.
fn trouble(failure: Failure) -> Trouble {
    let error = match failure {
        Failure::TimedOut => return Trouble::Away(format!("no answer within {} s", ANSWER.as_secs())),
        Failure::Api(error) => error,
    };
    let kube::Error::Api(status) = error else { return Trouble::Away(chain(&error)) };
    let text = format!("{} ({})", status.message, status.code);
    match status.code {
        404 => Trouble::Gone(text),
        400 | 402..=428 | 430..=499 => Trouble::Refused(text),
        _ => Trouble::Away(text),
    }
}

fn name(node: &str, id: &str) -> String {
    format!("{node}.{id}")
}

/// A time of a record, in whole seconds as Events have it.
fn time(text: &str) -> Result<Time, Trouble> {
    let time: Timestamp = text.parse().map_err(|error| Trouble::Refused(chain(&error)))?;
    Timestamp::from_second(time.as_second()).map(Time).map_err(|error| Trouble::Refused(chain(&error)))
}

/// As the kubelet makes them: the Node's name stands for its uid (`pkg/kubelet/kubelet.go`, `nodeRef`), by which
/// `kubectl describe node` finds them too.
fn event(node: &str, told: Told) -> Result<Event, Trouble> {
    Ok(Event {
        metadata: ObjectMeta {
            name: Some(name(node, &told.id)),
            namespace: Some(NAMESPACE.into()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Node".into()),
            name: Some(node.into()),
            uid: Some(node.into()),
            ..ObjectReference::default()
        },
        type_: Some(if told.warning { "Warning" } else { "Normal" }.into()),
        reason: Some(told.reason),
        message: Some(told.message),
        count: Some(i32::try_from(told.count).unwrap_or(i32::MAX)),
        first_timestamp: Some(time(&told.first)?),
        last_timestamp: Some(time(&told.last)?),
        source: Some(EventSource { component: Some(COMPONENT.into()), host: Some(node.into()) }),
        reporting_component: Some(COMPONENT.into()),
        reporting_instance: Some(node.into()),
        ..Event::default()
    })
}
