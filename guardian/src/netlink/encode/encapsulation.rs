//! Encapsulations of routes and nexthop objects, as the kernel takes them.

use crate::{model::Attribute, netlink::message::nl};

/// `attributes` as they go out. `type_` and `encap` are the numbers of the encapsulation's type
/// (`RTA_ENCAP_TYPE`, `NHA_ENCAP_TYPE`) and of the encapsulation itself, which the kernel reports without
/// `NLA_F_NESTED` (`lwtunnel_fill_encap`) and refuses without it.
pub(super) fn sent(
    attributes: &[Attribute],
    type_: u16,
    encap: u16,
) -> impl Iterator<Item = (u16, Vec<u8>)> + '_ {
    let options = attributes.iter().find(|a| a.number() == type_).is_some_and(has_options);
    attributes.iter().map(move |attribute| {
        let mut value = attribute.value.to_vec();
        if attribute.number() != encap {
            return (attribute.kind, value);
        }
        if options {
            mark_options(&mut value);
        }
        (attribute.kind | nl::NLA_F_NESTED, value)
    })
}

/// `LWTUNNEL_ENCAP_IP` and `LWTUNNEL_ENCAP_IP6` of `include/uapi/linux/lwtunnel.h`.
fn has_options(encap_type: &Attribute) -> bool {
    let number = <[u8; 2]>::try_from(encap_type.value.as_ref()).map_or(0, u16::from_ne_bytes);
    matches!(number, 2 | 4)
}

/// The kernel reports tunnel options (geneve, vxlan, erspan) without `NLA_F_NESTED` and refuses them
/// without it: `ip_tun_fill_encap_opts` against `ip_tun_parse_opts` in `net/ipv4/ip_tunnel_core.c`.
fn mark_options(encap: &mut [u8]) {
    /// `LWTUNNEL_IP_OPTS`, and `LWTUNNEL_IP6_OPTS` likewise.
    const OPTIONS: u16 = 8;
    each_attribute(encap, &mut |kind, value| {
        if *kind & nl::NLA_TYPE_MASK == OPTIONS {
            *kind |= nl::NLA_F_NESTED;
            each_attribute(value, &mut |kind, _| *kind |= nl::NLA_F_NESTED);
        }
    });
}

/// Calls `visit` with type and value of each well-formed attribute of a nest, and writes the type back.
fn each_attribute(mut bytes: &mut [u8], visit: &mut dyn FnMut(&mut u16, &mut [u8])) {
    while let Some((&mut [len0, len1, ref mut kind0, ref mut kind1], rest)) =
        bytes.split_first_chunk_mut::<4>()
    {
        let len = usize::from(u16::from_ne_bytes([len0, len1]));
        let Some(value) = len.checked_sub(4).and_then(|len| rest.get_mut(..len)) else {
            return;
        };
        let mut kind = u16::from_ne_bytes([*kind0, *kind1]);
        visit(&mut kind, value);
        [*kind0, *kind1] = kind.to_ne_bytes();
        bytes = rest.get_mut(len.next_multiple_of(4) - 4..).unwrap_or_default();
    }
}
