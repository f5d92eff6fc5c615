//! `struct fib_rule_hdr`, as `fib_nl_fill_rule` (`net/core/fib_rules.c`) fills it.

use super::{ip, prefix, raw, split, whole_u32};
use crate::{
    model::{Attribute, Family, Prefix, Rule, rule::fra},
    netlink::message::{DecodeError, Frame, nl, u32_at},
};

const FIB_RULE_HDR_LEN: usize = 12;

pub(super) fn rule(frame: &Frame<'_>) -> Result<Option<Rule>, DecodeError> {
    let (fixed, walk) = split(frame, FIB_RULE_HDR_LEN)?;
    let &[family, dst_len, src_len, tos, table, _, _, action, ..] = fixed else {
        return Ok(None);
    };
    // Multicast routing has rules of its own (`RTNL_FAMILY_IPMR`).
    let Some(family) = Family::from_number(family) else {
        return Ok(None);
    };
    let message = frame.header.kind;
    let (mut dst, mut src) = (None, None);
    let (mut table, mut priority) = (u32::from(table), 0);
    let mut rest = Vec::new();
    for attribute in walk {
        let (type_, value) = attribute?;
        let number = type_ & nl::NLA_TYPE_MASK;
        let wrong = DecodeError::Value { kind: message, number, len: value.len() };
        match number {
            fra::DST => dst = Some((type_, value)),
            fra::SRC => src = Some((type_, value)),
            fra::TABLE => table = whole_u32(value).ok_or(wrong)?,
            fra::PRIORITY => priority = whole_u32(value).ok_or(wrong)?,
            fra::PAD => {}
            _ => rest.push(raw(type_, value)),
        }
    }
    let mut selector = |len: u8, found: Option<(u16, &[u8])>, number| {
        if len == 0 {
            return Ok(None);
        }
        let prefix = prefix(family, len, found.map(|(_, value)| value), message, number)?;
        // The kernel keeps bits behind the prefix as they were given, and tells rules apart by them.
        if let Some((type_, value)) = found
            && !is_exactly(prefix, family, value)
        {
            rest.push(raw(type_, value));
        }
        Ok(Some(prefix))
    };
    let dst = selector(dst_len, dst, fra::DST)?;
    let src = selector(src_len, src, fra::SRC)?;
    rest.sort_by_key(Attribute::number);
    Ok(Some(Rule {
        family,
        priority,
        table,
        action,
        flags: u32_at(fixed, 8).unwrap_or(0) & fra::INVERT,
        tos,
        dst,
        src,
        attributes: rest,
    }))
}

fn is_exactly(prefix: Prefix, family: Family, value: &[u8]) -> bool {
    ip(family, value) == Some(prefix.addr())
}
