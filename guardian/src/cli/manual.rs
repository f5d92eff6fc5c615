//! The manual page route-guardian-config(5), from the definitions of the keys.

use clap_mangen::roff::{Inline, Roff, bold, roman};

use crate::config::{
    DEFAULT_PATH,
    keys::{self, Key, Takes},
};

/// What the page says before the keys.
const DESCRIPTION: &[&str] = &[
    "The file is TOML. It may be absent, and every key may be left out: the built-in profile says what is guarded and \
     whose it is. An option of the command line, such as `--mode`, goes over the file.",
    "Durations and sizes have units. An unknown key is an error that names the nearest known one. `route-guardian \
     config check FILE` says what is wrong in which line, and what would be right; `route-guardian config show \
     --explain` prints what is in force.",
    "At SIGHUP (`systemctl reload route-guardian`) the file is read again, as a whole or not at all: where anything in \
     it is wrong, the configuration in use is kept, and the log and `route-guardian status` say why. A key that takes a \
     restart is named in the log when a reload finds it changed.",
];

/// The page.
pub fn config_page() -> String {
    let defaults = keys::defaults();
    let mut page = Roff::new();
    let name = "route-guardian-config";
    page.control("TH", [name, "5", "", concat!("route-guardian ", env!("CARGO_PKG_VERSION")), ""]);
    page.control("SH", ["NAME"]);
    page.text([roman(format!("{name} - configuration of the route guardian"))]);
    page.control("SH", ["SYNOPSIS"]);
    page.text([bold(DEFAULT_PATH)]);
    page.control("SH", ["DESCRIPTION"]);
    for paragraph in DESCRIPTION {
        page.control("PP", []);
        page.text(inlines(paragraph));
    }
    page.control("SH", ["KEYS"]);
    for section in keys::SECTIONS {
        if !section.name.is_empty() {
            page.control("SS", [format!("[{}]", section.name).as_str()]);
            page.text(inlines(section.what));
        }
        for key in keys::in_section(section) {
            let default = key.of(&defaults).map_or_else(|| "not set".to_owned(), |value| value.to_string());
            describe(&mut page, key, &default);
        }
    }
    page.control("SH", ["SEE ALSO"]);
    page.text([bold("route-guardian"), roman("(1), "), bold("route-guardian-run"), roman("(1)")]);
    page.render()
}

fn describe(page: &mut Roff, key: &Key, default: &str) {
    page.control("TP", []);
    page.text([bold(key.last())]);
    page.text(inlines(key.what));
    page.control("RS", []);
    page.control("PP", []);
    page.text(inlines(&format!("Value: {}.", key.value)));
    page.control("br", []);
    page.text([roman("Default: "), bold(default)]);
    page.control("br", []);
    page.text([roman("Example: "), bold(format!("{} = {}", key.last(), key.example))]);
    if key.takes == Takes::Restart {
        page.control("br", []);
        page.text([roman("Takes a restart.")]);
    }
    page.control("RE", []);
}

/// What is between backquotes is bold.
fn inlines(text: &str) -> Vec<Inline> {
    let parts = text.split('`').enumerate();
    parts.map(|(n, part)| if n % 2 == 1 { bold(part) } else { roman(part) }).collect()
}
