//! Reads the configuration: file over profile, options over both.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    time::Duration,
};

use toml::de::{DeTable, DeValue};

use super::{
    Config, ConfigError, Mode, OnStart, Problem, keys, profile,
    reader::{Problems, Section, boolean, integer, text},
    units, values,
};

/// Where the configuration is looked for when no file is named; it may be absent.
pub const DEFAULT_PATH: &str = "/etc/route-guardian/config.toml";

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
        root.finish(&keys::all(), &mut problems);

        found.extend(problems.found);
        found.sort_by_key(|problem| problem.line);
        found.extend(config.apply(overrides));
        if found.is_empty() { Ok(config) } else { Err(ConfigError { problems: found }) }
    }

    /// A profile is a file with nothing but `[scope]` and `[owner]`.
    fn read_profile(&mut self, origin: &str, file: &str) -> Result<(), ConfigError> {
        let mut problems = Problems::new(origin, file);
        match DeTable::parse(file) {
            Ok(table) => {
                let mut root = Section::root(table.get_ref());
                self.read_scope_and_owner(&mut root, &mut problems);
                root.finish(&keys::of_profiles(), &mut problems);
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
        scope.finish(&keys::all(), problems);

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
            let after = entry.read(problems, |v| duration_or_never(v, "15m\" or \"never"));
            set(&mut self.owner.absent_after, after);
        }
        owner.finish(&keys::all(), problems);
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
        if let Some(entry) = restore.take("lend") {
            let lend = entry.read(problems, |v| match duration_or_never(v, "30s\" or \"never")? {
                Some(time) if time < Duration::from_secs(1) => {
                    Err("the kernel counts lifetimes in seconds: at least 1s, or never".into())
                }
                lend => Ok(lend),
            });
            set(&mut self.restore.lend, lend);
        }
        restore.finish(&keys::all(), problems);

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
        damping.finish(&keys::all(), problems);
    }

    fn read_surfaces(&mut self, root: &mut Section<'_>, problems: &mut Problems<'_>) {
        /// Less than this, and rotation would drop events as fast as they come.
        const JOURNAL_LEAST: u64 = 64 << 10;

        let mut http = root.section("http", problems);
        if let Some(entry) = http.take("listen") {
            let listen = entry.read(problems, |v| values::listen(text(v, "127.0.0.1:10953")?));
            set(&mut self.http.listen, listen);
        }
        http.finish(&keys::all(), problems);

        let mut control = root.section("control", problems);
        if let Some(entry) = control.take("socket") {
            let socket =
                entry.read(problems, |v| values::socket(text(v, "/run/route-guardian/control.sock")?));
            set(&mut self.control.socket, socket);
        }
        control.finish(&keys::all(), problems);

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
        state.finish(&keys::all(), problems);

        let mut kubernetes = root.section("kubernetes", problems);
        if let Some(entry) = kubernetes.take("events") {
            set(&mut self.kubernetes.events, entry.read(problems, boolean));
        }
        if let Some(entry) = kubernetes.take("node_condition") {
            set(&mut self.kubernetes.node_condition, entry.read(problems, boolean));
        }
        if let Some(entry) = kubernetes.take("node") {
            let node = entry.read(problems, |v| values::node(text(v, "node-7")?));
            set(&mut self.kubernetes.node, node);
        }
        if let Some(entry) = kubernetes.take("server") {
            let server = entry.read(problems, |v| values::server(text(v, "https://10.0.0.1:6443")?));
            set(&mut self.kubernetes.server, server);
        }
        kubernetes.finish(&keys::all(), problems);
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

/// Reads a duration, or `never`.
fn duration_or_never(value: &DeValue<'_>, such_as: &str) -> Result<Option<Duration>, String> {
    match text(value, such_as)? {
        "never" => Ok(None),
        other => units::parse_duration(other).map(Some).map_err(|error| format!("{error}, or never")),
    }
}
