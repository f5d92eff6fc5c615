//! The definitions of the keys, held against the parser and the configuration itself.

use std::collections::BTreeSet;

use toml::{Table, Value};

use super::{super::*, *};

fn parse(file: &str) -> Config {
    Config::parse("example", file, &Overrides::default()).unwrap_or_else(|error| panic!("{file}\n{error}"))
}

/// The reverse, that every key that is read is defined, each parse in a test asserts (`Section::finish`).
#[test]
fn every_key_is_read_and_its_example_is_another_value() {
    for key in KEYS {
        let config = parse(&format!("{} = {}", key.name, key.example));
        assert_ne!(key.of(&config), key.of(&defaults()), "{}", key.name);
        let names: Vec<&str> = changed(&defaults(), &config).map(|key| key.name).collect();
        assert!(names.contains(&key.name), "{names:?}");
        // A profile changes the scope and the owner too, and nothing else changes anything besides.
        assert!(names.len() == 1 || key.name == "profile", "{names:?}");
    }
}

#[test]
fn every_value_has_a_key() {
    let config = Table::try_from(defaults()).unwrap();
    let names: BTreeSet<String> = config
        .iter()
        .flat_map(|(name, value)| match value {
            Value::Table(table) => table.keys().map(|key| format!("{name}.{key}")).collect(),
            _ => vec![name.clone()],
        })
        .collect();
    assert_eq!(names, KEYS.iter().map(|key| key.name.to_owned()).collect());
}

#[test]
fn they_stand_together_by_table() {
    let shown: Vec<&str> = SECTIONS.iter().flat_map(in_section).map(|key| key.name).collect();
    assert_eq!(shown, KEYS.iter().map(|key| key.name).collect::<Vec<_>>());
    for key in KEYS {
        assert!(key.what.ends_with('.') && !key.value.ends_with('.'), "{}", key.name);
        for text in [key.what, key.value] {
            assert!(text.matches('`').count().is_multiple_of(2), "{}: {text}", key.name);
        }
    }
}

#[test]
fn a_file_that_explains_itself_reads_back_the_same() {
    let all: Vec<_> = KEYS.iter().map(|key| format!("{} = {}", key.name, key.example)).collect();
    for config in [defaults(), parse(&all.join("\n"))] {
        let shown = config.to_explained_toml();
        assert_eq!(parse(&shown), config, "{shown}");
        assert!(shown.lines().all(|line| line.chars().count() <= 110), "{shown}");
    }
}
