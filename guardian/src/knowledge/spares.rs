//! Programs that are told in one setting which links to leave alone: dhcpcd, `ConnMan`.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    Finding, Place,
    folders::{below, text},
    ini::{self, Setting},
    networkd::Interface,
};

/// Where such a setting stands, and how it is read.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spares {
    /// The file.
    pub file: PathBuf,
    /// The section of a file that has sections and assignments; without it a line is a word and its values.
    pub section: Option<String>,
    /// The words whose lines begin what is said of one link only, where there are sections without brackets.
    #[serde(default)]
    pub blocks: Vec<String>,
    /// The setting that names links to leave alone.
    pub key: String,
    /// What may stand between the names.
    pub between: Vec<char>,
    /// The setting that names all links that are not left alone, where there is one.
    pub only: Option<String>,
    /// What names them.
    pub names: Names,
    /// Whether a second line adds to the first; else the last one counts.
    #[serde(default)]
    pub adds: bool,
    /// What is left alone where nobody says anything.
    #[serde(default)]
    pub default: Vec<String>,
    /// Whether tunnels with one other end are left alone unless `only` or a block names them.
    #[serde(default)]
    pub spares_point_to_point: bool,
}

/// What names a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Names {
    /// `fnmatch(3)`.
    Globs,
    /// The beginning of the name.
    Beginnings,
}

impl Names {
    fn hold(self, word: &str, link: &str) -> bool {
        match self {
            Self::Globs => glob::Pattern::new(word).is_ok_and(|glob| glob.matches(link)),
            Self::Beginnings => link.starts_with(word),
        }
    }
}

impl Spares {
    /// What a configuration below `root`, which is `/` but for tests, means for guarded links.
    ///
    /// # Errors
    /// Those of reading the file, if it is there.
    pub fn look(&self, program: &str, root: &Path, guarded: &[Interface]) -> io::Result<Finding> {
        let all = self.settings(root)?;
        let is_block = |setting: &Setting| self.blocks.contains(&setting.key);
        let general = all.iter().position(is_block).unwrap_or(all.len());
        let (settings, blocks) = all.split_at(general);
        let has_block = |link: &str| blocks.iter().any(|s| is_block(s) && s.value == link);
        let (words, place) = self.value(settings, &self.key);
        let words = if place.is_some() { words } else { self.default.clone() };
        let only = self.only.as_ref().map(|key| self.value(settings, key));
        let named = |words: &[String], link: &str| words.iter().any(|word| self.names.hold(word, link));
        let is_only = only.as_ref().is_some_and(|(_, place)| place.is_some());
        let tunnel = |link: &Interface| self.spares_point_to_point && link.point_to_point && !is_only;
        let taken: Vec<&str> = guarded
            .iter()
            .filter(|link| !tunnel(link) || has_block(&link.name))
            .map(|link| link.name.as_str())
            .filter(|link| !named(&words, link))
            .filter(|link| !is_only || only.as_ref().is_some_and(|(only, _)| named(only, link)))
            .collect();
        let place = place.or_else(|| only.and_then(|(_, place)| place));
        if taken.is_empty() {
            return Ok(Finding::ok(format!("{program} leaves guarded links alone")).at(place));
        }
        let nobody = if place.is_none() {
            format!(", as {} has no {}", self.file.display(), self.key)
        } else {
            String::new()
        };
        let before = match &*self.blocks {
            [] => String::new(),
            blocks => format!(", before any line that begins with {}", blocks.join(" or ")),
        };
        let right = format!("{} in {}{before} would be right", self.key, self.file.display());
        Ok(Finding::wrong(
            format!("{program} takes guarded links for its own: {}{nobody}", taken.join(", ")),
            format!("it sets and removes their addresses and routes; {right}"),
        )
        .at(place))
    }

