use std::{fs, path::Path};

use super::*;

fn parse(file: &str) -> Result<Config, ConfigError> {
    Config::parse("config.toml", file, &Overrides::default())
}

fn error(file: &str) -> String {
    parse(file).unwrap_err().to_string()
}

/// Every key with another value than its default.
const FULL: &str = r#"
profile = "kube-router"
mode = "observe"
[scope]
links = ["cni0", "tun-*"]
protocols = [17, 186]
tables = [100]
exclude = ["10.0.0.0/8", "eth*"]
[owner]
exe = ["/opt/kube-router"]
cgroup = ["/kubepods*/*"]
children = false
absent_after = "never"
[restore]
settle = "1.5s"
lend = "never"
on_start = "restore"
[damping]
burst = 9
initial = "2s"
max = "1h"
[http]
listen = ""
[control]
socket = "/run/rg.sock"
[state]
dir = "/srv/rg"
journal_max = "1GiB"
[kubernetes]
events = true
node_condition = true
node = "node-7.example"
server = "https://10.0.0.1:6443"
"#;

#[test]
fn nothing_is_the_kube_router_profile() {
    let config = parse("").unwrap();
    assert_eq!(config.scope.links, ["kube-bridge", "kube-dummy-if", "tun-*", "tun[12]???????????"]);
    assert_eq!(config.scope.protocols, [17]);
    assert_eq!(config.scope.tables, [77, 78, 79]);
    assert_eq!(config.owner.exe, ["/usr/local/bin/kube-router", "/opt/cni/bin/bridge"]);
    assert_eq!(config.owner.absent_after, Some(Duration::from_secs(900)));
    assert_eq!(config.restore.lend, Some(Duration::from_secs(30)));
    assert_eq!(config.http.listen.unwrap().to_string(), "127.0.0.1:10953");
    assert_eq!(config.mode, Mode::Restore);
    assert!(!config.kubernetes.is_wanted() && config.beyond_this_build().is_none());
}

#[test]
fn the_scope_is_added_and_the_rest_replaced() {
    let config = parse(FULL).unwrap();
    assert_eq!(config.scope.links, ["kube-bridge", "kube-dummy-if", "tun-*", "tun[12]???????????", "cni0"]);
    assert_eq!(config.scope.protocols, [17, 186]);
    assert_eq!(config.owner.exe, ["/opt/kube-router"]);
    assert_eq!(config.owner.absent_after, None);
    assert!(!config.owner.children && config.http.listen.is_none());
    assert_eq!(config.state.journal_max, 1 << 30);
    assert_eq!(config.restore.settle, Duration::from_millis(1500));
    assert_eq!(config.restore.lend, None);
    assert_eq!(config.kubernetes.server.unwrap().to_string(), "10.0.0.1:6443");
    assert_eq!(config.beyond_this_build().is_none(), cfg!(feature = "kubernetes"));
}

#[test]
fn what_is_shown_reads_back_the_same() {
    for file in ["", FULL] {
        let config = parse(file).unwrap();
        let shown = config.to_toml();
        assert_eq!(parse(&shown).unwrap(), config, "{shown}");
    }
}

#[test]
fn the_command_line_goes_over_the_file() {
    let overrides = Overrides {
        mode: Some(Mode::Restore),
        listen: Some("[::1]:9".into()),
        socket: Some("/tmp/s".into()),
        state_dir: Some("/tmp/d".into()),
        profile: None,
    };
    let config = Config::parse("config.toml", FULL, &overrides).unwrap();
    assert_eq!(config.mode, Mode::Restore);
    assert_eq!(config.http.listen.unwrap().to_string(), "[::1]:9");
    assert_eq!(config.state.dir, Path::new("/tmp/d"));

    let wrong = Overrides { listen: Some("localhost:80".into()), ..Overrides::default() };
    let error = Config::parse("config.toml", "", &wrong).unwrap_err().to_string();
    assert_eq!(
        error,
        "--listen: `localhost:80` is not an address with a port: write such as 127.0.0.1:10953 or \
         [::1]:10953 (numbers, not a host name), or \"\" to switch it off"
    );
}

