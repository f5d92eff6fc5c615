//! Nexthop objects, for `rtm_new_nexthop` (`net/ipv4/nexthop.c`).

use super::{EncodeError, Request, encapsulation};
use crate::{
    model::{Nexthop, nexthop::nha},
    netlink::message::nl,
};

const NHA_ENCAP_TYPE: u16 = 7;
const NHA_ENCAP: u16 = 8;

/// Asks the kernel to hold `nexthop`.
pub(super) fn set(nexthop: &Nexthop) -> Result<Request, EncodeError> {
    let mut request = header(nl::RTM_NEWNEXTHOP, nexthop);
    for (kind, value) in encapsulation::sent(&nexthop.attributes, NHA_ENCAP_TYPE, NHA_ENCAP) {
        request.push(kind, value)?;
    }
    Ok(request)
}

/// Asks the kernel to drop `nexthop`, with all routes and groups that use it.
pub(super) fn delete(nexthop: &Nexthop) -> Request {
    let mut request = Request::new(nl::RTM_DELNEXTHOP, vec![0; 8]);
    request.number(nha::ID, nexthop.id);
    request
}

/// All that is known of `nexthop`.
pub(super) fn message(nexthop: &Nexthop) -> Result<Request, EncodeError> {
    let mut request = header(nl::RTM_NEWNEXTHOP, nexthop);
    for attribute in &nexthop.attributes {
        request.push(attribute.kind, attribute.value.to_vec())?;
    }
    Ok(request)
}

fn header(kind: u16, nexthop: &Nexthop) -> Request {
    // `struct nhmsg`: the kernel wants scope and the reserved byte to be 0.
    let mut fixed = vec![nexthop.family, 0, nexthop.protocol, 0];
    fixed.extend(nexthop.flags.to_ne_bytes());
    let mut request = Request::new(kind, fixed);
    request.number(nha::ID, nexthop.id);
    if nexthop.oif != 0 {
        request.number(nha::OIF, nexthop.oif);
    }
    request
}
