//! The files of systemd: sections of assignments (`systemd.syntax(7)`), with the place of each.

use std::path::Path;

use super::Place;

/// One assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub section: String,
    pub key: String,
    pub value: String,
    pub place: Place,
}

/// Reads a file's text; what is no assignment is left out, as systemd leaves it out.
pub(super) fn parse(file: &Path, text: &str) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut section = String::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.clone_into(&mut section);
            continue;
        }
        // A backslash at the end goes on with the next line that is no comment.
        let mut whole = line.to_owned();
        while let Some(begun) = whole.strip_suffix('\\') {
            let Some((_, next)) = lines.find(|(_, next)| !next.trim_start().starts_with(['#', ';'])) else {
                break;
            };
            whole = format!("{} {}", begun.trim_end(), next.trim());
        }
        if let Some((key, value)) = whole.split_once('=') {
            settings.push(Setting {
                section: section.clone(),
                key: key.trim().to_owned(),
                value: value.trim().to_owned(),
                place: Place { file: file.to_owned(), line: number + 1, text: whole.clone() },
            });
        }
    }
    settings
}

/// A boolean as systemd reads it (`parse_boolean`).
pub(super) fn boolean(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Some(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_comments_and_long_lines() {
        let text = "# a comment\n[Match]\nName=a \\\n; in between\n  b*\n\nno assignment\n[Network]\n DHCP = yes \nKeepConfiguration=\n";
        let found = parse(Path::new("/f"), text);
        let short: Vec<_> = found
            .iter()
            .map(|s| (s.section.as_str(), s.key.as_str(), s.value.as_str(), s.place.line))
            .collect();
        assert_eq!(
            short,
            [
                ("Match", "Name", "a b*", 3),
                ("Network", "DHCP", "yes", 9),
                ("Network", "KeepConfiguration", "", 10)
            ]
        );
        assert_eq!((boolean("Off"), boolean("y"), boolean("static")), (Some(false), Some(true), None));
    }
}