#[test]
fn errors_name_file_line_key_and_what_would_be_right() {
    for (file, expected) in [
        (
            "mode = \"restore\"\n[restore]\nsetle = \"2s\"\n",
            "config.toml:3: restore.setle: there is no such key; did you mean `restore.settle`?",
        ),
        (
            "[scope]\nsettle = \"2s\"\n",
            "config.toml:2: scope.settle: there is no such key; did you mean `restore.settle`?",
        ),
        ("[scoop]\nlinks = []\n", "config.toml:1: scoop: there is no such key; did you mean `scope`?"),
        ("[http]\nzzz = 1\n", "config.toml:2: http.zzz: there is no such key here; known are listen"),
        (
            "mode = \"enforce\"",
            "config.toml:1: mode: `enforce` is not a mode: write \"observe\" or \"restore\"",
        ),
        ("mode = 3", "config.toml:1: mode: found the number 3 where a text belongs: write \"restore\""),
        (
            "http = \"127.0.0.1:1\"",
            "config.toml:1: http: found the text \"127.0.0.1:1\" where a table belongs: write [http] on its \
             own line",
        ),
        (
            "[scope]\nlinks = \"tun-*\"",
            "config.toml:2: scope.links: found the text \"tun-*\" where a list belongs: write [\"tun-*\"]",
        ),
        (
            "[scope]\nlinks = [\n  \"ok\",\n  \"tun-[\",\n]",
            "config.toml:4: scope.links[1]: `tun-[` is not a glob: invalid range pattern at character 5; write \
             something like `kube-bridge`, `tun-*`, `veth?` or `eth[0-9]`",
        ),
        (
            "[scope]\nlinks = [\"kube-dummy-if-of-mine\"]",
            "config.toml:2: scope.links[0]: `kube-dummy-if-of-mine` can match no interface: it asks for 21 \
             characters or more, and a name has at most 15",
        ),
        (
            "[scope]\nprotocols = [17, 256]",
            "config.toml:2: scope.protocols[1]: 256 is not a protocol number: they go from 0 to 255 \
             (kube-router's is 17)",
        ),
        (
            "[scope]\nexclude = [\"10.0.0.0/33\"]",
            "config.toml:2: scope.exclude[0]: `10.0.0.0/33` is neither a prefix such as 10.244.0.0/16 or \
             fd00::/8, nor a glob such as `tun-*`",
        ),
        (
            "[restore]\nsettle = \"2\"",
            "config.toml:2: restore.settle: `2` has no unit: write 2s for seconds, or ms, m, h",
        ),
        (
            "[restore]\nsettle = 2",
            "config.toml:2: restore.settle: found the number 2 where a text belongs: write \"2s\"",
        ),
        (
            "[restore]\nlend = \"100ms\"",
            "config.toml:2: restore.lend: the kernel counts lifetimes in seconds: at least 1s, or never",
        ),
        (
            "[owner]\nabsent_after = \"soon\"",
            "config.toml:2: owner.absent_after: `soon` is not a duration: write a number with its unit, such as \
             500ms, 2s, 15m or 1h30m, or never",
        ),
        (
            "[owner]\nexe = [\"kube-router\"]",
            "config.toml:2: owner.exe[0]: `kube-router` is not an absolute path: begin it with `/`",
        ),
        (
            "[damping]\ninitial = \"10m\"\nmax = \"5m\"",
            "config.toml:3: damping.max: the longest pause (5m) is shorter than the first, damping.initial (10m)",
        ),
        (
            "[http]\nlisten = \"0.0.0.0\"",
            "config.toml:2: http.listen: `0.0.0.0` is not an address with a port: write such as \
             127.0.0.1:10953 or [::1]:10953 (numbers, not a host name), or \"\" to switch it off",
        ),
        (
            "[state]\njournal_max = \"64M\"",
            "config.toml:2: state.journal_max: `64M` is not a size: write a number with its unit, such as 512KiB, \
             64MiB or 1GiB",
        ),
        (
            "[kubernetes]\nnode = \"Node_7\"",
            "config.toml:2: kubernetes.node: `Node_7` is not the name of a Node: it has small letters, digits, `-` and \
             `.`, as `kubectl get nodes` shows; or \"\" for what NODE_NAME says in the environment",
        ),
        (
            "[kubernetes]\nserver = \"https://kubernetes.default.svc\"",
            "config.toml:2: kubernetes.server: `https://kubernetes.default.svc` is not the address of an API server: \
             write such as https://10.0.0.1:6443 or https://[fd00::1]:6443 (numbers, not a host name), or \"\" for the \
             cluster's Service",
        ),
        (
            "[kubernetes]\nevent = true",
            "config.toml:2: kubernetes.event: there is no such key; did you mean `kubernetes.events`?",
        ),
        (
            "\nprofile = \"cilium\"",
            "config.toml:2: profile: cilium: there is no such profile; built in: kube-router, flannel, calico, \
             generic; or give the absolute path of a file",
        ),
    ] {
        assert_eq!(error(file), expected);
    }
    let syntax = error("mode = \"restore\"\n[scope\nlinks = []");
    assert!(syntax.starts_with("config.toml:2: not TOML: "), "{syntax}");
}

