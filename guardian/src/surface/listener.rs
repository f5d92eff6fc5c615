//! Who holds a TCP port: for one error message.

use std::{fs, net::SocketAddr};

/// `TCP_LISTEN` of `include/net/tcp_states.h`, as /proc/net/tcp prints it.
const LISTEN: &str = "0A";

/// The process that listens on `addr` or on its port of every address, as `comm[pid]`; `None` where it cannot
/// be told (another user's, or in another pid namespace).
pub(super) fn holder(addr: SocketAddr) -> Option<String> {
    let port = format!("{:04X}", addr.port());
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .flat_map(|table| table.lines().filter_map(|line| listening(line, &port)).collect::<Vec<_>>())
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().filter(|name| name.bytes().all(|b| b.is_ascii_digit())) else {
            continue;
        };
        // Processes end meanwhile, and those of others cannot be looked into.
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        let mut targets = files.flatten().filter_map(|file| fs::read_link(file.path()).ok());
        if targets.any(|target| inodes.iter().any(|inode| target.as_os_str() == inode.as_str())) {
            let comm = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{}[{pid}]", comm.trim()));
        }
    }
    None
}

/// The inode of a line of /proc/net/tcp that listens on this port.
fn listening(line: &str, port: &str) -> Option<String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    (*state == LISTEN && local.rsplit(':').next() == Some(port)).then(|| (*inode).to_owned())
}
