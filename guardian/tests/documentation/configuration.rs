//! `docs/configuration.md`: every key, from its definition; the profiles, from their files.

use std::fmt::Write as _;

use route_guardian::config::{
    Config, Overrides,
    keys::{self, KEYS, SECTIONS, Takes},
    profile,
};

use super::{documents, golden};

/// A value or an example as code in a line.
fn code(text: impl std::fmt::Display) -> String {
    format!("`{text}`")
}

#[test]
fn every_key_is_described() {
    let defaults = keys::defaults();
    let mut text = String::new();
    for section in SECTIONS {
        let name = if section.name.is_empty() { "At the top".into() } else { format!("[{}]", section.name) };
        let _ = write!(text, "\n### {name}\n\n{}\n", section.what);
        for key in keys::in_section(section) {
            let default = key.of(&defaults).map_or_else(|| "not set".to_owned(), code);
            let _ = write!(
                text,
                "\n#### {}\n\n{}\n\n- value: {}\n- default: {default}\n- example: {}\n- a change takes: {}\n",
                key.name,
                key.what,
                key.value,
                code(format_args!("{} = {}", key.last(), key.example)),
                key.takes.as_str(),
            );
        }
    }
    golden("configuration.md", "keys", &(text + "\n"));
}

#[test]
fn every_profile_is_shown() {
    let mut text = String::new();
    for name in profile::names() {
        let overrides = Overrides { profile: Some(name.to_owned()), ..Overrides::default() };
        let config = Config::parse("", "", &overrides).unwrap();
        let _ = write!(text, "\n### Profile {name}\n\n```toml\n");
        for section in SECTIONS.iter().filter(|section| ["scope", "owner"].contains(&section.name)) {
            let _ = writeln!(text, "[{}]", section.name);
            for key in keys::in_section(section) {
                let value = key.of(&config).map(|value| value.to_string()).unwrap_or_default();
                let _ = writeln!(text, "{} = {value}", key.last());
            }
        }
        text += "```\n";
    }
    golden("configuration.md", "profiles", &(text + "\n"));
}

#[test]
fn what_takes_a_restart_is_in_one_list() {
    let restart: Vec<String> =
        KEYS.iter().filter(|key| key.takes == Takes::Restart).map(|key| code(key.name)).collect();
    golden("configuration.md", "restart", &format!("{}.\n", restart.join(", ")));
}

#[test]
fn every_example_in_the_documents_is_right() {
    let mut examples = 0;
    for (path, text) in documents() {
        for block in text.split("```toml\n").skip(1) {
            let block = block.split("```").next().unwrap_or_default();
            let read = Config::parse("example", block, &Overrides::default());
            assert!(read.is_ok(), "{}: {}\n{block}", path.display(), read.unwrap_err());
            examples += 1;
        }
    }
    assert!(examples > 3, "only {examples}");
}