    fn settings(&self, root: &Path) -> io::Result<Vec<Setting>> {
        if !below(root, &self.file).exists() {
            return Ok(Vec::new());
        }
        let text = text(root, &self.file)?;
        if self.section.is_some() {
            return Ok(ini::parse_keyfile(&self.file, &text));
        }
        let lines = text.lines().enumerate().map(|(number, line)| {
            let line = line.trim();
            let (key, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let place = Place { file: self.file.clone(), line: number + 1, text: line.to_owned() };
            Setting { section: String::new(), key: key.to_owned(), value: value.trim().to_owned(), place }
        });
        Ok(lines.collect())
    }

    /// The words of a setting, and the last line that says it.
    fn value(&self, settings: &[Setting], key: &str) -> (Vec<String>, Option<Place>) {
        let section = self.section.as_deref().unwrap_or_default();
        let lines: Vec<&Setting> = settings.iter().filter(|s| s.section == section && s.key == key).collect();
        let counts = if self.adds { lines.as_slice() } else { &lines[lines.len().saturating_sub(1)..] };
        let words = counts.iter().flat_map(|s| s.value.split(&*self.between)).map(str::trim);
        (
            words.filter(|word| !word.is_empty()).map(str::to_owned).collect(),
            lines.last().map(|s| s.place.clone()),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::knowledge::{Level, programs};

    /// What is found of a program whose file says this, on a node with a bridge and a tunnel.
    fn found(program: &str, text: Option<&str>) -> Finding {
        let spares = programs().iter().find(|p| p.name == program).unwrap().spares.clone().unwrap();
        let root = tempfile::tempdir().unwrap();
        if let Some(text) = text {
            let file = below(root.path(), &spares.file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        let tunnel = |name| Interface { point_to_point: true, ..Interface::new(name, "ipip") };
        let guarded =
            [Interface::new("kube-bridge", "bridge"), Interface::new("vx-a", "vxlan"), tunnel("tun-a")];
        spares.look(program, root.path(), &guarded).unwrap()
    }

    #[test]
    fn dhcpcd_takes_all_links_but_those_that_are_denied_or_not_allowed() {
        let none = found("dhcpcd", None);
        assert_eq!(none.level, Level::Wrong);
        assert!(
            none.what.ends_with("kube-bridge, vx-a, as /etc/dhcpcd.conf has no denyinterfaces"),
            "{}",
            none.what
        );
        let one = found("dhcpcd", Some("hostname\n# denyinterfaces tun-*\n denyinterfaces kube-*,veth*\n"));
        assert_eq!(one.what, "dhcpcd takes guarded links for its own: vx-a");
        assert_eq!(one.place.unwrap().to_string(), "/etc/dhcpcd.conf:3 denyinterfaces kube-*,veth*");
        let late = "interface eth0\nstatic domain_name=x\ndenyinterfaces kube-*\n";
        assert_eq!(found("dhcpcd", Some(late)).level, Level::Wrong, "a line of eth0's own");
        let both = found("dhcpcd", Some("denyinterfaces kube-*\ndenyinterfaces vx-*\n"));
        assert_eq!((both.level, both.place.unwrap().line), (Level::Ok, 2));
        let named = found("dhcpcd", Some("denyinterfaces kube-* vx-*\ninterface tun-a\n"));
        assert_eq!(named.what, "dhcpcd takes guarded links for its own: tun-a");
        let allowed = found("dhcpcd", Some("allowinterfaces eth0 wlan*\n"));
        assert_eq!((allowed.level, allowed.place.unwrap().line), (Level::Ok, 1));
        let all = found("dhcpcd", Some("allowinterfaces *\n"));
        assert_eq!(all.what, "dhcpcd takes guarded links for its own: kube-bridge, vx-a, tun-a");
    }

    #[test]
    fn connman_takes_all_links_but_those_with_such_a_beginning() {
        assert_eq!(found("ConnMan", None).level, Level::Wrong);
        let right = "[General]\nNetworkInterfaceBlacklist=kube-bridge,vx-,tun-\n";
        assert_eq!(found("ConnMan", Some(right)).level, Level::Ok);
        let spaces = "[General]\nNetworkInterfaceBlacklist=kube-bridge vx- tun-\n";
        assert_eq!(found("ConnMan", Some(spaces)).level, Level::Wrong, "one name with spaces in it");
        let last = format!("{right}NetworkInterfaceBlacklist = veth\n");
        assert_eq!(found("ConnMan", Some(&last)).place.unwrap().line, 3);
        let elsewhere = "[Other]\nNetworkInterfaceBlacklist=kube-bridge,vx-,tun-\n";
        assert_eq!(found("ConnMan", Some(elsewhere)).level, Level::Wrong);
    }
}
