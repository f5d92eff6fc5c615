//! `doctor`: trouble found before it strikes, and the files that prevent it.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use super::{
    Ended,
    args::{DoctorArgs, Output as Form},
    ask,
    output::{Output, print_now},
    privileges,
};
use crate::{
    config::Config,
    knowledge::{
        self, Advice, Finding, Level,
        networkd::{self, Interface},
        networkmanager,
    },
    model::{ActorClass, Link, Object, record::ActorRecord, route::rt},
    netlink::dump,
    procfs,
    sensor::is_optional,
    surface::{
        client::{self, ClientError},
        protocol::{Reply, Request},
        report::{Diagnosis, FindingGroup, StatusReport},
        text,
    },
};

/// Programs whose configuration is read, by the name by which they are known.
const NETWORKD: &str = "systemd-networkd";
const NETWORKMANAGER: &str = "NetworkManager";

/// The table of the default route.
const MAIN: u32 = 254;

/// Where services are enabled.
const ENABLED: [&str; 2] =
    ["etc/systemd/system/multi-user.target.wants", "usr/lib/systemd/system/multi-user.target.wants"];

pub(super) fn doctor(args: &DoctorArgs, config: &Config, output: &Output) -> anyhow::Result<Ended> {
    let root = args.root.clone().unwrap_or_else(|| PathBuf::from("/"));
    let diagnosis = diagnose(config, &root)?;
    if args.fix && args.yes {
        return write(&diagnosis, args.output, output);
    }
    match (args.output, args.fix) {
        (Form::Json, _) => print_now(&ask::json(&diagnosis)?)?,
        (Form::Text, false) => output.print(&text::doctor(&output.style, &diagnosis))?,
        (Form::Text, true) => output.print(&text::remedies(&output.style, &diagnosis))?,
    }
    Ok(if diagnosis.is_well() { Ended::Well } else { Ended::Not })
}

/// Writes what can be written; that something could not be is an error at the end.
fn write(diagnosis: &Diagnosis, form: Form, output: &Output) -> anyhow::Result<Ended> {
    let mut written = Vec::new();
    let mut left = Vec::new();
    for file in &diagnosis.files {
        match file.write() {
            Ok(true) => written.push(file.path.clone()),
            Ok(false) => {}
            Err(error) => left.push(error.to_string()),
        }
    }
    match form {
        Form::Json => print_now(&ask::json(&serde_json::json!({ "written": written, "left": left }))?)?,
        Form::Text if written.is_empty() => {
            if left.is_empty() {
                print_now("Nothing was to be written.\n")?;
            }
        }
        Form::Text => {
            let lines: Vec<String> =
                written.iter().map(|path| format!("written: {}", path.display())).collect();
            print_now(&(lines.join("\n") + "\n" + &text::limits(&output.style, diagnosis)))?;
        }
    }
    if left.is_empty() { Ok(Ended::Well) } else { bail!("{}", left.join("\n")) }
}

/// What is set on this node that lets such a program do what it did, and what would put that right.
pub(super) fn at_fault(config: &Config, actor: &ActorRecord) -> anyhow::Result<Advice> {
    let class = actor.class;
    let known = knowledge::find(actor);
    let read = known.filter(|program| program.spares.is_some() || program.mentions.is_some());
    if !matches!(class, ActorClass::Networkd | ActorClass::NetworkManager) && read.is_none() {
        return Ok(Advice::default());
    }
    let state = dump()?;
    let links = links(&state.objects);
    let (root, guarded) = (Path::new("/"), guarded(config, &links));
    if let Some(program) = read {
        let mut findings = program.look(root, &guarded)?;
        findings.retain(|finding| finding.level == Level::Wrong);
        return Ok(Advice { findings, ..Advice::default() });
    }
    let running = running();
    let (_, mut advice) = if class == ActorClass::Networkd {
        of_networkd(root, &running, &uplinks(config, &state.objects, &links), &guarded, config)
    } else {
        of_networkmanager(root, &running, &guarded, config)
    };
    advice.findings.retain(|finding| finding.level == Level::Wrong);
    Ok(advice)
}

fn links(objects: &[Object]) -> Vec<&Link> {
    objects.iter().filter_map(|o| if let Object::Link(link) = o { Some(link) } else { None }).collect()
}

