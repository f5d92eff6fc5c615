//! Netlink attributes in the kernel's own bytes: what nobody here has heard of comes back as it was.

use std::net::IpAddr;

/// One attribute in the kernel's own bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attribute {
    /// The type as it stands in the message, flag bits (`NLA_F_NESTED`) included.
    pub kind: u16,
    /// The value without header and padding.
    pub value: Box<[u8]>,
}

impl Attribute {
    /// `NLA_TYPE_MASK` of `include/uapi/linux/netlink.h`.
    const TYPE_MASK: u16 = 0x3fff;

    /// The type without its flag bits.
    pub const fn number(&self) -> u16 {
        self.kind & Self::TYPE_MASK
    }

    /// The value as a native-endian 32-bit number, if it has that size.
    pub fn as_u32(&self) -> Option<u32> {
        self.value.as_ref().try_into().ok().map(u32::from_ne_bytes)
    }

    /// Whether its value is anything but zeros.
    pub fn is_set(&self) -> bool {
        self.value.iter().any(|byte| *byte != 0)
    }

    /// The value as an address, if it has the size of one (4 or 16 bytes).
    pub fn as_addr(&self) -> Option<IpAddr> {
        if let Ok(v4) = <[u8; 4]>::try_from(self.value.as_ref()) {
            return Some(IpAddr::from(v4));
        }
        <[u8; 16]>::try_from(self.value.as_ref()).ok().map(IpAddr::from)
    }

    /// The value as text, up to the first NUL; bytes that are not UTF-8 are replaced.
    pub fn as_text(&self) -> String {
        text(&self.value)
    }
}

/// A NUL-terminated text.
pub fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|&byte| byte == 0).next().unwrap_or_default()).into_owned()
}
