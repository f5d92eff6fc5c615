//! Command lines that are shown parse.

use clap::{Parser as _, error::ErrorKind};
use route_guardian::cli::args::Cli;

use super::documents;

/// Words in the place of which a reader writes something, where the parser is choosy.
const PLACEHOLDERS: [(&str, &str); 2] = [("SHELL", "bash"), ("ADDR:PORT", "127.0.0.1:1")];

/// The command lines in a document: on lines of their own in code, and between backquotes.
fn lines(text: &str) -> Vec<String> {
    let (mut found, mut prose, mut fenced) = (Vec::new(), String::new(), false);
    for line in text.lines() {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        if fenced || line.starts_with("    ") {
            found.extend(after_program(line.trim_start().trim_start_matches("$ ")).map(str::to_owned));
        } else if !fence {
            // What is between backquotes may go on in the next line, but not beyond the paragraph.
            prose += if line.is_empty() { "\n" } else { " " };
            prose += line.trim();
        }
    }
    for paragraph in prose.lines() {
        let spans = paragraph.split('`').skip(1).step_by(2);
        found.extend(spans.filter_map(|span| span.strip_prefix("route-guardian ")).map(str::to_owned));
    }
    found
}

/// What follows the guardian's name, where that is the program: `kubectl exec POD -- /route-guardian status` runs it.
fn after_program(line: &str) -> Option<&str> {
    let line = line.split_once(" -- ").map_or(line, |(_, inner)| inner);
    let (program, rest) = line.split_once(' ')?;
    // `ROUTE_GUARDIAN=path/route-guardian cargo test` runs another, and a row of figures none.
    let runs = program.rsplit('/').next() == Some("route-guardian") && !program.contains('=');
    (runs && !rest.starts_with(' ')).then_some(rest)
}

/// Up to where the shell takes over, or a remark begins.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let own = line.split_whitespace().take_while(|word| !["#", "|", "||", "&&", ">", ";"].contains(word));
    own.map(|word| {
        let placeholder = PLACEHOLDERS.iter().find(|(name, _)| *name == word);
        placeholder.map_or(word, |(_, value)| value).trim_matches(['\'', '"'])
    })
}

#[test]
fn every_command_line_parses() {
    let mut parsed = 0;
    for (path, text) in documents() {
        for line in lines(&text) {
            match Cli::try_parse_from(std::iter::once("route-guardian").chain(words(&line))) {
                Err(error) if !matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
                    panic!("{}: `route-guardian {line}`: {error}", path.display());
                }
                _ => parsed += 1,
            }
        }
    }
    assert!(parsed > 60, "only {parsed}");
}
