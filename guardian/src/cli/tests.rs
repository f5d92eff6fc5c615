use clap::{CommandFactory as _, Parser as _};
use clap_complete::Shell;

use super::*;

#[test]
fn the_definitions_are_sound() {
    Cli::command().debug_assert();
}

#[test]
fn commands_parse_as_documented() {
    for line in [
        "run --config c --profile kube-router --mode observe --listen 127.0.0.1:1 --socket s --state-dir d --no-bpf",
        "run --debug-bpf -v",
        "status -o json --color never --utc",
        "events -f --since 1h --until 03:00 --last 5 --object 10.0.0.0/8 --actor ip -o wide --no-pager --no-legend",
        "explain --last -o json",
        "explain 01J",
        "snapshot -o json",
        "snapshot --observed",
        "release",
        "release 10.244.2.0/24",
        "release --all -o json",
        "diff file",
        "restore --dry-run",
        "config check file",
        "config show -q",
        "config show --explain",
        "completions bash",
        "man dir",
    ] {
        let words = std::iter::once("route-guardian").chain(line.split(' '));
        assert!(Cli::try_parse_from(words).is_ok(), "{line}");
    }
    for line in [
        "release 10.244.2.0/24 10.244.3.0/24",
        "release --all 10.244.2.0/24",
        "run --mode enforce",
        "explain --last 01J",
        "events --last x",
        "completions tcsh",
        "status -o wide",
    ] {
        let words = std::iter::once("route-guardian").chain(line.split(' '));
        assert!(Cli::try_parse_from(words).is_err(), "{line}");
    }
}

#[test]
fn completions_and_manual_pages_are_made() {
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let script = generate::completions(shell);
        assert!(script.contains("no-bpf") && script.contains("snapshot"), "{shell}");
    }
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man");
    generate::man(&pages).unwrap();
    for page in ["", "-run", "-events", "-release", "-config-check", "-man"] {
        let text = std::fs::read_to_string(pages.join(format!("route-guardian{page}.1"))).unwrap();
        assert!(text.contains(".SH NAME"), "{page}");
    }
    let config = std::fs::read_to_string(pages.join("route-guardian-config.5")).unwrap();
    for key in crate::config::keys::KEYS {
        assert!(config.contains(&format!("\\fB{}\\fR", key.last())), "{}: {config}", key.name);
    }
}
