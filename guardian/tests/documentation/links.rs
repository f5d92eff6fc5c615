//! Links within the repository lead somewhere.

use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
};

use super::{documents, top};

/// A document without what is shown as it is: blocks and words of code.
fn prose(text: &str) -> String {
    let (mut fenced, mut prose) = (false, String::new());
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced && !line.starts_with("    ") {
            prose += line;
            prose += "\n";
        }
    }
    prose.split('`').step_by(2).collect()
}

/// The anchors that GitHub makes of a document's headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    let mut fenced = false;
    for line in text.lines() {
        fenced ^= line.starts_with("```");
        let heading = line.trim_start_matches('#');
        if fenced || heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        let kept = heading.trim().to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let numbered = (1..).map(|n| format!("{anchor}-{n}"));
        let free = std::iter::once(anchor.clone()).chain(numbered).find(|a| !anchors.contains(a));
        anchors.extend(free);
    }
    anchors
}

/// Without `..` and `.`; `None` where it leads out of the repository.
fn normal(path: &Path) -> Option<PathBuf> {
    path.components().try_fold(PathBuf::new(), |mut whole, part| match part {
        Component::ParentDir => whole.pop().then_some(whole),
        Component::Normal(name) => {
            whole.push(name);
            Some(whole)
        }
        Component::CurDir => Some(whole),
        Component::RootDir | Component::Prefix(_) => None,
    })
}

#[test]
fn every_link_leads_to_something() {
    let mut followed = 0;
    for (path, text) in documents() {
        for link in prose(&text).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let link = link.split_whitespace().next().unwrap_or_default();
            if ["https://", "http://", "mailto:"].iter().any(|scheme| link.starts_with(scheme)) {
                continue;
            }
            followed += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.with_file_name(file) };
            let target = normal(&target).unwrap_or_else(|| panic!("{}: {link} leads out", path.display()));
            let there = top().join(&target);
            assert!(there.exists(), "{}: there is no {link}", path.display());
            if !anchor.is_empty() {
                let anchors = anchors(&fs::read_to_string(there).unwrap());
                assert!(anchors.contains(anchor), "{}: no heading for {link}: {anchors:?}", path.display());
            }
        }
    }
    assert!(followed > 50, "only {followed}");
}

/// A document that nobody links to is not read.
#[test]
fn every_document_in_docs_is_in_its_table_of_contents() {
    let contents = fs::read_to_string(top().join("docs/README.md")).unwrap();
    for (path, _) in documents() {
        let Ok(name) = path.strip_prefix("docs") else { continue };
        let linked = contents.contains(&format!("]({})", name.display()));
        assert!(
            linked || name == Path::new("README.md"),
            "docs/README.md does not link to {}",
            name.display()
        );
    }
}

#[test]
fn anchors_are_those_of_github() {
    let found = anchors("# Its `a.b` key\n## [scope]\n```\n# no heading\n```\n## [scope]\n#none\n");
    assert_eq!(found, ["its-ab-key", "scope", "scope-1"].map(str::to_owned).into());
    assert_eq!(prose("a\n    [code](x)\n```\n[fenced](x)\n```\n`[span](x)` b\n"), "a\n b\n");
}
