//! What `NetworkManager` is told to leave alone on this node, read as it reads it itself (`NetworkManager.conf(5)`,
//! `src/core/nm-config.c`).

mod matching;
mod remedy;

use std::{
    io,
    path::{Path, PathBuf},
};

use matching::{List, Truth};
pub use remedy::advise;

use super::{
    Place,
    folders::{below, named, text},
    ini::{self, Setting, boolean},
    networkd::Interface,
};

/// Its folders: a file in one hides those of the same name in the next ones.
const FOLDERS: [&str; 3] = ["/etc/NetworkManager", "/run/NetworkManager", "/usr/lib/NetworkManager"];
const MAIN: &str = "/etc/NetworkManager/NetworkManager.conf";
/// Its rules for udev, which leave pods' cables alone, and the file that would hide them.
const UDEV_RULES: &str = "/usr/lib/udev/rules.d/85-nm-unmanaged.rules";
const UDEV_HIDDEN: &str = "/etc/udev/rules.d/85-nm-unmanaged.rules";

/// All that it is told of links.
#[derive(Clone, Debug, Default)]
pub struct Configuration {
    groups: Vec<Group>,
    /// The line by which udev's rules leave pods' cables alone.
    cables: Option<Place>,
    /// Conditions of whole files that are not evaluated here; the files are taken for read.
    conditions: Vec<Place>,
}

/// What becomes of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is left alone, by this line.
    Left(Place),
    /// It is managed: by this line, or in spite of it; `None` where no line is about links.
    Managed(Option<Place>),
    /// It is managed or not by a condition in this line, which cannot be evaluated here.
    Unclear(Place),
}

/// A section: `[keyfile]`, or one that begins with `device`.
#[derive(Clone, Debug, Default)]
struct Group {
    name: String,
    /// Of the one `unmanaged-devices`, of the other `match-device`.
    list: Option<List>,
    managed: Option<Setting>,
    stop_match: bool,
}

impl Configuration {
    /// Reads it below `root`, which is `/` but for tests.
    ///
    /// # Errors
    /// Those of reading files and folders that are there.
    pub fn read(root: &Path) -> io::Result<Self> {
        let folders: Vec<PathBuf> = FOLDERS.iter().map(PathBuf::from).collect();
        let found = named(root, &folders, "conf.d", ".conf")?;
        let of = |folder: &'static str| found.values().filter(move |path| path.starts_with(folder));
        let mut configuration = Self::default();
        // Packages' files first, then those of this boot; the main file comes before what stands beside it.
        for path in of(FOLDERS[2]).chain(of(FOLDERS[1])) {
            configuration.add(ini::parse_keyfile(path, &text(root, path)?), false);
        }
        let main = Path::new(MAIN);
        if below(root, main).exists() {
            configuration.add(ini::parse_keyfile(main, &text(root, main)?), true);
        }
        for path in of(FOLDERS[0]) {
            configuration.add(ini::parse_keyfile(path, &text(root, path)?), false);
        }
        configuration.cables = cables(root)?;
        Ok(configuration)
    }

    /// What becomes of a link that nobody has told it about while it runs (`_get_managed_by_flags`).
    pub fn fate(&self, link: &Interface) -> Fate {
        let unmanaged = self.groups.iter().find(|g| g.name == "keyfile").and_then(|g| g.list.as_ref());
        let (mut unclear, mut otherwise) = (None, None);
        match unmanaged.map(|list| list.matches(link)) {
            Some((Truth::Yes, place)) => return Fate::Left(place),
            Some((Truth::Unclear, place)) => unclear = Some(place),
            Some((Truth::No, place)) => otherwise = Some(place),
            None => {}
        }
        match self.by_section(link) {
            Some(Fate::Managed(place)) => unclear.map_or(Fate::Managed(place), Fate::Unclear),
            Some(fate) => fate,
            None => match &self.cables {
                Some(place) if link.kind.as_deref() == Some("veth") && !link.name.starts_with("eth") => {
                    Fate::Left(place.clone())
                }
                _ => unclear.map_or(Fate::Managed(otherwise), Fate::Unclear),
            },
        }
    }

    /// What the first section says that is about a link: of later files before earlier ones, in a file from the top to
    /// the bottom, and `[device]` itself last (`_match_section_infos_lookup`).
    fn by_section(&self, link: &Interface) -> Option<Fate> {
        let named = self.groups.iter().rev().filter(|g| g.name.starts_with("device") && g.name != "device");
        for group in named.chain(self.groups.iter().filter(|g| g.name == "device")) {
            if group.managed.is_none() && !group.stop_match {
                continue;
            }
            match group.list.as_ref().map(|list| list.matches(link)) {
                Some((Truth::No, _)) => {}
                Some((Truth::Unclear, place)) => return Some(Fate::Unclear(place)),
                Some((Truth::Yes, _)) | None => {
                    let managed = group.managed.as_ref()?;
                    let place = managed.place.clone();
                    return boolean(&managed.value)
                        .map(|managed| if managed { Fate::Managed(Some(place)) } else { Fate::Left(place) });
                }
            }
        }
        None
    }

    /// Adds what the next file says (`read_config`).
    fn add(&mut self, settings: Vec<Setting>, is_main: bool) {
        let condition = settings.iter().find(|s| s.section == ".config" && s.key == "enable");
        if let Some(condition) = condition.filter(|_| !is_main) {
            match boolean(&condition.value) {
                Some(false) => return,
                Some(true) => {}
                None => self.conditions.push(condition.place.clone()),
            }
        }
        let ours = |name: &str| name == "keyfile" || name.starts_with("device");
        let mut names: Vec<&str> = Vec::new();
        for name in settings.iter().map(|s| s.section.as_str()).filter(|name| ours(name)) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        // In this order, as the whole is read from its end.
        for name in names.into_iter().rev() {
            if !self.groups.iter().any(|g| g.name == name) {
                self.groups.push(Group { name: name.to_owned(), ..Group::default() });
            }
        }
        for setting in settings {
            if let Some(group) = self.groups.iter_mut().find(|g| g.name == setting.section) {
                group.set(setting);
            }
        }
    }
}

impl Group {
    fn set(&mut self, setting: Setting) {
        let list = if self.name == "keyfile" { "unmanaged-devices" } else { "match-device" };
        match setting.key.strip_prefix(list) {
            Some("") => self.list = Some(List::of(&setting)),
            Some("+") => self.list.get_or_insert_with(|| List::empty(&setting)).add(&setting),
            Some("-") => self.list.get_or_insert_with(|| List::empty(&setting)).remove(&setting),
            _ if setting.key == "managed" => self.managed = Some(setting),
            _ if setting.key == "stop-match" => self.stop_match = boolean(&setting.value) == Some(true),
            _ => {}
        }
    }
}

/// The line of its rules for udev that leaves pods' cables alone, where nobody has hidden that file.
fn cables(root: &Path) -> io::Result<Option<Place>> {
    let rules = Path::new(UDEV_RULES);
    if below(root, Path::new(UDEV_HIDDEN)).symlink_metadata().is_ok() || !below(root, rules).exists() {
        return Ok(None);
    }
    let text = text(root, rules)?;
    let about = |line: &&str| line.contains("ID_NET_DRIVER}==\"veth\"") && line.contains("NM_UNMANAGED");
    let found = text.lines().zip(1..).find(|(line, _)| about(line));
    Ok(found.map(|(line, number)| Place {
        file: rules.to_owned(),
        line: number,
        text: line.trim().to_owned(),
    }))
}

#[cfg(test)]
mod tests;
