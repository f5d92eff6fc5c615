//! The configuration: a TOML file over a profile, every key with a default.
//!
//! The scope of the file is added to the profile's; every other key replaces the profile's or the default.
//! The values are plain data that was checked: globs are valid `glob` patterns, prefixes parse, paths are
//! absolute.

mod error;
mod explain;
pub mod keys;
mod load;
pub mod profile;
mod reader;
pub mod units;
mod values;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize, Serializer};

pub use crate::model::Mode;
pub use error::{ConfigError, Problem};
pub use load::{DEFAULT_PATH, Overrides};

/// What to do after a restart in the same boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnStart {
    /// Keep what is there now.
    #[default]
    Adopt,
    /// Put back what was saved.
    Restore,
}

/// Which objects are guarded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Scope {
    /// Globs on interface names: routes that leave by a matching one are guarded.
    pub links: Vec<String>,
    /// `rtm_protocol` numbers: routes with one of these are guarded on any link.
    pub protocols: Vec<u8>,
    /// Table numbers: routes in, and rules to, one of these are guarded.
    pub tables: Vec<u32>,
    /// Prefixes (`ADDRESS/LENGTH` or an address alone) and globs on interface names that are never touched.
    pub exclude: Vec<String>,
}

/// Who may change the scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Owner {
    /// Absolute paths of executables.
    pub exe: Vec<String>,
    /// Globs on cgroup paths.
    pub cgroup: Vec<String>,
    /// Whether the processes that an owner starts count as it.
    pub children: bool,
    /// With no owner alive for this long, restores are held; `None`: never.
    #[serde(serialize_with = "duration_or_never")]
    pub absent_after: Option<Duration>,
}

/// How changes are undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Restore {
    /// How long to wait where the actor is unknown.
    #[serde(serialize_with = "duration")]
    pub settle: Duration,
    /// What to do after a restart in the same boot.
    pub on_start: OnStart,
    /// For how long systemd-networkd is lent an address that it has taken away; `None`: never.
    #[serde(serialize_with = "duration_or_never")]
    pub lend: Option<Duration>,
}

/// When to back off from an actor that keeps undoing our restores.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Damping {
    /// Restores per actor and object before backing off; at least 1.
    pub burst: u32,
    /// The first pause.
    #[serde(serialize_with = "duration")]
    pub initial: Duration,
    /// The longest pause; not below `initial`.
    #[serde(serialize_with = "duration")]
    pub max: Duration,
}

/// The HTTP surface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Http {
    /// Where to listen; `None` switches it off.
    #[serde(serialize_with = "listen")]
    pub listen: Option<SocketAddr>,
}

/// The control socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Control {
    /// Its path.
    pub socket: PathBuf,
}

/// What is kept on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct State {
    /// The folder for the journal and the saved desired state.
    pub dir: PathBuf,
    /// The most bytes that the journal takes, all its files together.
    #[serde(serialize_with = "size")]
    pub journal_max: u64,
}

/// What Kubernetes is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Kubernetes {
    /// Whether changes that are not the owner's become Events of the Node.
    pub events: bool,
    /// Whether the Node has a condition `RouteGuardianDegraded`.
    pub node_condition: bool,
    /// The Node's name; empty: what the environment has in `NODE_NAME`.
    pub node: String,
    /// The API server; `None`: the cluster's Service for it, which the pod's environment names.
    #[serde(serialize_with = "server")]
    pub server: Option<SocketAddr>,
}

impl Kubernetes {
    /// Whether this build can tell Kubernetes anything.
    pub const BUILT: bool = cfg!(feature = "kubernetes");

    /// Whether it is to be told anything.
    pub const fn is_wanted(&self) -> bool {
        self.events || self.node_condition
    }
}

/// The effective configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Config {
    /// The name of the profile, or the path of its file.
    pub profile: String,
    /// What to do about changes.
    pub mode: Mode,
    /// Which objects are guarded.
    pub scope: Scope,
    /// Who may change them.
    pub owner: Owner,
    /// How changes are undone.
    pub restore: Restore,
    /// When to back off.
    pub damping: Damping,
    /// The HTTP surface.
    pub http: Http,
    /// The control socket.
    pub control: Control,
    /// What is kept on disk.
    pub state: State,
    /// What Kubernetes is told.
    pub kubernetes: Kubernetes,
}

impl Default for Config {
    /// Every default, without a profile: the scope is empty.
    fn default() -> Self {
        Self {
            profile: profile::DEFAULT.to_owned(),
            mode: Mode::default(),
            scope: Scope::default(),
            owner: Owner {
                exe: Vec::new(),
                cgroup: Vec::new(),
                children: true,
                absent_after: Some(Duration::from_secs(15 * 60)),
            },
            restore: Restore {
                settle: Duration::from_secs(2),
                on_start: OnStart::default(),
                lend: Some(Duration::from_secs(30)),
            },
            damping: Damping { burst: 5, initial: Duration::from_secs(1), max: Duration::from_secs(300) },
            http: Http { listen: Some(SocketAddr::from(([127, 0, 0, 1], 10953))) },
            control: Control { socket: PathBuf::from("/run/route-guardian/control.sock") },
            state: State { dir: PathBuf::from("/var/lib/route-guardian"), journal_max: 64 << 20 },
            kubernetes: Kubernetes::default(),
        }
    }
}

impl Config {
    /// The configuration as TOML with every key; reading it gives the same configuration.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }

    /// What is asked for that this build cannot do, in a sentence.
    pub fn beyond_this_build(&self) -> Option<&'static str> {
        (self.kubernetes.is_wanted() && !Kubernetes::BUILT).then_some(
            "[kubernetes] has no effect: this build does not talk to Kubernetes (the container image's does: \
             cargo feature `kubernetes`)",
        )
    }
}

fn duration<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&units::format_duration(*value))
}

#[allow(clippy::ref_option, reason = "the signature that serde asks for")]
fn duration_or_never<S: Serializer>(value: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&value.map_or_else(|| "never".into(), units::format_duration))
}

#[allow(clippy::ref_option, reason = "the signature that serde asks for")]
fn listen<S: Serializer>(value: &Option<SocketAddr>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&value.map(|addr| addr.to_string()).unwrap_or_default())
}

#[allow(clippy::ref_option, reason = "the signature that serde asks for")]
fn server<S: Serializer>(value: &Option<SocketAddr>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&value.map(|addr| format!("https://{addr}")).unwrap_or_default())
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn size<S: Serializer>(value: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&units::format_size(*value))
}

#[cfg(test)]
mod tests;
