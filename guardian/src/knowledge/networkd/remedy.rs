//! What is wrong with a configuration of systemd-networkd on a node like this, and the files that put it right.
//!
//! Which settings hold against what was measured with the real program; what they do not hold against is said.

use std::path::Path;

use super::{Configuration, Interface, NetworkFile, Place, Said};
use crate::knowledge::{Advice, Effect, FileFix, FileState, Finding, Level};

/// `ManageForeignNextHops=` came with this version of systemd.
const KNOWS_NEXTHOPS: u32 = 256;
/// From this version on a restart does not take away addresses that it is going to set again.
const KEEPS_ADDRESSES: u32 = 257;

/// The switches of `networkd.conf`, and what they stand for.
const SWITCHES: [(&str, &str, u32); 3] = [
    ("ManageForeignRoutes", "routes that others made, on every link that it configures", 0),
    ("ManageForeignRoutingPolicyRules", "every policy rule that others made", 0),
    ("ManageForeignNextHops", "nexthop objects that others made", KNOWS_NEXTHOPS),
];

/// Looks at a configuration for a node whose `uplinks` carry guarded routes, and whose guarded links are, or will be,
/// like `guarded`. `patterns` are the names of the latter for a file. `version` is systemd's.
pub fn advise(
    configuration: &Configuration,
    root: &Path,
    version: u32,
    uplinks: &[Interface],
    guarded: &[Interface],
    patterns: &[String],
) -> Advice {
    let mut advice = Advice::default();
    links(configuration, guarded, &mut advice);
    let files = of_uplinks(configuration, uplinks, version, &mut advice);
    let manages = !files.is_empty();
    if manages {
        switches(configuration, version, &mut advice);
        write(root, version, &files, patterns, &mut advice);
    } else if !advice.findings.iter().any(|finding| finding.level > Level::Ok) {
        advice
            .findings
            .push(Finding::ok("no .network file is about the node's own interface or guarded links"));
    } else {
        write(root, version, &files, patterns, &mut advice);
    }
    overruled(&mut advice);
    advice
}

/// What is written is there, and it is no better: other files have the last word.
fn overruled(advice: &mut Advice) {
    let written = !advice.files.is_empty() && advice.files.iter().all(|file| file.state == FileState::Right);
    if written && advice.findings.iter().any(|finding| finding.level == Level::Wrong) {
        advice.findings.push(Finding::wrong(
            "the files of the remedy are there, and others have the last word",
            "they are named above: of .network files the first by name that matches counts, of settings the last; rename \
             or change them",
        ));
    }
}

/// Guarded links that it would configure.
fn links(configuration: &Configuration, guarded: &[Interface], advice: &mut Advice) {
    let mut told: Vec<(Option<Place>, Vec<String>, Vec<Place>)> = Vec::new();
    let of = |link| configuration.of(link).into_iter().map(move |(network, open)| (link, network, open));
    for (link, network, open) in guarded.iter().flat_map(of) {
        if network.is_unmanaged() {
            continue;
        }
        let place = network.match_line();
        match told.iter_mut().find(|(known, _, _)| *known == place) {
            Some((_, names, _)) => names.push(link.name.clone()),
            None => told.push((place, vec![link.name.clone()], open)),
        }
    }
    if told.is_empty() && !guarded.is_empty() {
        advice.findings.push(Finding::ok("no .network file configures a guarded link"));
    }
    for (place, names, open) in told {
        let condition = open.first().map(|place| format!(", if {} holds", place.text)).unwrap_or_default();
        advice.findings.push(
            Finding::wrong(
                format!("it configures guarded links: {}{condition}", names.join(", ")),
                "it takes off their addresses and routes, and pods out of the bridge: as soon as they are made, and at \
                 every restart",
            )
            .at(place),
        );
    }
}