fn diagnose(config: &Config, root: &Path) -> anyhow::Result<Diagnosis> {
    let status = match client::ask(&config.control.socket, &Request::Status) {
        Ok(replies) => match replies.one()? {
            Reply::Status(status) => Ok(*status),
            _ => return ask::unfit(),
        },
        Err(error @ (ClientError::NotRunning(_) | ClientError::Denied(_))) => Err(error),
        Err(error) => return Err(error.into()),
    };
    let state = dump().context("cannot look at this network namespace")?;
    let links = links(&state.objects);
    let running = running();
    let mut groups = vec![
        group("kernel", kernel()),
        group("privileges", rights(config)),
        group("guardian", guardian(&status)),
    ];
    let (uplinks, guarded) = (uplinks(config, &state.objects, &links), guarded(config, &links));
    let (findings, networkd) = of_networkd(root, &running, &uplinks, &guarded, config);
    groups.push(group(NETWORKD, findings));
    let (findings, networkmanager) = of_networkmanager(root, &running, &guarded, config);
    groups.push(group(NETWORKMANAGER, findings));
    groups.push(group("other programs", others(root, &running, &guarded)));
    let advices = [networkd, networkmanager];
    Ok(Diagnosis {
        groups,
        not_prevented: advices.iter().flat_map(|advice| advice.not_prevented.clone()).collect(),
        effects: advices.iter().filter_map(|advice| advice.effect.clone()).collect(),
        files: advices.into_iter().flat_map(|advice| advice.files).collect(),
    })
}

fn group(name: &str, findings: Vec<Finding>) -> FindingGroup {
    FindingGroup { name: name.to_owned(), findings }
}

fn kernel() -> Vec<Finding> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let release = read("/proc/sys/kernel/osrelease");
    let mut findings = vec![Finding::ok(format!("Linux {}", release.trim()))];
    findings.push(if Path::new("/sys/kernel/btf/vmlinux").exists() {
        Finding::ok("it tells of its own types (BTF)")
    } else {
        Finding::warn(
            "it does not tell of its own types (/sys/kernel/btf/vmlinux is missing)",
            "actors are named in part only: a kernel with CONFIG_DEBUG_INFO_BTF would be right",
        )
    });
    if read("/sys/kernel/security/lockdown").contains("[confidentiality]") {
        findings.push(Finding::warn(
            "it is locked down for confidentiality",
            "BPF programs may not read its memory: actors are named in part only",
        ));
    }
    findings
}

fn rights(config: &Config) -> Vec<Finding> {
    let Some(held) = privileges::Capabilities::effective() else {
        return vec![Finding::warn("cannot read the capabilities of this process", "is /proc mounted?")];
    };
    match privileges::check(held, config.mode, false) {
        Ok(warnings) if warnings.is_empty() => {
            vec![Finding::ok("whoever asks could start the guardian with all that it wants")]
        }
        Ok(warnings) => {
            warnings.into_iter().map(|warning| Finding::warn(warning, "run it as root")).collect()
        }
        Err(missing) => vec![Finding::warn(
            "whoever asks could not start the guardian, and does not see all of other processes",
            missing.to_string(),
        )],
    }
}

fn guardian(status: &Result<StatusReport, ClientError>) -> Vec<Finding> {
    let status = match status {
        Ok(status) => status,
        Err(error @ ClientError::Denied(_)) => {
            return vec![Finding::warn(error.to_string(), "its sensors are not looked at")];
        }
        Err(error) => return vec![Finding::wrong(error.to_string(), "nothing is restored; start it")],
    };
    let mut findings = vec![if status.mode == crate::config::Mode::Observe {
        Finding::warn("it only observes", "nothing is restored; --mode restore would")
    } else {
        Finding::ok(format!("version {}, profile {}", status.version, status.profile))
    }];
    for sensor in &status.sensors {
        let why = sensor.why.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
        findings.push(if sensor.attached {
            Finding::ok(format!("sensor {}{why}", sensor.name))
        } else if is_optional(&sensor.name) {
            Finding::ok(format!("without sensor {}, which another stands in for{why}", sensor.name))
        } else {
            Finding::wrong(
                format!("sensor {} is not attached{why}", sensor.name),
                "answers are less complete",
            )
        });
    }
    findings.extend(status.held.iter().map(|held| {
        Finding::wrong(
            format!("{} is missing, and held back: {}", held.object.text, held.why),
            "see `status`",
        )
    }));
    findings
}

/// Programs that are known to undo routes and run in this network namespace: path and pid, by name.
fn running() -> BTreeMap<&'static str, (String, u32)> {
    procfs::here(|exe| knowledge::by_executable(exe).is_some())
        .filter_map(|process| {
            let exe = process.exe?;
            let program = knowledge::by_executable(&exe)?;
            Some((program.name.as_str(), (exe, process.id.tgid)))
        })
        .collect()
}

