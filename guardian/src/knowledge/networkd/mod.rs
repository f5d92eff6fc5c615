//! What systemd-networkd is told to do on this node, read as it reads it itself (systemd.network(5), networkd.conf(5)).

mod matching;
mod remedy;

use std::{
    io,
    path::{Path, PathBuf},
};

pub use matching::{Interface, Matches};
pub use remedy::advise;

use super::{
    Place,
    folders::{below, named, text},
    ini::{self, Setting, boolean},
};

/// The folders in which it looks, the first one first (`CONF_PATHS` in `src/basic/constants.h`, also where `/lib` is a
/// folder of its own).
const FOLDERS: [&str; 5] =
    ["/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd", "/lib/systemd"];

/// A `.network` file with its drop-ins.
#[derive(Clone, Debug)]
pub struct NetworkFile {
    /// Its path.
    pub path: PathBuf,
    settings: Vec<Setting>,
}

/// All that it is told.
#[derive(Clone, Debug, Default)]
pub struct Configuration {
    /// In the order in which a link is tried on them.
    networks: Vec<NetworkFile>,
    /// `networkd.conf` with its drop-ins.
    manager: Vec<Setting>,
}

/// What is said of something: where, or that nobody says anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said<T> {
    /// What it comes to.
    pub value: T,
    /// The line that says so; `None` for the default.
    pub place: Option<Place>,
}

impl Configuration {
    /// Reads it below `root`, which is `/` but for tests.
    ///
    /// # Errors
    /// Those of reading files and folders that are there.
    pub fn read(root: &Path) -> io::Result<Self> {
        let folders: Vec<PathBuf> = FOLDERS.iter().map(PathBuf::from).collect();
        let mut networks = Vec::new();
        for (name, path) in named(root, &folders, "network", ".network")? {
            let main = text(root, &path)?;
            // An empty file, or a link to /dev/null, stands for none.
            if main.is_empty() {
                continue;
            }
            let mut settings = ini::parse(&path, &main);
            for path in named(root, &folders, &format!("network/{name}.d"), ".conf")?.values() {
                settings.extend(ini::parse(path, &text(root, path)?));
            }
            networks.push(NetworkFile { path, settings });
        }
        let mut manager = Vec::new();
        if let Some(main) = folders.iter().map(|f| f.join("networkd.conf")).find(|f| below(root, f).exists())
        {
            manager.extend(ini::parse(&main, &text(root, &main)?));
        }
        for path in named(root, &folders, "networkd.conf.d", ".conf")?.values() {
            manager.extend(ini::parse(path, &text(root, path)?));
        }
        Ok(Self { networks, manager })
    }

    /// The files by which a link may be configured: the first that matches it, behind those that do so on conditions
    /// which cannot be evaluated here, each with these.
    pub fn of(&self, link: &Interface) -> Vec<(&NetworkFile, Vec<Place>)> {
        let mut files = Vec::new();
        for network in &self.networks {
            match matching::matches(&network.settings, link) {
                Matches::Yes => {
                    files.push((network, Vec::new()));
                    break;
                }
                Matches::Perhaps(conditions) => files.push((network, conditions)),
                Matches::No => {}
            }
        }
        files
    }

    /// A switch of `[Network]` in `networkd.conf`: the last word counts.
    pub fn switch(&self, key: &str, default: bool) -> Said<bool> {
        last(&self.manager, "Network", key)
            .and_then(|setting| {
                boolean(&setting.value).map(|value| Said { value, place: Some(setting.place.clone()) })
            })
            .unwrap_or(Said { value: default, place: None })
    }
}

impl NetworkFile {
    /// The file's name.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// `Unmanaged=` of `[Link]`.
    pub fn is_unmanaged(&self) -> bool {
        self.setting("Link", "Unmanaged").and_then(|said| boolean(&said.value)) == Some(true)
    }

    /// The last word on a key, with its place.
    pub fn setting(&self, section: &str, key: &str) -> Option<Said<String>> {
        last(&self.settings, section, key)
            .map(|setting| Said { value: setting.value.clone(), place: Some(setting.place.clone()) })
    }

    /// The line by which it matches.
    pub fn match_line(&self) -> Option<Place> {
        let of_match = |s: &&Setting| s.section == "Match";
        let name = self.settings.iter().filter(of_match).find(|s| s.key == "Name");
        name.or_else(|| self.settings.iter().find(of_match)).map(|setting| setting.place.clone())
    }
}

fn last<'s>(settings: &'s [Setting], section: &str, key: &str) -> Option<&'s Setting> {
    settings.iter().rev().find(|s| s.section == section && s.key == key)
}

#[cfg(test)]
mod tests;
