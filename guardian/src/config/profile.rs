//! Profiles: what a CNI makes on a node, as data files.

use std::{fs, path::Path};

use super::ConfigError;

/// The profile that is used where nothing names another.
pub const DEFAULT: &str = "kube-router";

/// The profiles that are built in: name and text.
const BUILT_IN: [(&str, &str); 4] = [
    (DEFAULT, include_str!("profiles/kube-router.toml")),
    ("flannel", include_str!("profiles/flannel.toml")),
    ("calico", include_str!("profiles/calico.toml")),
    ("generic", include_str!("profiles/generic.toml")),
];

/// The names of the built-in profiles.
pub fn names() -> impl Iterator<Item = &'static str> {
    BUILT_IN.iter().map(|(name, _)| *name)
}

/// The origin (for errors) and the text of a profile: a built-in one by its name, any other by the
/// absolute path of its file.
pub(super) fn find(name: &str) -> Result<(String, String), ConfigError> {
    if let Some((name, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) {
        return Ok((format!("profile {name}"), (*text).to_owned()));
    }
    if Path::new(name).is_absolute() {
        return fs::read_to_string(name).map(|text| (name.to_owned(), text)).map_err(|error| {
            ConfigError::whole(format!("profile {name}"), format!("cannot read the file: {error}"))
        });
    }
    let known: Vec<&str> = names().collect();
    Err(ConfigError::whole(
        format!("profile {name}"),
        format!(
            "there is no such profile; built in: {}; or give the absolute path of a file",
            known.join(", ")
        ),
    ))
}
