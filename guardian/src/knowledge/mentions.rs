//! Programs that act on the links that their configuration names: guarded links that it names, and where.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    Finding, Place,
    folders::{below, named, text},
    networkd::Interface,
};

/// Where links are named, and what for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mentions {
    /// The files.
    pub files: Vec<PathBuf>,
    /// Folders whose files are read besides.
    #[serde(default)]
    pub folders: Vec<PathBuf>,
    /// What the names of files in these folders end with.
    #[serde(default)]
    pub suffix: String,
    /// What a comment begins with, to the end of the line.
    #[serde(default)]
    pub comments: Vec<char>,
    /// What the program does to a link that it names.
    pub effect: String,
}

impl Mentions {
    /// What a configuration below `root`, which is `/` but for tests, says of guarded links: a finding for each line
    /// that names any.
    ///
    /// # Errors
    /// Those of reading the files that are there.
    pub fn look(&self, program: &str, root: &Path, guarded: &[Interface]) -> io::Result<Vec<Finding>> {
        let mut findings = Vec::new();
        for file in self.there(root)? {
            let text = text(root, &file)?;
            for (number, line) in text.lines().enumerate() {
                let said = line.split(&*self.comments).next().unwrap_or_default();
                let names: BTreeSet<&str> = words(said).filter(|word| is_guarded(word, guarded)).collect();
                if names.is_empty() {
                    continue;
                }
                let names = names.into_iter().collect::<Vec<_>>().join(", ");
                let place = Place { file: file.clone(), line: number + 1, text: line.trim().to_owned() };
                let finding = Finding::wrong(
                    format!("{program} is told of {names}"),
                    format!("{}; take it out of there", self.effect),
                );
                findings.push(finding.at(Some(place)));
            }
        }
        Ok(findings)
    }

    fn there(&self, root: &Path) -> io::Result<Vec<PathBuf>> {
        let mut files: Vec<PathBuf> =
            self.files.iter().filter(|file| below(root, file).is_file()).cloned().collect();
        for folder in &self.folders {
            files.extend(named(root, std::slice::from_ref(folder), "", &self.suffix)?.into_values());
        }
        Ok(files)
    }
}

/// What can be the name of a link.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')))
}

/// Whether a word names a guarded link. (`.` and a number behind it make a VLAN on it.)
fn is_guarded(word: &str, guarded: &[Interface]) -> bool {
    guarded.iter().any(|link| word == link.name)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::knowledge::programs;

    /// What is found of a program whose file says this, on a node with a bridge and a tunnel: the lines.
    fn found(program: &str, file: &str, text: &str) -> Vec<String> {
        let mentions = programs().iter().find(|p| p.name == program).unwrap().mentions.clone().unwrap();
        let root = tempfile::tempdir().unwrap();
        let path = below(root.path(), Path::new(file));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        let guarded = [Interface::new("kube-bridge", "bridge"), Interface::new("tun-a", "ipip")];
        let findings = mentions.look(program, root.path(), &guarded).unwrap();
        findings
            .iter()
            .map(|finding| format!("{} {}", finding.what, finding.place.as_ref().unwrap()))
            .collect()
    }

    #[test]
    fn each_is_read_where_it_reads_itself() {
        let line = "ifupdown is told of kube-bridge /etc/network/interfaces.d/x:2 auto kube-bridge";
        assert_eq!(
            found("ifupdown", "/etc/network/interfaces.d/x", "# kube-bridge\nauto kube-bridge\n"),
            [line]
        );
        for (program, file, text) in [
            ("ifupdown", "/etc/network/interfaces", "iface tun-a inet manual\n"),
            (
                "keepalived",
                "/etc/keepalived/keepalived.conf",
                "virtual_ipaddress { 10.0.0.1 dev kube-bridge }\n",
            ),
            ("Docker", "/etc/docker/daemon.json", "{\"bridge\": \"kube-bridge\"}\n"),
            (
                "netplan",
                "/etc/netplan/50-x.yaml",
                "network:\n  bridges:\n    kube-bridge:\n      dhcp4: no\n",
            ),
            ("cloud-init", "/etc/cloud/cloud.cfg.d/50-net.cfg", "  - name: kube-bridge\n"),
            ("BIRD", "/etc/bird/bird.conf", "protocol direct { interface \"kube-bridge\"; }\n"),
            ("FRR", "/etc/frr/frr.conf", "interface tun-a\n ip address 10.9.0.1/24\n"),
            ("dhclient", "/etc/dhcp/dhclient.conf", "interface \"tun-a\" { send host-name \"x\"; }\n"),
        ] {
            assert_eq!(found(program, file, text).len(), 1, "{program}");
        }
    }

    #[test]
    fn others_and_comments_are_passed_over() {
        assert!(found("ifupdown", "/etc/network/interfaces", "auto eth0 # not kube-bridge\n").is_empty());
        assert!(found("ifupdown", "/etc/network/interfaces", "auto kube-bridge2 xtun-a\n").is_empty());
        assert!(found("FRR", "/etc/frr/frr.conf", "! interface tun-a\n").is_empty());
        assert!(found("netplan", "/etc/netplan/50-x.yaml.off", "kube-bridge\n").is_empty());
    }
}