/// Links outside the scope by which guarded routes leave, or the default route does.
fn uplinks(config: &Config, objects: &[Object], links: &[&Link]) -> Vec<Interface> {
    let routes = objects.iter().filter_map(Object::route).filter(|route| {
        let default = route.key.dst.len() == 0 && route.key.table == MAIN && route.kind == rt::RTN_UNICAST;
        default || config.scope.protocols.contains(&route.protocol)
    });
    let mut indexes: Vec<u32> = routes.flat_map(|route| route.oifs().collect::<Vec<_>>()).collect();
    indexes.sort_unstable();
    indexes.dedup();
    let of = |index: &u32| links.iter().find(|link| link.index == *index);
    let ours = |link: &Link| config.scope.links.iter().any(|glob| matches(glob, &link.name));
    indexes.iter().filter_map(of).filter(|link| !ours(link)).map(|link| interface(link)).collect()
}

/// The links in scope that are there, or will be: an example for each name in the configuration, and pods' cables.
fn guarded(config: &Config, links: &[&Link]) -> Vec<Interface> {
    let mut all: Vec<Interface> = Vec::new();
    for glob in config.scope.links.iter().map(String::as_str).chain(["veth*"]) {
        let there: Vec<Interface> =
            links.iter().filter(|link| matches(glob, &link.name)).map(|link| interface(link)).collect();
        if there.is_empty() {
            let name = example(glob);
            let kind = likely_kind(&name);
            all.push(Interface::new(name, kind));
        }
        // One pod's cable is like another's.
        let most = if glob == "veth*" { 1 } else { usize::MAX };
        all.extend(there.into_iter().take(most));
    }
    all.dedup();
    all
}

fn matches(glob: &str, name: &str) -> bool {
    glob::Pattern::new(glob).is_ok_and(|pattern| pattern.matches(name))
}

fn interface(link: &Link) -> Interface {
    let address = link.attributes.iter().find(|a| a.number() == crate::model::link::ifla::ADDRESS);
    let mac = address.map(|a| a.value.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":"));
    Interface {
        name: link.name.clone(),
        kind: link.kind.as_deref().map(str::to_owned),
        mac,
        point_to_point: link.is_point_to_point(),
    }
}

/// A name that a glob matches.
fn example(glob: &str) -> String {
    let mut name = String::new();
    let mut rest = glob.chars();
    while let Some(c) = rest.next() {
        match c {
            '*' => name.push_str("0123456"),
            '?' => name.push('0'),
            '[' => {
                name.extend(rest.next());
                let _ = rest.find(|&c| c == ']');
            }
            other => name.push(other),
        }
    }
    name
}

/// What kind of link goes by such a name, with the CNIs of the built-in profiles.
fn likely_kind(name: &str) -> &'static str {
    const KINDS: [(&str, &str); 8] = [
        ("flannel-wg", "wireguard"),
        ("tun", "ipip"),
        ("veth", "veth"),
        ("cali", "veth"),
        ("flannel", "vxlan"),
        ("vxlan", "vxlan"),
        ("kube-dummy", "dummy"),
        ("wireguard", "wireguard"),
    ];
    KINDS.iter().find(|(start, _)| name.starts_with(start)).map_or("bridge", |(_, kind)| *kind)
}

fn of_networkd(
    root: &Path,
    running: &BTreeMap<&str, (String, u32)>,
    uplinks: &[Interface],
    guarded: &[Interface],
    config: &Config,
) -> (Vec<Finding>, Advice) {
    let process = running.get(NETWORKD);
    let enabled = is_enabled(root, NETWORKD);
    if process.is_none() && !enabled && root == Path::new("/") {
        return (vec![Finding::ok("neither running nor enabled")], Advice::default());
    }
    let version = version();
    let shown = version.map(|version| version.to_string());
    let mut findings = vec![presence(process, enabled, shown.as_deref())];
    let configuration = match networkd::Configuration::read(root) {
        Ok(configuration) => configuration,
        Err(error) => {
            findings.push(unreadable(&error));
            return (findings, Advice::default());
        }
    };
    // Of an unknown version nothing is taken for granted.
    let advice =
        networkd::advise(&configuration, root, version.unwrap_or(0), uplinks, guarded, &patterns(config));
    findings.extend(advice.findings.iter().cloned());
    (findings, advice)
}

fn of_networkmanager(
    root: &Path,
    running: &BTreeMap<&str, (String, u32)>,
    guarded: &[Interface],
    config: &Config,
) -> (Vec<Finding>, Advice) {
    let process = running.get(NETWORKMANAGER);
    let enabled = is_enabled(root, NETWORKMANAGER);
    // Of another root folder it is not known what runs there.
    let elsewhere = root != Path::new("/") && root.join("etc/NetworkManager").exists();
    if process.is_none() && !enabled && !elsewhere {
        return (vec![Finding::ok("neither running nor enabled")], Advice::default());
    }
    let mut findings = vec![presence(process, enabled, networkmanager_version().as_deref())];
    let configuration = match networkmanager::Configuration::read(root) {
        Ok(configuration) => configuration,
        Err(error) => {
            findings.push(unreadable(&error));
            return (findings, Advice::default());
        }
    };
    let advice = networkmanager::advise(&configuration, root, guarded, &patterns(config));
    findings.extend(advice.findings.iter().cloned());
    (findings, advice)
}

