//! Every key of the configuration file, defined once: what it sets, such as what, and when a change of it counts.
//!
//! Suggestions for misspelt keys, the comments of `config show --explain`, the manual page
//! route-guardian-config(5) and `docs/configuration.md` are made from this. What a key's default is they take from
//! [`Config`] itself.

use toml::{Table, Value};

use super::{Config, Overrides};

/// When a change of a key in the file counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// At SIGHUP.
    Reload,
    /// At the next start.
    Restart,
}

impl Takes {
    /// For people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reload => "reload",
            Self::Restart => "restart",
        }
    }
}

/// One table of the file.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Its name; empty for what stands before all tables.
    pub name: &'static str,
    /// What is set in it, in a sentence.
    pub what: &'static str,
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// With its table, such as `restore.settle`.
    pub name: &'static str,
    /// What it sets, in sentences; what is between backquotes is typed like that.
    pub what: &'static str,
    /// What kind of value it takes, with its unit.
    pub value: &'static str,
    /// A value other than the default, in TOML.
    pub example: &'static str,
    /// When a change of it counts.
    pub takes: Takes,
}

impl Key {
    /// The table that it is in; empty for none.
    pub fn section(&self) -> &'static str {
        self.name.split_once('.').map_or("", |(section, _)| section)
    }

    /// Its name within that table.
    pub fn last(&self) -> &'static str {
        self.name.split_once('.').map_or(self.name, |(_, last)| last)
    }

    /// Its value in a configuration; `None` where it is not set.
    pub fn of(&self, config: &Config) -> Option<Value> {
        let mut table = Table::try_from(config).ok()?;
        match self.section() {
            "" => table.remove(self.name),
            section => table.remove(section)?.get(self.last()).cloned(),
        }
    }
}

const DURATION: &str = "duration with its unit, such as `500ms`, `2s` or `1h30m`";

/// The tables, in the order in which they are shown.
pub const SECTIONS: &[Section] = &[
    Section { name: "", what: "These stand before all tables." },
    Section { name: "scope", what: "What is guarded. All of it is added to what the profile has." },
    Section { name: "owner", what: "Who may change what is guarded. Each key replaces the profile's." },
    Section { name: "restore", what: "How changes are undone." },
    Section {
        name: "damping",
        what: "When the guardian backs off from an actor that keeps undoing its restores.",
    },
    Section { name: "http", what: "Metrics, health and the status page." },
    Section { name: "control", what: "Where the command line reaches the daemon." },
    Section { name: "state", what: "What is kept on disk." },
    Section { name: "kubernetes", what: "What Kubernetes is told. For this there is a container image." },
];

