//! Whether a `[Match]` section is about a link (systemd.link(5), `net_match_config` in `src/libsystemd-network`).

use glob::Pattern;

use crate::knowledge::{Place, ini::Setting};

/// What is known of a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// `IFLA_INFO_KIND`.
    pub kind: Option<String>,
    /// Its hardware address, in hexadecimal with colons.
    pub mac: Option<String>,
    /// Whether it is a tunnel with one other end (`IFF_POINTOPOINT`).
    pub point_to_point: bool,
}

impl Interface {
    /// A link of a kind.
    pub fn new(name: impl Into<String>, kind: &str) -> Self {
        Self { name: name.into(), kind: Some(kind.to_owned()), mac: None, point_to_point: false }
    }

    /// What `Type=` is compared with: udev's `DEVTYPE`, which is the kind of these, else the type of the hardware
    /// (`net_get_type_string`).
    fn device_type(&self) -> &str {
        match self.kind.as_deref() {
            Some(kind @ ("bridge" | "bond" | "vlan" | "vxlan" | "wireguard" | "geneve")) => kind,
            Some("ipip") => "tunnel",
            Some("ip6tnl") => "tunnel6",
            Some("sit") => "sit",
            Some("gre") => "ipgre",
            Some("tun") => "none",
            _ if self.name == "lo" => "loopback",
            _ => "ether",
        }
    }
}

/// Whether a section matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Matches {
    /// It does.
    Yes,
    /// It does, if these hold, which cannot be evaluated here.
    Perhaps(Vec<Place>),
    /// It does not.
    No,
}

/// The `[Match]` section of a file against a link. One without any condition matches nothing.
pub(super) fn matches(settings: &[Setting], link: &Interface) -> Matches {
    let mut conditions: Vec<(&str, Vec<&Setting>)> = Vec::new();
    for setting in settings.iter().filter(|s| s.section == "Match") {
        if !conditions.iter().any(|(key, _)| *key == setting.key) {
            conditions.push((&setting.key, Vec::new()));
        }
        for (_, of_key) in conditions.iter_mut().filter(|(key, _)| *key == setting.key) {
            // An empty one takes back what was said before.
            if setting.value.is_empty() { of_key.clear() } else { of_key.push(setting) }
        }
    }
    conditions.retain(|(_, settings)| !settings.is_empty());
    if conditions.is_empty() {
        return Matches::No;
    }
    let mut open = Vec::new();
    for (key, settings) in conditions {
        let text = match key {
            "Name" => Some(link.name.as_str()),
            "Type" => Some(link.device_type()),
            // Of a link without a kind the comparison is with nothing.
            "Kind" => Some(link.kind.as_deref().unwrap_or_default()),
            "MACAddress" => link.mac.as_deref(),
            _ => None,
        };
        let Some(text) = text else {
            open.extend(settings.first().map(|setting| setting.place.clone()));
            continue;
        };
        let holds = list_matches(&patterns(&settings), text, key == "MACAddress");
        if !holds {
            return Matches::No;
        }
    }
    if open.is_empty() { Matches::Yes } else { Matches::Perhaps(open) }
}

/// The patterns of a key; where a list begins with `!`, each of its words is turned round.
fn patterns(settings: &[&Setting]) -> Vec<(bool, String)> {
    settings
        .iter()
        .flat_map(|setting| {
            let (inverted, list) = match setting.value.strip_prefix('!') {
                Some(rest) => (true, rest),
                None => (false, setting.value.as_str()),
            };
            list.split_whitespace()
                .map(move |word| (inverted, word.trim_matches('"').to_owned()))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// `net_condition_test_strv`: none of the words that are turned round, and one of the others where there are any.
fn list_matches(patterns: &[(bool, String)], text: &str, ignore_case: bool) -> bool {
    let options = glob::MatchOptions { case_sensitive: !ignore_case, ..glob::MatchOptions::new() };
    let fits = |word: &str| match Pattern::new(word) {
        Ok(pattern) => pattern.matches_with(text, options),
        Err(_) => word == text,
    };
    let mut positive = patterns.iter().filter(|(inverted, _)| !inverted).peekable();
    let any = positive.peek().is_none() || positive.any(|(_, word)| fits(word));
    any && !patterns.iter().any(|(inverted, word)| *inverted && fits(word))
}