/// What happens to the node's own interface; the files that configure it.
fn of_uplinks<'c>(
    configuration: &'c Configuration,
    uplinks: &[Interface],
    version: u32,
    advice: &mut Advice,
) -> Vec<&'c NetworkFile> {
    let mut files: Vec<&NetworkFile> = Vec::new();
    let of = |link| configuration.of(link).into_iter().map(move |(network, _)| (link, network));
    for (link, network) in uplinks.iter().flat_map(of) {
        if network.is_unmanaged() || files.iter().any(|known| known.path == network.path) {
            continue;
        }
        files.push(network);
        let keep = network.setting("Network", "KeepConfiguration");
        let keeps = keep.as_ref().is_some_and(|said| super::boolean(&said.value) == Some(true));
        let static_only = keep.as_ref().is_some_and(|said| said.value == "static") && !uses_dhcp(network);
        if keeps || static_only {
            advice.findings.push(Finding::ok(format!("{} keeps its addresses over a restart", link.name)));
        } else if version < KEEPS_ADDRESSES {
            let place = keep.and_then(|said| said.place).or_else(|| network.match_line());
            advice.findings.push(
                Finding::wrong(
                    format!("{} does not keep its addresses over a restart", link.name),
                    "the kernel drops the routes by it, and those that have its address for their source; \
                     KeepConfiguration=yes would be right",
                )
                .at(place),
            );
        }
        // The one is the default of the other (`network_verify` in `src/network/networkd-network.c`).
        let carrier = ["IgnoreCarrierLoss", "ConfigureWithoutCarrier"]
            .into_iter()
            .find_map(|key| network.setting("Network", key).filter(|said| !said.value.is_empty()));
        // A time is enough for a short loss.
        if carrier.as_ref().is_none_or(|said| super::boolean(&said.value) == Some(false)) {
            let place = carrier.and_then(|said| said.place).or_else(|| network.match_line());
            advice.findings.push(
                Finding::wrong(
                    format!("{} is set up anew when its carrier was lost", link.name),
                    "routes by it go with each loss of the carrier; IgnoreCarrierLoss=yes would be right",
                )
                .at(place),
            );
        }
    }
    files
}

/// The last value that parses counts (`config_parse_dhcp` in `src/network/networkd-dhcp-common.c`).
fn uses_dhcp(network: &NetworkFile) -> bool {
    let parsed = |value: &str| match value {
        "ipv4" | "ipv6" | "v4" | "v6" | "both" => Some(true),
        "none" => Some(false),
        other => super::boolean(other),
    };
    let mut lines = network.settings.iter().rev().filter(|s| s.section == "Network" && s.key == "DHCP");
    lines.find_map(|setting| parsed(&setting.value)).unwrap_or(false)
}

fn switches(configuration: &Configuration, version: u32, advice: &mut Advice) {
    for (key, what, since) in SWITCHES {
        if version < since {
            continue;
        }
        let Said { value, place } = configuration.switch(key, true);
        if value {
            let said = if place.is_some() { "is on" } else { "is on, as nobody says otherwise" };
            advice.findings.push(
                Finding::wrong(
                    format!("{key} {said}"),
                    format!("it removes {what}; {key}=no would be right"),
                )
                .at(place),
            );
        } else {
            advice.findings.push(Finding::ok(format!("{key} is off")).at(place));
        }
    }
}

fn write(root: &Path, version: u32, files: &[&NetworkFile], patterns: &[String], advice: &mut Advice) {
    advice.effect = Some(Effect {
        when: "It takes effect when systemd-networkd is restarted. Do that once while the guardian is running: what this \
               one restart still takes away comes back."
            .into(),
        command: "systemctl restart systemd-networkd".into(),
    });
    let owned = |lines: &[&str]| lines.iter().map(|&line| line.to_owned()).collect::<Vec<_>>();
    if !files.is_empty() {
        let mut lines = vec!["[Network]".to_owned()];
        lines.extend(
            SWITCHES.iter().filter(|(_, _, since)| version >= *since).map(|(key, ..)| format!("{key}=no")),
        );
        advice.files.push(FileFix::new(
            root,
            "/etc/systemd/networkd.conf.d/zz-route-guardian.conf",
            "leave what others have made",
            &lines,
        ));
    }
    let name = format!("Name={}", patterns.join(" "));
    advice.files.push(FileFix::new(
        root,
        "/etc/systemd/network/00-route-guardian.network",
        "leave guarded links alone",
        &owned(&["[Match]", &name, "[Link]", "Unmanaged=yes"]),
    ));
    for network in files {
        advice.files.push(FileFix::new(
            root,
            format!("/etc/systemd/network/{}.d/zz-route-guardian.conf", network.name()),
            format!("keep the node's own addresses ({})", network.path.display()),
            &owned(&["[Network]", "KeepConfiguration=yes", "IgnoreCarrierLoss=yes"]),
        ));
    }
    if version < KEEPS_ADDRESSES {
        for (event, what) in [
            ("`networkctl reconfigure` of the node's own interface", "routes by it"),
            ("`networkctl reload` after its file was changed", "routes by it"),
        ] {
            advice.not_prevented.push(format!("{event}: {what} are lost, and the guardian restores them"));
        }
    }
    advice.not_prevented.push(
        "`ip link set down` or `networkctl down`: routes are lost, and come back when the link is up".into(),
    );
    advice.not_prevented.push(
        "a lost carrier, where nexthop objects are used: the kernel itself drops those, and the guardian restores them"
            .into(),
    );
    if version < KNOWS_NEXTHOPS {
        advice.not_prevented.push(format!(
            "a restart, where groups of nexthop objects are used: systemd before {KNOWS_NEXTHOPS} has no setting that \
             keeps them, and the guardian restores them"
        ));
    }
    advice.not_prevented.push("a DHCP lease with another address".into());
}
