//! From the configuration to what the parts want.

use anyhow::Context as _;
use glob::Pattern;

use crate::{
    attribution::OwnerRule,
    config::Config,
    core::{Damping, Scope, Settings},
    model::Prefix,
    sensor::KernelScope,
};

/// The core's settings.
pub fn settings(config: &Config) -> Settings {
    Settings {
        mode: config.mode,
        settle: config.restore.settle,
        damping: Damping {
            burst: config.damping.burst,
            initial: config.damping.initial,
            max: config.damping.max,
        },
        absent_after: config.owner.absent_after,
        lend: config.restore.lend,
    }
}

/// The compiled scope. The configuration has checked every glob; an error names it all the same.
pub fn scope(config: &Config) -> anyhow::Result<Scope> {
    let glob = |text: &String| {
        Pattern::new(text).with_context(|| format!("\"{text}\" is not a glob on interface names"))
    };
    let mut scope = Scope {
        links: config.scope.links.iter().map(glob).collect::<Result<_, _>>()?,
        protocols: config.scope.protocols.iter().copied().collect(),
        tables: config.scope.tables.iter().copied().collect(),
        ..Scope::default()
    };
    for text in &config.scope.exclude {
        match text.parse::<Prefix>() {
            Ok(prefix) => scope.exclude_prefixes.push(prefix),
            Err(_) => scope.exclude_links.push(glob(text)?),
        }
    }
    Ok(scope)
}

/// Who may change the scope.
pub fn owner(config: &Config) -> anyhow::Result<OwnerRule> {
    Ok(OwnerRule::new(&config.owner.exe, &config.owner.cgroup, config.owner.children)?)
}

/// What the tap lets pass.
pub fn kernel_scope(config: &Config) -> KernelScope {
    KernelScope { protocols: config.scope.protocols.clone(), tables: config.scope.tables.clone() }
}