/// A built-in profile alone.
fn built_in(name: &str) -> Config {
    parse(&format!("profile = \"{name}\"")).unwrap()
}

#[test]
fn every_profile_matches_what_its_cni_makes_and_nothing_else() {
    for (profile, links, others, protocols, tables) in [
        (
            "kube-router",
            // A tunnel as 2.x names it, and the two ways of 1.x: with a hyphen up to eleven digits.
            &["kube-bridge", "kube-dummy-if", "tun-e443169117a", "tun-10001", "tun192168100123"][..],
            &["eth0", "tun0", "tunl0", "kube-ipvs0", "vethwepl12345", "docker0"][..],
            &[17][..],
            &[77, 78, 79][..],
        ),
        (
            "flannel",
            &["cni0", "flannel.1", "flannel.4096", "flannel-v6.1", "flannel-wg", "flannel-wg-v6", "flannel0"],
            &["eth0", "veth1234", "cni-podman0", "tunl0", "wg0"],
            &[],
            &[],
        ),
        (
            "calico",
            &["cali1234567890a", "tunl0", "vxlan.calico", "vxlan-v6.calico", "wireguard.cali", "wg-v6.cali"],
            &["eth0", "tun0", "vxlan0", "wg0", "cni0"],
            &[12, 80],
            &[],
        ),
        (
            "generic",
            &["cni0", "cbr0", "kube-bridge", "tun-e443169117a", "flannel.1", "vxlan.calico", "cilium_vxlan"],
            &["eth0", "tun0", "wg0", "docker0", "br0", "virbr0", "veth1234", "cali1234567890a", "lxc12345"],
            &[],
            &[],
        ),
    ] {
        let config = built_in(profile);
        let guarded = |name: &str| {
            config.scope.links.iter().any(|glob| glob::Pattern::new(glob).unwrap().matches(name))
        };
        for link in links {
            assert!(guarded(link), "{profile}: {link}");
        }
        for link in others {
            assert!(!guarded(link), "{profile}: {link}");
        }
        assert_eq!(config.scope.protocols, protocols, "{profile}");
        assert_eq!(config.scope.tables, tables, "{profile}");
        assert_eq!(config.scope.exclude.len(), 0, "{profile}");
    }
}

#[test]
fn every_profile_says_whose_its_scope_is() {
    for name in profile::names() {
        let config = built_in(name);
        assert!(!config.owner.exe.is_empty() && config.owner.children, "{name}");
        let absent_after = (name != "generic").then_some(Duration::from_secs(900));
        assert_eq!(config.owner.absent_after, absent_after, "{name}");
        // What is shown of it is a configuration that makes the same.
        assert_eq!(parse(&config.to_toml()).unwrap(), config, "{name}");
    }
}

#[test]
fn every_problem_is_told_at_once() {
    let error = parse("mode = 1\n[restore]\nsetle = \"2s\"\n[damping]\nburst = 0").unwrap_err();
    let lines: Vec<_> = error.problems.iter().filter_map(|p| p.line).collect();
    assert_eq!(lines, [1, 3, 5]);
}

#[test]
fn files_are_found_or_missed_clearly() {
    let dir = tempfile::tempdir().unwrap();
    let absent = dir.path().join("absent.toml");
    let error = Config::check(&absent).unwrap_err().to_string();
    assert!(error.contains("absent.toml: there is no such file"), "{error}");

    let profile = dir.path().join("mine.toml");
    fs::write(&profile, "[scope]\nlinks = [\"cni0\"]\n").unwrap();
    let overrides = Overrides { profile: Some(profile.display().to_string()), ..Overrides::default() };
    let config = Config::parse("config.toml", "", &overrides).unwrap();
    assert_eq!(config.scope.links, ["cni0"]);

    fs::write(&profile, "mode = \"observe\"\n").unwrap();
    let error = Config::parse("config.toml", "", &overrides).unwrap_err().to_string();
    assert!(error.contains("mine.toml:1: mode: there is no such key"), "{error}");

    let error = Config::check(dir.path()).unwrap_err().to_string();
    assert!(error.contains("cannot be read"), "{error}");
}
