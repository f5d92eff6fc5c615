//! The configuration: a TOML file over a profile, every key with a default.
//!
//! The scope of the file is added to the profile's; every other key replaces the profile's or the default.
//! The values are plain data that was checked: globs are valid `glob` patterns, prefixes parse, paths are
//! absolute.

mod error;
pub mod profile;
mod reader;
pub mod units;
mod values;

use std::{
    fmt, fs,
    io::ErrorKind,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize, Serializer};
use toml::de::DeTable;

pub use error::{ConfigError, Problem};
use reader::{Problems, Section, boolean, integer, text};

/// Where the configuration is looked for when no file is named; it may be absent.
pub const DEFAULT_PATH: &str = "/etc/route-guardian/config.toml";

/// The tables and keys of a profile, for suggestions.
const PROFILE_KEYS: [&str; 10] = [
    "scope",
    "scope.links",
    "scope.protocols",
    "scope.tables",
    "scope.exclude",
    "owner",
    "owner.exe",
    "owner.cgroup",
    "owner.children",
    "owner.absent_after",
];

/// The other tables and keys. The tests hold both lists against what is read and written.
const OTHER_KEYS: [&str; 16] = [
    "profile",
    "mode",
    "restore",
    "restore.settle",
    "restore.on_start",
    "damping",
    "damping.burst",
    "damping.initial",
    "damping.max",
    "http",
    "http.listen",
    "control",
    "control.socket",
    "state",
    "state.dir",
    "state.journal_max",
];

/// What the guardian does about changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Sees and names them, touches nothing.
    Observe,
    /// Undoes them.
    #[default]
    Restore,
}

impl Mode {
    /// Both, for metrics that exist from the start.
    pub const ALL: [Self; 2] = [Self::Observe, Self::Restore];

    /// The word used in files, reports and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Restore => "restore",
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "observe" => Ok(Self::Observe),
            "restore" => Ok(Self::Restore),
            _ => Err(format!("`{text}` is not a mode: write \"observe\" or \"restore\"")),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

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
            restore: Restore { settle: Duration::from_secs(2), on_start: OnStart::default() },
            damping: Damping { burst: 5, initial: Duration::from_secs(1), max: Duration::from_secs(300) },
            http: Http { listen: Some(SocketAddr::from(([127, 0, 0, 1], 10953))) },
            control: Control { socket: PathBuf::from("/run/route-guardian/control.sock") },
            state: State { dir: PathBuf::from("/var/lib/route-guardian"), journal_max: 64 << 20 },
        }
    }
}

/// What the command line puts over the file; each is checked like the key it replaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--profile`, in place of `profile`.
    pub profile: Option<String>,
    /// `--mode`, in place of `mode`.
    pub mode: Option<Mode>,
    /// `--listen`, in place of `http.listen`.
    pub listen: Option<String>,
    /// `--socket`, in place of `control.socket`.
    pub socket: Option<PathBuf>,
    /// `--state-dir`, in place of `state.dir`.
    pub state_dir: Option<PathBuf>,
}

