//! Who is behind a netlink port: the process that holds the socket. For kernels that do not tell a program which task
//! runs it.
//!
//! A port says less than a task: whoever has closed the socket by now is not found, and of several holders of one the
//! first is named. So what comes of it is never more than partial.

use std::{fs, path::Path, sync::Arc};

use crate::{
    model::{Actor, Confidence, Process},
    procfs,
};

/// The netlink sockets of this network namespace (`netlink_seq_show` in `net/netlink/af_netlink.c`).
const SOCKETS: &str = "/proc/thread-self/net/netlink";

/// The family `NETLINK_ROUTE`.
const ROUTE: &str = "0";

/// Ancestors that are looked up.
const ANCESTORS: usize = 32;

/// The last port that was asked about, and who holds it: a burst is one process's.
#[derive(Debug, Default)]
pub struct Ports {
    last: Option<(u32, u64, Option<Arc<Actor>>)>,
}

impl Ports {
    /// Who holds the socket of this port in the network namespace of the calling thread. `None` where it is closed
    /// already, or held by nobody in this pid namespace.
    pub fn holder(&mut self, port: u32) -> Option<Arc<Actor>> {
        let inode = inode(&fs::read_to_string(SOCKETS).ok()?, port)?;
        if let Some((known, of, actor)) = &self.last
            && (*known, *of) == (port, inode)
        {
            return actor.clone();
        }
        let actor = process(port, inode).map(|process| {
            Arc::new(Actor::Process {
                ancestors: ancestors(&process),
                process: Arc::new(process),
                thread: None,
                cgroup: None,
                confidence: Confidence::Partial,
            })
        });
        // Also that nobody is found, which takes a look at all processes.
        self.last = Some((port, inode, actor.clone()));
        actor
    }
}

/// The inode of the socket of a port in a table of sockets.
fn inode(table: &str, port: u32) -> Option<u64> {
    let port = port.to_string();
    let lines = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    // sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode
    let mut of_port = lines.filter(|fields| fields.get(1..3) == Some(&[ROUTE, &*port]));
    of_port.next()?.get(9)?.parse().ok()
}

/// The process that has a descriptor of a socket. Most have the port that is their pid (`netlink_autobind`), so that
/// one is looked at first.
fn process(port: u32, inode: u64) -> Option<Process> {
    let socket = format!("socket:[{inode}]");
    if holds(port, &socket) {
        return procfs::read(port);
    }
    procfs::all().find(|process| holds(process.id.tgid, &socket))
}

fn holds(pid: u32, socket: &str) -> bool {
    let descriptors = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd"));
    let links = descriptors.into_iter().flatten().filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links.into_iter().any(|link| link == Path::new(socket))
}

fn ancestors(process: &Process) -> Vec<Arc<Process>> {
    let parent = |of: &Process| procfs::read(of.parent?.tgid);
    std::iter::successors(parent(process), parent).take(ANCESTORS).map(Arc::new).collect()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

    use super::*;

    #[test]
    fn the_socket_of_a_port_is_found_in_the_kernels_table() {
        let table = "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n\
            0000000000000000 0   812        00000551 0        0        0     2        0        17302   \n\
            0000000000000000 15  812        00000002 0        0        0     2        0        17303   \n\
            0000000000000000 0   0          00000000 0        0        0     2        0        9       \n";
        assert_eq!(inode(table, 812), Some(17302));
        assert_eq!(inode(table, 813), None);
        assert_eq!(inode("", 1), None);
    }

    #[test]
    fn the_holder_of_a_socket_is_named_until_it_is_closed() {
        let mut socket = Socket::new(NETLINK_ROUTE).unwrap();
        // Not our pid: another socket may have that.
        socket.bind(&SocketAddr::new(0, 0)).unwrap();
        let mut address = SocketAddr::new(0, 0);
        socket.get_address(&mut address).unwrap();
        assert!(socket.as_raw_fd() > 2);
        let mut ports = Ports::default();
        let actor = ports.holder(address.port_number()).expect("this process holds it");
        let Actor::Process { process, confidence: Confidence::Partial, ancestors, .. } = &*actor else {
            panic!("{actor:?}")
        };
        assert_eq!(process.id.tgid, std::process::id());
        assert_eq!(process.exe.as_deref(), std::env::current_exe().unwrap().to_str());
        assert_eq!(ancestors.first().map(|parent| parent.id.tgid), Some(std::os::unix::process::parent_id()));
        assert!(Arc::ptr_eq(&actor, &ports.holder(address.port_number()).unwrap()), "looked up once");
        drop(socket);
        assert!(ports.holder(address.port_number()).is_none());
    }
}
