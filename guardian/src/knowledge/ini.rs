//! The files of systemd (`systemd.syntax(7)`) and of `GLib`: sections of assignments, with the place of each.

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
    let mut whole_lines = Vec::new();
    let mut lines = text.lines().enumerate().filter(|(_, line)| !is_comment(line));
    while let Some((number, line)) = lines.next() {
        // A backslash at the end goes on with the next line that is no comment.
        let mut whole = line.trim().to_owned();
        while let Some(begun) = whole.strip_suffix('\\') {
            let Some((_, next)) = lines.next() else { break };
            whole = format!("{} {}", begun.trim_end(), next.trim());
        }
        whole_lines.push((number, whole));
    }
    assignments(file, whole_lines)
}

/// The same of a file as `GLib` writes them, in which a line is a line. Of what a file says twice, the second counts.
pub(super) fn parse_keyfile(file: &Path, text: &str) -> Vec<Setting> {
    let lines = text.lines().enumerate().filter(|(_, line)| !is_comment(line));
    let mut settings: Vec<Setting> = Vec::new();
    for setting in assignments(file, lines.map(|(number, line)| (number, line.trim().to_owned()))) {
        settings.retain(|earlier| (&earlier.section, &earlier.key) != (&setting.section, &setting.key));
        settings.push(setting);
    }
    settings
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with(['#', ';'])
}

fn assignments(file: &Path, lines: impl IntoIterator<Item = (usize, String)>) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut section = String::new();
    for (number, line) in lines {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.clone_into(&mut section);
        } else if let Some((key, value)) = line.split_once('=') {
            settings.push(Setting {
                section: section.clone(),
                key: key.trim().to_owned(),
                value: value.trim().to_owned(),
                place: Place { file: file.to_owned(), line: number + 1, text: line.clone() },
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
