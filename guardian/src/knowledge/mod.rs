//! What is known of programs that undo routes: why they do it, and what stops them.
//!
//! The knowledge is data, a file a program (`programs/`). What a node really has in its configuration is read for
//! systemd-networkd ([`networkd`]) and `NetworkManager` ([`networkmanager`]), with their own rules, and for those that
//! one setting tells what to leave alone ([`Spares`]), or that act on what they name ([`Mentions`]), down to the line
//! that is at fault.

mod files;
pub mod finding;
mod folders;
mod ini;
mod mentions;
pub mod networkd;
pub mod networkmanager;
mod spares;

use std::{io, path::Path, sync::LazyLock};

use serde::Deserialize;

pub use files::{FileFix, FileState, WriteError};
pub use finding::{Advice, Effect, Finding, Level, Place};
pub use mentions::Mentions;
pub use spares::{Names, Spares};

use crate::model::{ActorClass, record::ActorRecord};

/// How something is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Known {
    /// It was measured with the real program.
    Measured,
    /// The program's documentation says so.
    Documentation,
}

/// Lines for one file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileLines {
    /// The path of the file, or which file it is.
    pub path: String,
    /// What belongs into it.
    pub lines: Vec<String>,
}

/// What is known of a program.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// The kind of actors that it is the usual one of.
    pub class: Option<ActorClass>,
    /// The file names of its executables.
    pub executables: Vec<String>,
    /// Why it undoes what is guarded.
    pub why: String,
    /// What to do, in a sentence.
    pub how: String,
    /// What to write into which files.
    #[serde(default)]
    pub files: Vec<FileLines>,
    /// The one setting by which it leaves links alone, where that is all there is to it.
    pub spares: Option<Spares>,
    /// Where it names the links that it acts on.
    pub mentions: Option<Mentions>,
    /// How far that goes.
    pub note: String,
    /// How it is known.
    pub known: Known,
}

impl Program {
    /// What its configuration below `root` means for guarded links, where that is known to be read. (For
    /// systemd-networkd and `NetworkManager` there is more to it: [`networkd::advise`], [`networkmanager`].)
    ///
    /// # Errors
    /// Those of reading the files that are there.
    pub fn look(&self, root: &Path, guarded: &[networkd::Interface]) -> io::Result<Vec<Finding>> {
        let spared = self.spares.as_ref().map(|spares| spares.look(&self.name, root, guarded)).transpose()?;
        let named =
            self.mentions.as_ref().map(|mentions| mentions.look(&self.name, root, guarded)).transpose()?;
        Ok(spared.into_iter().chain(named.into_iter().flatten()).collect())
    }
}

/// The files, by name.
const FILES: [(&str, &str); 15] = [
    ("networkd", include_str!("programs/networkd.toml")),
    ("networkmanager", include_str!("programs/networkmanager.toml")),
    ("netplan", include_str!("programs/netplan.toml")),
    ("cloud-init", include_str!("programs/cloud-init.toml")),
    ("dhclient", include_str!("programs/dhclient.toml")),
    ("dhcpcd", include_str!("programs/dhcpcd.toml")),
    ("keepalived", include_str!("programs/keepalived.toml")),
    ("ifupdown", include_str!("programs/ifupdown.toml")),
    ("docker", include_str!("programs/docker.toml")),
    ("connman", include_str!("programs/connman.toml")),
    ("tailscale", include_str!("programs/tailscale.toml")),
    ("bird", include_str!("programs/bird.toml")),
    ("frr", include_str!("programs/frr.toml")),
    ("kube-router", include_str!("programs/kube-router.toml")),
    ("iproute2", include_str!("programs/iproute2.toml")),
];

/// All programs that are known. A file that cannot be read is left out: a test sees to it that there is none.
pub fn programs() -> &'static [Program] {
    static ALL: LazyLock<Vec<Program>> =
        LazyLock::new(|| FILES.iter().filter_map(|(_, text)| toml::from_str(text).ok()).collect());
    &ALL
}

/// What is known of an actor: by its executable, its parents' (a hook is its client's), else by its kind.
pub fn find(actor: &ActorRecord) -> Option<&'static Program> {
    let by_path = |exe: Option<&str>| exe.and_then(by_executable);
    let own = by_path(actor.exe.as_deref()).filter(|program| program.class != Some(ActorClass::Iproute2));
    // `ip` is a tool: who has it run is the one to be told.
    let parents = || actor.ancestors.iter().find_map(|parent| by_path(parent.exe.as_deref()));
    let by_class = || programs().iter().find(|program| program.class == Some(actor.class));
    own.or_else(parents).or_else(by_class)
}

/// The program of an executable's path.
pub fn by_executable(path: &str) -> Option<&'static Program> {
    let path = crate::procfs::without_deleted(path);
    let name = path.rsplit('/').next().unwrap_or(path);
    programs().iter().find(|program| program.executables.iter().any(|executable| executable == name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::surface::sample;

    #[test]
    fn every_file_can_be_read_and_is_found_again() {
        for (name, text) in FILES {
            let program: Program = toml::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(
                !program.why.is_empty() && !program.how.is_empty() && !program.executables.is_empty(),
                "{name}"
            );
            for executable in &program.executables {
                let found = by_executable(&format!("/usr/sbin/{executable}")).unwrap();
                assert_eq!(found.name, program.name, "{executable} is in two files");
            }
            assert!(program.files.iter().all(|file| !file.lines.is_empty()), "{name}");
        }
        assert_eq!(programs().len(), FILES.len());
    }

    #[test]
    fn a_tool_is_its_users() {
        let mut actor = (*sample::script(1).actor).clone();
        assert_eq!(find(&actor).unwrap().name, "iproute2");
        actor.ancestors.push(sample::ancestor(7, "dhclient", "/usr/sbin/dhclient"));
        assert_eq!(find(&actor).unwrap().name, "dhclient");
        actor.exe = Some("/usr/lib/systemd/systemd-networkd (deleted)".into());
        assert_eq!(find(&actor).unwrap().name, "systemd-networkd");
    }
}
