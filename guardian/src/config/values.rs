//! The checks of single values. Each error says what is wrong and what would be right.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use glob::Pattern;

use crate::model::Prefix;

/// `IFNAMSIZ` of `include/uapi/linux/if.h` without the final zero.
pub const IFNAME_MAX: usize = 15;

/// `sun_path` of `struct sockaddr_un` without the final zero.
const SOCKET_PATH_MAX: usize = 107;

/// Checks a glob on interface names. What the kernel allows in a name is in `dev_valid_name`
/// (`net/core/dev.c`): no `/`, no `:`, no white space.
pub fn link_glob(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("an empty glob matches no interface; write a name or a glob, such as `tun-*`".into());
    }
    if let Some(bad) = text.chars().find(|c| matches!(c, '/' | ':') || c.is_whitespace()) {
        return Err(format!("`{text}` can match no interface: a name has no `{bad}`"));
    }
    pattern(text, "`kube-bridge`, `tun-*`, `veth?` or `eth[0-9]`")?;
    let shortest = shortest_match(text);
    if shortest > IFNAME_MAX {
        return Err(format!(
            "`{text}` can match no interface: it asks for {shortest} characters or more, and a name has at \
             most {IFNAME_MAX}"
        ));
    }
    Ok(())
}

/// Checks a glob on cgroup paths, which begin at the root of the hierarchy.
pub fn cgroup_glob(text: &str) -> Result<(), String> {
    if !text.starts_with('/') && !text.starts_with('*') {
        return Err(format!(
            "`{text}` can match no cgroup: a path begins with `/`, such as \
             `/system.slice/kube-router.service` or `/kubepods*/*`"
        ));
    }
    pattern(text, "`/system.slice/kube-router.service` or `/kubepods*/*`")
}

fn pattern(text: &str, such_as: &str) -> Result<(), String> {
    match Pattern::new(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!(
            "`{text}` is not a glob: {} at character {}; write something like {such_as}",
            error.msg,
            error.pos + 1
        )),
    }
}

/// The bytes of the shortest name that a valid glob can match.
fn shortest_match(glob: &str) -> usize {
    let mut chars = glob.chars().peekable();
    let mut least = 0;
    while let Some(c) = chars.next() {
        match c {
            '*' => {}
            '[' => {
                least += 1;
                chars.next_if_eq(&'!');
                // A `]` that comes first stands for itself.
                chars.next();
                for inner in chars.by_ref() {
                    if inner == ']' {
                        break;
                    }
                }
            }
            other => least += other.len_utf8(),
        }
    }
    least
}

/// Checks an entry of `scope.exclude`: a prefix, or a glob on interface names.
pub fn exclusion(text: &str) -> Result<(), String> {
    // No interface name has a `/` or a `:`, and none of digits and dots alone is meant as one.
    let address = text.contains(['/', ':'])
        || (text.contains('.') && text.chars().all(|c| c.is_ascii_digit() || c == '.'));
    if !address {
        return link_glob(text);
    }
    let prefix: Prefix = text.parse().map_err(|_| {
        format!("`{text}` is neither a prefix such as 10.244.0.0/16 or fd00::/8, nor a glob such as `tun-*`")
    })?;
    let bare = text.split('/').next().and_then(|addr| addr.parse::<IpAddr>().ok());
    if bare.is_some_and(|addr| addr != prefix.addr()) {
        return Err(format!(
            "`{text}` has bits behind its length: write `{prefix}` for the whole prefix, or the address \
             alone for one host"
        ));
    }
    Ok(())
}

/// Reads a routing protocol number, `rtm_protocol`.
pub fn protocol(number: i64) -> Result<u8, String> {
    u8::try_from(number).map_err(|_| {
        format!("{number} is not a protocol number: they go from 0 to 255 (kube-router's is 17)")
    })
}

