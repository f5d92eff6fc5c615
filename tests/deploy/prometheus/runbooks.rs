//! The runbooks are whole, and what they tell one to type exists.

use std::{collections::BTreeSet, process::Command};

use anyhow::{Context, Result, ensure};

use super::{read, stems};

/// What somebody who is woken wants to know, in this order.
const HEADINGS: [&str; 5] =
    ["## What it means", "## What it costs", "## What to do", "## How to silence it", "## For good"];

#[test]
fn each_answers_the_same_questions() -> Result<()> {
    for name in stems("runbooks")? {
        let runbook = read(&format!("runbooks/{name}.md"))?;
        let headings: Vec<&str> = runbook.lines().filter(|line| line.starts_with("## ")).collect();
        ensure!(headings == HEADINGS, "runbooks/{name}.md has {headings:?}");
        ensure!(runbook.starts_with(&format!("# {name}\n")), "runbooks/{name}.md has another title");
        ensure!(runbook.contains(&format!("amtool silence add alertname={name} ")), "{name}: silences what?");
        ensure!(runbook.lines().count() < 60, "runbooks/{name}.md is too long for the night");
    }
    Ok(())
}

#[test]
fn their_commands_exist() -> Result<()> {
    let mut commands = BTreeSet::new();
    for name in stems("runbooks")? {
        let runbook = read(&format!("runbooks/{name}.md"))?;
        let lines = runbook.lines().filter_map(|line| line.strip_prefix("    "));
        commands
            .extend(lines.filter_map(|line| line.trim().strip_prefix("route-guardian ")).map(str::to_owned));
    }
    ensure!(commands.len() > 5, "only {commands:?}");
    for command in commands {
        // What is behind `#` is a remark.
        let words: Vec<&str> = command.split_whitespace().take_while(|word| *word != "#").collect();
        let verb = match words.as_slice() {
            ["config", verb, ..] => vec!["config", verb],
            [verb, ..] => vec![*verb],
            [] => continue,
        };
        let output =
            Command::new(lab::binary()).args(&verb).arg("--help").output().context("the guardian's help")?;
        ensure!(output.status.success(), "`route-guardian {command}`: there is no such command");
        let help = String::from_utf8_lossy(&output.stdout);
        for option in words.iter().filter(|word| word.starts_with('-')) {
            ensure!(help.contains(option), "`route-guardian {command}`: there is no {option}");
        }
    }
    Ok(())
}
