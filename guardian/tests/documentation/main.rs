//! What is written is held to what is: configuration and metrics in `docs/` to their definitions, commands to the
//! parser, links to what they point at. Needs no rights and no kernel.

mod commands;
mod configuration;
mod links;
mod metrics;

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The top of the repository.
fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("")
}

/// Every Markdown file of the repository, by its path from the top, with its text.
fn documents() -> Vec<(PathBuf, String)> {
    let (mut found, mut folders) = (Vec::new(), vec![top()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if path.is_dir() && !name.starts_with('.') && name != "target" {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "md") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(top()).unwrap().to_owned(), text));
            }
        }
    }
    found.sort();
    assert!(found.len() > 20, "only {found:?}");
    found
}

/// Compares what stands in a document of `docs/` between `<!-- NAME` and `<!-- end -->` with what it should be; with
/// `UPDATE_GOLDEN` set it writes that, to be read and committed.
fn golden(document: &str, name: &str, expected: &str) {
    let path = top().join("docs").join(document);
    let text = fs::read_to_string(&path).unwrap();
    let begin = text.find(&format!("<!-- {name}")).and_then(|at| Some(at + text[at..].find('\n')? + 1));
    let begin = begin.unwrap_or_else(|| panic!("docs/{document} has no line <!-- {name} … -->"));
    let end = begin + text[begin..].find("<!-- end -->").expect("no line <!-- end -->");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, format!("{}{expected}{}", &text[..begin], &text[end..])).unwrap();
        return;
    }
    assert_eq!(
        &text[begin..end],
        expected,
        "docs/{document} is not what the code says; UPDATE_GOLDEN=1 writes it"
    );
}
