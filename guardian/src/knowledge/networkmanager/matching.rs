//! Lists of devices (NetworkManager.conf(5), "Device List Format"; `nm_match_spec_device` in `src/core/nm-core-utils.c`).

use crate::knowledge::{Place, ini::Setting, networkd::Interface};

/// Whether something holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Truth {
    Yes,
    No,
    /// It cannot be evaluated here.
    Unclear,
}

/// A list, with the line that each of its words comes from.
#[derive(Clone, Debug)]
pub(super) struct List {
    words: Vec<(String, Place)>,
    /// The last line that had a say.
    place: Place,
}

impl List {
    pub fn of(setting: &Setting) -> Self {
        let words = split(&setting.value).into_iter().map(|word| (word, setting.place.clone())).collect();
        Self { words, place: setting.place.clone() }
    }

    pub fn empty(setting: &Setting) -> Self {
        Self { words: Vec::new(), place: setting.place.clone() }
    }

    pub fn add(&mut self, setting: &Setting) {
        for (word, place) in Self::of(setting).words {
            if !self.words.iter().any(|(known, _)| *known == word) {
                self.words.push((word, place));
            }
        }
        self.place = setting.place.clone();
    }

    pub fn remove(&mut self, setting: &Setting) {
        let gone = split(&setting.value);
        self.words.retain(|(word, _)| !gone.contains(word));
        self.place = setting.place.clone();
    }

    /// Whether it is about a link, and the line that decides it.
    pub fn matches(&self, link: &Interface) -> (Truth, Place) {
        let (exceptions, others): (Vec<_>, Vec<_>) = self
            .words
            .iter()
            .map(|(word, place)| match without_tag(word, "except:") {
                Some(rest) => (true, rest, place),
                None => (false, word.as_str(), place),
            })
            .partition(|(except, ..)| *except);
        let any = |words: &[(bool, &str, &Place)]| {
            let mut found = (Truth::No, self.place.clone());
            for (except, word, place) in words {
                match word_matches(word, !except, link) {
                    Truth::Yes => return (Truth::Yes, (*place).clone()),
                    Truth::Unclear => found = (Truth::Unclear, (*place).clone()),
                    Truth::No => {}
                }
            }
            found
        };
        let (excepted, exception) = any(&exceptions);
        let (mut matched, place) = any(&others);
        // Where there are exceptions only, they are those to everything.
        if others.is_empty() && !exceptions.is_empty() {
            matched = Truth::Yes;
        }
        match (excepted, matched) {
            (Truth::Yes, _) => (Truth::No, exception),
            (_, Truth::No) => (Truth::No, place),
            (Truth::Unclear, _) => (Truth::Unclear, exception),
            (Truth::No, matched) => (matched, place),
        }
    }
}

/// One word. Without a tag it is a name or a hardware address, which an exception may not be (`match_device_eval`).
fn word_matches(word: &str, bare: bool, link: &Interface) -> Truth {
    let truth = |holds| if holds { Truth::Yes } else { Truth::No };
    let mac = |text: &str| match &link.mac {
        Some(mac) => truth(mac.eq_ignore_ascii_case(text)),
        None => Truth::Unclear,
    };
    if word == "*" {
        return Truth::Yes;
    }
    if let Some(name) = without_tag(word, "interface-name:") {
        let pattern = name.strip_prefix('~').unwrap_or(name);
        let literally = name.strip_prefix('=');
        return truth(
            literally
                .map_or_else(|| fits(pattern.as_bytes(), link.name.as_bytes()), |name| name == link.name),
        );
    }
    if let Some(kind) = without_tag(word, "type:") {
        return device_type(link).map_or(Truth::Unclear, |of_link| truth(kind == of_link));
    }
    if let Some(address) = without_tag(word, "mac:") {
        return mac(address);
    }
    if ["driver:", "s390-subchannels:", "dhcp-plugin:"].iter().any(|tag| without_tag(word, tag).is_some()) {
        return Truth::Unclear;
    }
    match (bare, word == link.name) {
        (true, true) => Truth::Yes,
        // A hardware address is the only other thing that it may be.
        (true, false) if word.contains(':') => mac(word),
        _ => Truth::No,
    }
}

/// What it calls a link of a kind (`nmcli -f GENERAL.TYPE device show`).
fn device_type(link: &Interface) -> Option<&str> {
    match link.kind.as_deref()? {
        kind @ ("bridge" | "bond" | "dummy" | "vlan" | "vxlan" | "wireguard" | "tun") => Some(kind),
        "veth" => Some("ethernet"),
        "ipip" | "sit" | "gre" | "ip6tnl" => Some("iptunnel"),
        _ => None,
    }
}

fn without_tag<'w>(word: &'w str, tag: &str) -> Option<&'w str> {
    let start = word.get(..tag.len())?;
    start.eq_ignore_ascii_case(tag).then(|| &word[tag.len()..])
}

/// `*` and `?`, and nothing else (`g_pattern_match_simple`).
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // After the last star: where the pattern goes on, and how much of the text the star stands for so far.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                p += 1;
                star = Some((p, t));
            }
            Some(&c) if c == b'?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((after, taken)) = star else { return false };
                star = Some((after, taken + 1));
                (p, t) = (after, taken + 1);
            }
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

/// The words of a list (`nm_match_spec_split`): commas and semicolons part them, a backslash takes that from them.
fn split(value: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    // How much of it is no white space that may be trimmed.
    let mut solid = 0;
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            ',' | ';' => {
                word.truncate(solid);
                words.push(std::mem::take(&mut word));
                solid = 0;
                continue;
            }
            '\\' => match chars.next() {
                Some('s') => word.push(' '),
                Some('n') => word.push('\n'),
                Some('t') => word.push('\t'),
                Some('r') => word.push('\r'),
                Some(c @ ('\\' | ',' | ';')) => word.push(c),
                Some(other) => word.extend(['\\', other]),
                None => break,
            },
            c if c.is_ascii_whitespace() => {
                if !word.is_empty() {
                    word.push(c);
                }
                continue;
            }
            c => word.push(c),
        }
        solid = word.len();
    }
    word.truncate(solid);
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}
