//! Policy rules, for `fib_newrule` and `fib_delrule` (`net/core/fib_rules.c`).

use super::{EncodeError, Request};
use crate::model::{Rule, rule::fra};

/// A message about `rule`, with all that makes it up: a rule is deleted by what it matches.
pub(super) fn about(kind: u16, rule: &Rule) -> Result<Request, EncodeError> {
    // `struct fib_rule_hdr`; FRA_TABLE decides, RT_TABLE_UNSPEC where the number does not fit.
    let len = |prefix: Option<_>| prefix.map_or(0, |prefix: crate::model::Prefix| prefix.len());
    let table = u8::try_from(rule.table).unwrap_or(0);
    let mut fixed =
        vec![rule.family.number(), len(rule.dst), len(rule.src), rule.tos, table, 0, 0, rule.action];
    fixed.extend((rule.flags & fra::INVERT).to_ne_bytes());
    let mut request = Request::new(kind, fixed);
    // Where the kernel's bytes differ from the prefix they are among the attributes.
    for (number, prefix) in [(fra::DST, rule.dst), (fra::SRC, rule.src)] {
        if rule.attribute(number).is_none() {
            request.prefix(number, prefix.as_ref());
        }
    }
    // Also 0: without it the kernel chooses one.
    request.number(fra::PRIORITY, rule.priority);
    // Not 0, which a rule of an l3mdev has: with FRA_L3MDEV the kernel refuses a table.
    if rule.table != 0 {
        request.number(fra::TABLE, rule.table);
    }
    for attribute in &rule.attributes {
        request.push(attribute.kind, attribute.value.to_vec())?;
    }
    Ok(request)
}