impl Config {
    /// Reads the configuration: the file at `path`, which must be there, or the one at [`DEFAULT_PATH`],
    /// which may be absent; over its profile; under `overrides`.
    ///
    /// # Errors
    /// Everything that is wrong, each with file, line, key and what would be right.
    pub fn load(path: Option<&Path>, overrides: &Overrides) -> Result<Self, ConfigError> {
        let named = path.unwrap_or(Path::new(DEFAULT_PATH));
        let origin = named.display().to_string();
        let file = match fs::read_to_string(named) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound && path.is_none() => String::new(),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(ConfigError::whole(
                    origin,
                    "there is no such file; `route-guardian config show` prints one to start from",
                ));
            }
            Err(error) => return Err(ConfigError::whole(origin, format!("cannot be read: {error}"))),
        };
        Self::parse(&origin, &file, overrides)
    }

    /// Checks the file at `path` and what it refers to; returns the configuration that it makes.
    pub fn check(path: &Path) -> Result<Self, ConfigError> {
        Self::load(Some(path), &Overrides::default())
    }

    /// As [`Config::load`], of a text; `origin` names it in errors.
    pub fn parse(origin: &str, file: &str, overrides: &Overrides) -> Result<Self, ConfigError> {
        let mut problems = Problems::new(origin, file);
        let table = match DeTable::parse(file) {
            Ok(table) => table,
            Err(error) => {
                let offset = error.span().map_or(0, |span| span.start);
                problems.push(offset, "", format!("not TOML: {}", error.message().trim()));
                return Err(ConfigError { problems: problems.found });
            }
        };
        let mut root = Section::root(table.get_ref());
        let mut config = Self::default();
        let mut found = Vec::new();

        // The profile comes first, and everything else over it.
        let named = root.take("profile");
        if let Some(name) = &overrides.profile {
            config.profile.clone_from(name);
        } else if let Some(entry) = &named
            && let Some(name) = entry.read(&mut problems, |v| text(v, profile::DEFAULT))
        {
            name.clone_into(&mut config.profile);
        }
        match profile::find(&config.profile) {
            Ok((origin, text)) => {
                if let Err(error) = config.read_profile(&origin, &text) {
                    found.extend(error.problems);
                }
            }
            Err(error) => match (&overrides.profile, &named) {
                (None, Some(entry)) => {
                    for problem in error.problems {
                        let message = format!("{}: {}", config.profile, problem.message);
                        problems.push(entry.value.span().start, "profile", message);
                    }
                }
                _ => found.extend(error.problems),
            },
        }

        if let Some(mode) = root
            .take("mode")
            .and_then(|entry| entry.read(&mut problems, |v| text(v, "restore").and_then(Mode::parse)))
        {
            config.mode = mode;
        }
        config.read_scope_and_owner(&mut root, &mut problems);
        config.read_behaviour(&mut root, &mut problems);
        config.read_surfaces(&mut root, &mut problems);
        root.finish(&all_keys(), &mut problems);

        found.extend(problems.found);
        found.sort_by_key(|problem| problem.line);
        found.extend(config.apply(overrides));
        if found.is_empty() { Ok(config) } else { Err(ConfigError { problems: found }) }
    }

    /// The configuration as TOML with every key; reading it gives the same configuration.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }

    /// A profile is a file with nothing but `[scope]` and `[owner]`.
    fn read_profile(&mut self, origin: &str, file: &str) -> Result<(), ConfigError> {
        let mut problems = Problems::new(origin, file);
        match DeTable::parse(file) {
            Ok(table) => {
                let mut root = Section::root(table.get_ref());
                self.read_scope_and_owner(&mut root, &mut problems);
                root.finish(&PROFILE_KEYS, &mut problems);
            }
            Err(error) => {
                let offset = error.span().map_or(0, |span| span.start);
                problems.push(offset, "", format!("not TOML: {}", error.message().trim()));
            }
        }
        if problems.found.is_empty() { Ok(()) } else { Err(ConfigError { problems: problems.found }) }
    }

    fn read_scope_and_owner(&mut self, root: &mut Section<'_>, problems: &mut Problems<'_>) {
        let mut scope = root.section("scope", problems);
        if let Some(entry) = scope.take("links") {
            let links = entry.list(problems, "[\"tun-*\"]", |v| {
                let glob = text(v, "tun-*")?;
                values::link_glob(glob).map(|()| glob.to_owned())
            });
            add(&mut self.scope.links, links);
        }
        if let Some(entry) = scope.take("protocols") {
            let numbers = entry.list(problems, "[17]", |v| values::protocol(integer(v, "17")?));
            add(&mut self.scope.protocols, numbers);
        }
        if let Some(entry) = scope.take("tables") {
            let numbers = entry.list(problems, "[77]", |v| values::table(integer(v, "77")?));
            add(&mut self.scope.tables, numbers);
        }
        if let Some(entry) = scope.take("exclude") {
            let exclude = entry.list(problems, "[\"10.0.0.0/8\", \"eth*\"]", |v| {
                let item = text(v, "10.0.0.0/8")?;
                values::exclusion(item).map(|()| item.to_owned())
            });
            add(&mut self.scope.exclude, exclude);
        }
        scope.finish(&all_keys(), problems);

        let mut owner = root.section("owner", problems);
        if let Some(entry) = owner.take("exe") {
            let exe = entry.list(problems, "[\"/usr/local/bin/kube-router\"]", |v| {
                let path = text(v, "/usr/local/bin/kube-router")?;
                values::absolute(path).map(|_| path.to_owned())
            });
            set(&mut self.owner.exe, exe);
        }
        if let Some(entry) = owner.take("cgroup") {
            let cgroup = entry.list(problems, "[\"/kubepods*/*\"]", |v| {
                let glob = text(v, "/kubepods*/*")?;
                values::cgroup_glob(glob).map(|()| glob.to_owned())
            });
            set(&mut self.owner.cgroup, cgroup);
        }
        if let Some(entry) = owner.take("children") {
            set(&mut self.owner.children, entry.read(problems, boolean));
        }
        if let Some(entry) = owner.take("absent_after") {
            let after = entry.read(problems, |v| match text(v, "15m\" or \"never")? {
                "never" => Ok(None),
                other => match units::parse_duration(other) {
                    Ok(after) => Ok(Some(after)),
                    Err(error) => Err(format!("{error}, or never")),
                },
            });
            set(&mut self.owner.absent_after, after);
        }
        owner.finish(&all_keys(), problems);
    }

    fn read_behaviour(&mut self, root: &mut Section<'_>, problems: &mut Problems<'_>) {
        let read_duration = |v, such_as| {
            text(v, such_as).and_then(|text| units::parse_duration(text).map_err(|e| e.to_string()))
        };
        let mut restore = root.section("restore", problems);
        if let Some(entry) = restore.take("settle") {
            set(&mut self.restore.settle, entry.read(problems, |v| read_duration(v, "2s")));
        }
        if let Some(entry) = restore.take("on_start") {
            let on_start = entry.read(problems, |v| match text(v, "adopt")? {
                "adopt" => Ok(OnStart::Adopt),
                "restore" => Ok(OnStart::Restore),
                other => Err(format!("`{other}` is neither \"adopt\" nor \"restore\"")),
            });
            set(&mut self.restore.on_start, on_start);
        }
        restore.finish(&all_keys(), problems);

        let mut damping = root.section("damping", problems);
        if let Some(entry) = damping.take("burst") {
            let burst = entry.read(problems, |v| match u32::try_from(integer(v, "5")?) {
                Ok(burst) if burst > 0 => Ok(burst),
                _ => {
                    Err("at least 1 restore must be allowed; to touch nothing, set mode = \"observe\"".into())
                }
            });
            set(&mut self.damping.burst, burst);
        }
        if let Some(entry) = damping.take("initial") {
            let initial = entry.read(problems, |v| match read_duration(v, "1s")? {
                Duration::ZERO => Err("the first pause cannot be nothing: write such as \"1s\"".into()),
                initial => Ok(initial),
            });
            set(&mut self.damping.initial, initial);
        }
        let max = damping.take("max");
        if let Some(entry) = &max {
            set(&mut self.damping.max, entry.read(problems, |v| read_duration(v, "5m")));
        }
        if self.damping.max < self.damping.initial {
            let message = format!(
                "the longest pause ({}) is shorter than the first, damping.initial ({})",
                units::format_duration(self.damping.max),
                units::format_duration(self.damping.initial)
            );
            let offset = max.map_or(0, |entry| entry.value.span().start);
            problems.push(offset, "damping.max", message);
        }
        damping.finish(&all_keys(), problems);
    }

    fn read_surfaces(&mut self, root: &mut Section<'_>, problems: &mut Problems<'_>) {
        /// Less than this, and rotation would drop events as fast as they come.
        const JOURNAL_LEAST: u64 = 64 << 10;

        let mut http = root.section("http", problems);
        if let Some(entry) = http.take("listen") {
            let listen = entry.read(problems, |v| values::listen(text(v, "127.0.0.1:10953")?));
            set(&mut self.http.listen, listen);
        }
        http.finish(&all_keys(), problems);

        let mut control = root.section("control", problems);
        if let Some(entry) = control.take("socket") {
            let socket =
                entry.read(problems, |v| values::socket(text(v, "/run/route-guardian/control.sock")?));
            set(&mut self.control.socket, socket);
        }
        control.finish(&all_keys(), problems);

        let mut state = root.section("state", problems);
        if let Some(entry) = state.take("dir") {
            let dir = entry.read(problems, |v| values::absolute(text(v, "/var/lib/route-guardian")?));
            set(&mut self.state.dir, dir);
        }
        if let Some(entry) = state.take("journal_max") {
            let size = entry.read(problems, |v| {
                let size = units::parse_size(text(v, "64MiB")?).map_err(|error| error.to_string())?;
                if size < JOURNAL_LEAST {
                    return Err(format!(
                        "{} is too small to be of use: write at least {}",
                        units::format_size(size),
                        units::format_size(JOURNAL_LEAST)
                    ));
                }
                Ok(size)
            });
            set(&mut self.state.journal_max, size);
        }
        state.finish(&all_keys(), problems);
    }

    fn apply(&mut self, overrides: &Overrides) -> Vec<Problem> {
        let mut found = Vec::new();
        let mut wrong = |option: &str, message: String| {
            found.push(Problem { origin: option.to_owned(), line: None, key: String::new(), message });
        };
        let lossy = |path: &Path| path.to_string_lossy().into_owned();
        if let Some(mode) = overrides.mode {
            self.mode = mode;
        }
        if let Some(text) = &overrides.listen {
            match values::listen(text) {
                Ok(listen) => self.http.listen = listen,
                Err(message) => wrong("--listen", message),
            }
        }
        if let Some(path) = &overrides.socket {
            match values::socket(&lossy(path)) {
                Ok(socket) => self.control.socket = socket,
                Err(message) => wrong("--socket", message),
            }
        }
        if let Some(path) = &overrides.state_dir {
            match values::absolute(&lossy(path)) {
                Ok(dir) => self.state.dir = dir,
                Err(message) => wrong("--state-dir", message),
            }
        }
        found
    }
}

fn all_keys() -> Vec<&'static str> {
    PROFILE_KEYS.into_iter().chain(OTHER_KEYS).collect()
}

fn set<T>(to: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *to = value;
    }
}

/// Adds what is not there yet, in order.
fn add<T: PartialEq>(to: &mut Vec<T>, more: Option<Vec<T>>) {
    for item in more.into_iter().flatten() {
        if !to.contains(&item) {
            to.push(item);
        }
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

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn size<S: Serializer>(value: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&units::format_size(*value))
}

#[cfg(test)]
mod tests;
