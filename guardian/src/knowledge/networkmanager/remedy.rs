//! What is wrong with a configuration of `NetworkManager` on a node, and the file that puts it right.

use std::path::Path;

use super::{Configuration, Fate, Interface, Place};
use crate::knowledge::{Advice, Effect, FileFix, Finding};

/// The file: late by its name, as one that is later and sets the list takes back what was added to it before.
const FILE: &str = "/etc/NetworkManager/conf.d/zz-route-guardian.conf";

/// Looks at a configuration for a node whose guarded links are, or will be, like `guarded`. `patterns` are their names
/// for a file.
pub fn advise(
    configuration: &Configuration,
    root: &Path,
    guarded: &[Interface],
    patterns: &[String],
) -> Advice {
    let mut advice = Advice::default();
    let mut managed: Vec<(Option<Place>, bool, Vec<&str>)> = Vec::new();
    let mut left: Vec<&str> = Vec::new();
    for link in guarded {
        let (place, sure) = match configuration.fate(link) {
            Fate::Left(_) => {
                left.push(&link.name);
                continue;
            }
            Fate::Managed(place) => (place, true),
            Fate::Unclear(place) => (Some(place), false),
        };
        match managed.iter_mut().find(|(known, of, _)| (known, *of) == (&place, sure)) {
            Some((.., names)) => names.push(&link.name),
            None => managed.push((place, sure, vec![&link.name])),
        }
    }
    if !left.is_empty() {
        advice.findings.push(Finding::ok(format!("it leaves alone: {}", left.join(", "))));
    }
    for (place, sure, names) in &managed {
        let what = match (place, sure) {
            (None, _) => ", as nobody says otherwise",
            (Some(_), true) => ", by what this line says, or lacks",
            (Some(_), false) => ", unless this line is about them, which cannot be told here",
        };
        advice.findings.push(
            Finding::wrong(
                format!("it manages guarded links: {}{what}", names.join(", ")),
                "it takes them down, with all their addresses and routes, when it is told to disconnect them or to \
                 switch networking off, and sets them up anew by any profile that fits; a tunnel without an address \
                 it leaves alone until it has one",
            )
            .at(place.clone()),
        );
    }
    for place in &configuration.conditions {
        advice.findings.push(
            Finding::warn("whether it reads this file cannot be told here", "it is taken for read")
                .at(Some(place.clone())),
        );
    }
    let file = FileFix::new(root, FILE, "leave guarded links alone", &lines(patterns));
    if managed.is_empty() && file.state == crate::knowledge::FileState::Absent {
        return advice;
    }
    advice.files.push(file);
    advice.not_prevented.push(
        "NetworkManager activating the node's own interface anew: routes by it are lost, and the guardian restores them"
            .into(),
    );
    advice.effect = Some(Effect {
        when: "NetworkManager lets go of these links when it reads its configuration again.".into(),
        command: "nmcli general reload conf".into(),
    });
    advice
}

fn lines(patterns: &[String]) -> Vec<String> {
    let words: Vec<_> = patterns.iter().map(|pattern| format!("interface-name:{}", plain(pattern))).collect();
    vec!["[keyfile]".to_owned(), format!("unmanaged-devices+={}", words.join(";"))]
}

/// A pattern as it knows it: there are no sets of characters.
fn plain(pattern: &str) -> String {
    let mut plain = String::new();
    let mut rest = pattern;
    while let Some((before, set)) = rest.split_once('[') {
        let Some((_, after)) = set.split_once(']') else { break };
        plain += before;
        plain.push('?');
        rest = after;
    }
    plain + rest
}