/// The keys, in the order in which they are shown: those of a table stand together.
pub const KEYS: &[Key] = &[
    Key {
        name: "profile",
        what: "Whose network it is: what is guarded, and who owns it. Built in are `kube-router`, `flannel`, \
               `calico` and `generic`; another is a file with nothing but `[scope]` and `[owner]`.",
        value: "name, or absolute path of a file",
        example: r#""flannel""#,
        takes: Takes::Reload,
    },
    Key {
        name: "mode",
        what: "`restore` undoes what is not the owner's; `observe` touches nothing, and only reports.",
        value: "`restore` or `observe`",
        example: r#""observe""#,
        takes: Takes::Reload,
    },
    Key {
        name: "scope.links",
        what: "Interfaces by name: they are guarded with their addresses, and so is every route by them.",
        value: "list of globs on interface names (at most 15 bytes)",
        example: r#"["cni0", "tun-*"]"#,
        takes: Takes::Reload,
    },
    Key {
        name: "scope.protocols",
        what: "Protocol numbers (`ip route show proto N`): routes, rules and nexthop objects that carry one are guarded, \
               whatever interface a route leaves by.",
        value: "list of numbers, 0 to 255",
        example: "[186]",
        takes: Takes::Reload,
    },
    Key {
        name: "scope.tables",
        what: "Routing tables by number: routes in them and rules to them are guarded.",
        value: "list of numbers, 1 to 4294967295",
        example: "[100]",
        takes: Takes::Reload,
    },
    Key {
        name: "scope.exclude",
        what: "What is never touched, whatever else holds for it: all within a prefix, and all on an interface.",
        value: "list of prefixes, addresses, or globs on interface names",
        example: r#"["10.9.0.0/16", "eth*"]"#,
        takes: Takes::Reload,
    },
    Key {
        name: "owner.exe",
        what: "Programs that own the scope: what they change is what is desired.",
        value: "list of absolute paths, as `readlink /proc/PID/exe` has them",
        example: r#"["/opt/bin/flanneld"]"#,
        takes: Takes::Reload,
    },
    Key {
        name: "owner.cgroup",
        what: "Whoever runs in such a cgroup is an owner too.",
        value: "list of globs on cgroup paths",
        example: r#"["/system.slice/k3s*.service"]"#,
        takes: Takes::Reload,
    },
    Key {
        name: "owner.children",
        what: "Whether what an owner starts counts as the owner. kube-router before 2.6 changes routes by running \
               `ip`.",
        value: "`true` or `false`",
        example: "false",
        takes: Takes::Reload,
    },
    Key {
        name: "owner.absent_after",
        what: "When no owner has been running for so long, nobody withdraws what is stale: losses are held and told \
               until one runs.",
        value: "duration with its unit, or `never`",
        example: r#""30m""#,
        takes: Takes::Reload,
    },
    Key {
        name: "restore.settle",
        what: "How long a loss waits before it is undone where nobody knows who made it: it may be the owner's.",
        value: DURATION,
        example: r#""5s""#,
        takes: Takes::Reload,
    },
    Key {
        name: "restore.on_start",
        what: "After the guardian's own restart in the same boot: `adopt` keeps what is there and says in the log \
               what has gone meanwhile, `restore` puts back what was saved.",
        value: "`adopt` or `restore`",
        example: r#""restore""#,
        takes: Takes::Restart,
    },
    Key {
        name: "restore.lend",
        what: "systemd-networkd takes the node's own IPv4 address away when it is restarted or reconfigures a card, and \
               sets it again when it has it. If tunnels or routes in the scope depend on that address, it is put back \
               for so long at most, so that they work meanwhile. So long at most are pods carried, too, whose cable it \
               keeps out of their bridge.",
        value: "duration with its unit, at least `1s`, or `never`",
        example: r#""never""#,
        takes: Takes::Reload,
    },
    Key {
        name: "damping.burst",
        what: "How many restores of the same object an actor may undo in a row before the next one waits. All runs of \
               one program are one actor.",
        value: "number, 1 or more",
        example: "10",
        takes: Takes::Reload,
    },
    Key {
        name: "damping.initial",
        what: "The first pause; each further one is twice as long. After ten times as long without a change one restore \
               is earned back.",
        value: DURATION,
        example: r#""2s""#,
        takes: Takes::Reload,
    },
    Key {
        name: "damping.max",
        what: "The longest pause; not shorter than the first.",
        value: DURATION,
        example: r#""10m""#,
        takes: Takes::Reload,
    },
    Key {
        name: "http.listen",
        what: "Where it is served; empty for nowhere. There is no password: give it an address that only those reach \
               who may read who runs what.",
        value: "IP address with port, or empty",
        example: r#""[::1]:10953""#,
        takes: Takes::Restart,
    },
    Key {
        name: "control.socket",
        what: "The Unix socket that commands such as `status` ask; its mode is 0660.",
        value: "absolute path, at most 107 bytes",
        example: r#""/run/route-guardian-2/control.sock""#,
        takes: Takes::Restart,
    },
    Key {
        name: "state.dir",
        what: "The folder of the journal and of the saved desired state.",
        value: "absolute path",
        example: r#""/srv/route-guardian""#,
        takes: Takes::Restart,
    },
    Key {
        name: "state.journal_max",
        what: "What the journal may take, all its files together; the oldest events go first.",
        value: "size with its unit, such as `64MiB`; at least `64KiB`",
        example: r#""256MiB""#,
        takes: Takes::Restart,
    },
    Key {
        name: "kubernetes.events",
        what: "Whether changes that are not the owner's become Events of the Node.",
        value: "`true` or `false`",
        example: "true",
        takes: Takes::Restart,
    },
    Key {
        name: "kubernetes.node_condition",
        what: "Whether the Node has a condition `RouteGuardianDegraded`. It takes the right to patch the status of Nodes.",
        value: "`true` or `false`",
        example: "true",
        takes: Takes::Restart,
    },
    Key {
        name: "kubernetes.node",
        what: "The Node's name; empty: what the environment has in `NODE_NAME`.",
        value: "name, as `kubectl get nodes` has it, or empty",
        example: r#""node-7""#,
        takes: Takes::Restart,
    },
    Key {
        name: "kubernetes.server",
        what: "The API server; empty: the cluster's Service for it, which may be what is lost.",
        value: "`https://` with IP address and port, or empty",
        example: r#""https://10.0.0.1:6443""#,
        takes: Takes::Restart,
    },
];

/// The keys of a table.
pub fn in_section(section: &Section) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(|key| key.section() == section.name)
}

/// What each key is where the file says nothing.
pub fn defaults() -> Config {
    Config::parse("defaults", "", &Overrides::default()).unwrap_or_default()
}

/// The keys whose values differ.
pub fn changed(before: &Config, after: &Config) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(|key| key.of(before) != key.of(after))
}

/// The names of all tables and keys.
pub(super) fn all() -> Vec<&'static str> {
    let sections = SECTIONS.iter().map(|section| section.name).filter(|name| !name.is_empty());
    sections.chain(KEYS.iter().map(|key| key.name)).collect()
}

/// Those that a profile may have.
pub(super) fn of_profiles() -> Vec<&'static str> {
    let profile = |name: &&str| matches!(name.split('.').next(), Some("scope" | "owner"));
    all().into_iter().filter(profile).collect()
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