/// That nothing can be said: as bad as if it were wrong.
fn unreadable(error: &io::Error) -> Finding {
    Finding::wrong(format!("its configuration: {error}"), "what it will do is not known; run this as root")
}

/// Names of guarded links for the files of others, pods' cables among them.
fn patterns(config: &Config) -> Vec<String> {
    let mut patterns = config.scope.links.clone();
    if !patterns.iter().any(|pattern| pattern == "veth*") {
        patterns.push("veth*".into());
    }
    patterns
}

fn is_enabled(root: &Path, service: &str) -> bool {
    ENABLED
        .iter()
        .any(|folder| root.join(folder).join(format!("{service}.service")).symlink_metadata().is_ok())
}

/// What is there of a program: what runs, and what is installed.
fn presence(process: Option<&(String, u32)>, enabled: bool, version: Option<&str>) -> Finding {
    let shown =
        version.map_or_else(|| "of an unknown version".to_owned(), |version| format!("version {version}"));
    match process {
        Some((exe, pid)) if exe.ends_with(" (deleted)") => Finding::warn(
            format!(
                "running as pid {pid}, and another version{} is installed already",
                version.map(|version| format!(" ({version})")).unwrap_or_default()
            ),
            "it will be restarted, by hand or by the next upgrade; see below what that costs",
        ),
        Some((_, pid)) => Finding::ok(format!("{shown}, running as pid {pid}")),
        None if enabled => Finding::warn(
            format!("{shown}, enabled and not running"),
            "it will be started with the next boot at the latest; see below what that costs",
        ),
        None => Finding::ok(shown),
    }
}

/// The version of `NetworkManager` that is installed.
fn networkmanager_version() -> Option<String> {
    let output = Command::new("NetworkManager").arg("--version").output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned()).filter(|version| !version.is_empty())
}

/// The version of systemd that is installed.
fn version() -> Option<u32> {
    let output = Command::new("networkctl").arg("--version").output().ok()?;
    // "systemd 252 (252.39-1~deb12u2)", with dots in newer ones.
    String::from_utf8_lossy(&output.stdout).split([' ', '.', '~', '-']).nth(1)?.parse().ok()
}

fn others(root: &Path, running: &BTreeMap<&str, (String, u32)>, guarded: &[Interface]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for program in knowledge::programs() {
        if [NETWORKD, NETWORKMANAGER, "kube-router", "iproute2"].contains(&&*program.name) {
            continue;
        }
        let runs = running.get(&*program.name);
        // What one setting tells matters when it runs; that a link is named, also when it is run next.
        let read = match (runs, &program.mentions) {
            (None, None) => continue,
            _ => program.look(root, guarded).unwrap_or_else(|error| vec![unreadable(&error)]),
        };
        let spared = program.spares.is_some() && read.iter().all(|finding| finding.level == Level::Ok);
        if let Some((_, pid)) = runs.filter(|_| !spared) {
            findings.push(Finding::warn(
                format!("{} is running (pid {pid})", program.name),
                format!("{} {}", program.why, program.how),
            ));
        }
        findings.extend(read);
    }
    if findings.is_empty() {
        findings.push(Finding::ok("none that is known to undo routes is running"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_told_where_it_is_known() {
        let runs = ("/lib/systemd/systemd-networkd".to_owned(), 7);
        let replaced = (format!("{} (deleted)", runs.0), 7);
        let what = |process, version| presence(process, true, version).what;
        assert_eq!(what(Some(&runs), Some("252")), "version 252, running as pid 7");
        assert_eq!(what(Some(&runs), None), "of an unknown version, running as pid 7");
        assert_eq!(what(None, None), "of an unknown version, enabled and not running");
        let said = "running as pid 7, and another version (257) is installed already";
        assert_eq!(what(Some(&replaced), Some("257")), said);
    }

    #[test]
    fn an_example_is_matched_by_its_glob() {
        for glob in ["kube-bridge", "tun-*", "tun[12]???????????", "veth*", "cali*"] {
            let name = example(glob);
            assert!(matches(glob, &name), "{glob}: {name}");
            assert!(name.len() <= 15, "{name} is no name of a link");
        }
        assert_eq!(likely_kind(&example("tun-*")), "ipip");
        assert_eq!(likely_kind("kube-bridge"), "bridge");
    }
}