/// Reads a routing table number, `RTA_TABLE`.
pub fn table(number: i64) -> Result<u32, String> {
    match u32::try_from(number) {
        Ok(table) if table > 0 => Ok(table),
        _ => Err(format!("{number} is not a routing table: they go from 1 to {} (main is 254)", u32::MAX)),
    }
}

/// Reads the address to listen on; empty switches it off.
pub fn listen(text: &str) -> Result<Option<SocketAddr>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        format!(
            "`{text}` is not an address with a port: write such as 127.0.0.1:10953 or [::1]:10953 (numbers, \
             not a host name), or \"\" to switch it off"
        )
    })
}

/// The most characters of a Node's name (RFC 1123).
const NODE_NAME_MAX: usize = 253;

/// Reads the name of a Node; empty leaves it to the environment.
pub fn node(text: &str) -> Result<String, String> {
    let part = |part: &str| {
        let inside = part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        inside && !part.is_empty() && !part.starts_with('-') && !part.ends_with('-')
    };
    if text.is_empty() || (text.len() <= NODE_NAME_MAX && text.split('.').all(part)) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "`{text}` is not the name of a Node: it has small letters, digits, `-` and `.`, as `kubectl get nodes` \
             shows; or \"\" for what NODE_NAME says in the environment"
        ))
    }
}

/// Reads the address of an API server; empty leaves it to the environment. An address, since no name can be looked up
/// where the cluster's network is what is missing.
pub fn server(text: &str) -> Result<Option<SocketAddr>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let address = text.strip_prefix("https://").map(|rest| rest.strip_suffix('/').unwrap_or(rest));
    address.and_then(|address| address.parse().ok()).map(Some).ok_or_else(|| {
        format!(
            "`{text}` is not the address of an API server: write such as https://10.0.0.1:6443 or https://[fd00::1]:6443 \
             (numbers, not a host name), or \"\" for the cluster's Service"
        )
    })
}

/// Reads an absolute path.
pub fn absolute(text: &str) -> Result<PathBuf, String> {
    if text.starts_with('/') && !text.contains('\0') {
        Ok(PathBuf::from(text))
    } else {
        Err(format!("`{text}` is not an absolute path: begin it with `/`"))
    }
}

/// Reads the path of the control socket.
pub fn socket(text: &str) -> Result<PathBuf, String> {
    if text.len() > SOCKET_PATH_MAX {
        return Err(format!(
            "the path of a Unix socket has at most {SOCKET_PATH_MAX} bytes, and this one has {}",
            text.len()
        ));
    }
    absolute(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_that_can_match_are_accepted() {
        for glob in ["kube-bridge", "tun-*", "tun-[0-9a-f]*", "*", "veth???????????", "a[]]b", "[!l]o"] {
            assert_eq!(link_glob(glob), Ok(()), "{glob}");
        }
    }

    #[test]
    fn globs_that_cannot_match_say_why() {
        for (glob, part) in [
            ("", "empty"),
            ("eth0/1", "no `/`"),
            ("eth0:1", "no `:`"),
            ("tun-[0-9", "at character 5"),
            ("a***", "at character"),
            ("kube-bridge-of-mine", "at most 15"),
            ("[abc]veth-0123456789*", "16 characters"),
            ("ünterfaceünterf", "17 characters"),
        ] {
            let error = link_glob(glob).unwrap_err();
            assert!(error.contains(part), "{glob}: {error}");
        }
    }

    #[test]
    fn exclusions_are_prefixes_or_globs() {
        for right in ["10.244.0.0/16", "10.1.2.3", "fd00::/8", "::1", "eth0", "tun-*", "0.0.0.0/0"] {
            assert_eq!(exclusion(right), Ok(()), "{right}");
        }
        for (wrong, part) in [
            ("10.244.0.0/33", "neither"),
            ("10.244.0", "neither"),
            ("fd00::/129", "neither"),
            ("10.244.3.7/16", "write `10.244.0.0/16`"),
            ("tun-[", "at character"),
        ] {
            let error = exclusion(wrong).unwrap_err();
            assert!(error.contains(part), "{wrong}: {error}");
        }
    }
}
