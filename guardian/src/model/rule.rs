//! Policy rules: which table is looked into for which packets.

use std::{
    fmt::Write as _,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use super::{
    attribute::Attribute,
    prefix::{Family, Prefix},
    route::rt,
};

/// The numbers of `include/uapi/linux/fib_rules.h` that the guardian reasons with.
#[allow(missing_docs, reason = "the kernel's names say it")]
pub mod fra {
    pub const DST: u16 = 1;
    pub const SRC: u16 = 2;
    pub const IIFNAME: u16 = 3;
    pub const GOTO: u16 = 4;
    pub const PRIORITY: u16 = 6;
    pub const FWMARK: u16 = 10;
    pub const TABLE: u16 = 15;
    pub const FWMASK: u16 = 16;
    pub const OIFNAME: u16 = 17;
    pub const PAD: u16 = 18;
    pub const PROTOCOL: u16 = 21;

    /// `FIB_RULE_INVERT`, the only flag that a request may have.
    pub const INVERT: u32 = 2;
    /// `FR_ACT_TO_TBL`.
    pub const TO_TABLE: u8 = 1;
}

/// What tells a rule from others. The kernel has no such key: two rules are one if they are equal in everything
/// (`rule_exists` in `net/core/fib_rules.c`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleKey {
    /// The address family.
    pub family: Family,
    /// `FRA_PRIORITY`.
    pub priority: u32,
    /// A digest (`SipHash`) of the whole rule.
    pub digest: u64,
}

/// A policy rule as the kernel would take it back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// The address family.
    pub family: Family,
    /// `FRA_PRIORITY`, 0 where the message has none.
    pub priority: u32,
    /// The table that it leads to, by number, above 255 too; 0 for none.
    pub table: u32,
    /// `FR_ACT_*`.
    pub action: u8,
    /// `fib_rule_hdr.flags`, of which only [`fra::INVERT`] is kept.
    pub flags: u32,
    /// `fib_rule_hdr.tos`.
    pub tos: u8,
    /// Only for packets to this prefix.
    pub dst: Option<Prefix>,
    /// Only for packets from this prefix.
    pub src: Option<Prefix>,
    /// Every other attribute, by type.
    pub attributes: Vec<Attribute>,
}

impl Rule {
    /// What tells it from others.
    pub fn key(&self) -> RuleKey {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        RuleKey { family: self.family, priority: self.priority, digest: hasher.finish() }
    }

    /// The first attribute of this type.
    pub fn attribute(&self, number: u16) -> Option<&Attribute> {
        self.attributes.iter().find(|a| a.number() == number)
    }

    /// `FRA_PROTOCOL`: who made it, by number; 0 where the kernel does not say.
    pub fn protocol(&self) -> u8 {
        self.attribute(fra::PROTOCOL).and_then(|a| a.value.first().copied()).unwrap_or(0)
    }

    /// The line of `ip rule`.
    pub fn text(&self) -> String {
        let mut out = format!("{}:", self.priority);
        if self.flags & fra::INVERT != 0 {
            out += " not";
        }
        match self.src {
            Some(src) => {
                let _ = write!(out, " from {src}");
            }
            None => out += " from all",
        }
        if let Some(dst) = self.dst {
            let _ = write!(out, " to {dst}");
        }
        if self.tos != 0 {
            let _ = write!(out, " tos {:#04x}", self.tos);
        }
        if let Some(mark) = self.attribute(fra::FWMARK).and_then(Attribute::as_u32) {
            let _ = write!(out, " fwmark {mark:#x}");
            let mask = self.attribute(fra::FWMASK).and_then(Attribute::as_u32);
            if let Some(mask) = mask.filter(|&mask| mask != u32::MAX) {
                let _ = write!(out, "/{mask:#x}");
            }
        }
        for (number, word) in [(fra::IIFNAME, "iif"), (fra::OIFNAME, "oif")] {
            if let Some(name) = self.attribute(number) {
                let _ = write!(out, " {word} {}", name.as_text());
            }
        }
        match (self.action, self.table) {
            (fra::TO_TABLE, rt::TABLE_MAIN) => out += " lookup main",
            (fra::TO_TABLE, rt::TABLE_LOCAL) => out += " lookup local",
            (fra::TO_TABLE, table) => {
                let _ = write!(out, " lookup {table}");
            }
            (2, _) => {
                let target = self.attribute(fra::GOTO).and_then(Attribute::as_u32).unwrap_or(0);
                let _ = write!(out, " goto {target}");
            }
            (3, _) => out += " nop",
            (6, _) => out += " blackhole",
            (7, _) => out += " unreachable",
            (8, _) => out += " prohibit",
            (action, _) => {
                let _ = write!(out, " action {action}");
            }
        }
        out
    }
}
