//! Takes routes away in ways that are hard to trace: `route-taker HOW ADDRESS…`, of /24 routes of the main table.
//!
//! Prints the process id of whoever does it before it is done. Further words after `--` mean nothing to it.

use std::{
    collections::VecDeque,
    ffi::{CString, OsStr, OsString},
    fs,
    io::{self, IoSlice, Read as _, Write as _},
    mem,
    net::Ipv4Addr,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    process, ptr,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use lab::netlink::{Client, Key};

fn main() -> Result<()> {
    let mut words = std::env::args_os().skip(1);
    let how = words.next().context("how?")?;
    match how.to_str() {
        Some("storm") => return storm(&words.collect::<Vec<_>>()),
        Some("forks") => {
            return forks(words.next().and_then(|n| n.to_str()?.parse().ok()).context("how many?")?);
        }
        _ => {}
    }
    let keys = words
        .take_while(|word| word != "--")
        .map(|word| Ok(Key::main(word.to_str().context("not text")?.parse()?, 24)))
        .collect::<Result<Vec<_>>>()?;
    match how.to_str().context("not text")? {
        "plain" => take(&keys),
        "ioctl" => keys.iter().try_for_each(|key| by_ioctl(*key)),
        "thread" => in_thread(keys),
        "orphaned-thread" => {
            in_orphaned_thread(keys);
            Ok(())
        }
        "fork" => in_child(&keys, false),
        "vfork" => in_vfork(&keys),
        "daemon" => in_child(&keys, true),
        "kworker" => renamed(c"kworker/u8:2", &keys),
        "kube-router" => renamed(c"kube-router", &keys),
        "overwritten" => overwritten(&keys),
        "memfd" => from_memory(),
        "killed" => killed(&keys),
        "passed" => passed(&keys),
        "inherited" => inherited(&keys),
        other => bail!("{other}?"),
    }
}

fn say() -> Result<()> {
    writeln!(io::stdout(), "{}", process::id())?;
    Ok(io::stdout().flush()?)
}

fn take(keys: &[Key]) -> Result<()> {
    say()?;
    Ok(Client::open()?.delete_all(keys)?)
}

/// `SIOCDELRT` with a `struct rtentry`, as `route` from net-tools does.
fn by_ioctl(key: Key) -> Result<()> {
    say()?;
    let std::net::IpAddr::V4(dst) = key.dst else { bail!("not IPv4") };
    // SAFETY: plain old data, for which zero is a value.
    let mut entry: libc::rtentry = unsafe { mem::zeroed() };
    let address = |ip: u32| {
        // SAFETY: `sockaddr_in` and `sockaddr` have the same size, and any bytes are values of both.
        unsafe {
            mem::transmute::<libc::sockaddr_in, libc::sockaddr>(libc::sockaddr_in {
                sin_family: 2,
                sin_port: 0,
                sin_addr: libc::in_addr { s_addr: ip.to_be() },
                sin_zero: [0; 8],
            })
        }
    };
    entry.rt_dst = address(dst.into());
    entry.rt_genmask = address(0xffff_ff00);
    entry.rt_flags = 1;
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: the entry lives across the call.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCDELRT as _, &raw const entry) } != 0 {
        return Err(io::Error::last_os_error()).context("SIOCDELRT");
    }
    Ok(())
}

fn in_thread(keys: Vec<Key>) -> Result<()> {
    thread::spawn(move || take(&keys)).join().map_err(|_| anyhow::anyhow!("the thread panicked"))?
}

fn in_orphaned_thread(keys: Vec<Key>) {
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(100));
        let _ = take(&keys);
        process::exit(0);
    });
    // SAFETY: ends this thread alone.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
}

/// In a child, or the orphan of a child in a session of its own, which this process does not wait for.
fn in_child(keys: &[Key], orphan: bool) -> Result<()> {
    // SAFETY: there is one thread.
    match unsafe { libc::fork() } {
        0 if orphan => {
            // SAFETY: as above.
            unsafe {
                libc::setsid();
                if libc::fork() != 0 {
                    libc::_exit(0);
                }
            }
            // Until the one between is gone.
            thread::sleep(Duration::from_millis(100));
            take(keys)
        }
        0 => take(keys),
        child => wait(child),
    }
}

fn wait(child: i32) -> Result<()> {
    // SAFETY: no status is asked for.
    ensure!(unsafe { libc::waitpid(child, ptr::null_mut(), 0) } == child, "no child");
    Ok(())
}

/// In a child that shares this process's memory, as after `vfork`; `clone` gives it a stack of its own.
fn in_vfork(keys: &[Key]) -> Result<()> {
    extern "C" fn child(request: *mut libc::c_void) -> i32 {
        // SAFETY: the parent waits, with the request on its stack.
        let (fd, message) = unsafe { &*request.cast::<(i32, Vec<u8>)>() };
        // SAFETY: the bytes live across the call.
        let sent = unsafe { libc::send(*fd, message.as_ptr().cast(), message.len(), 0) };
        i32::from(sent < 0)
    }
    let client = Client::open()?;
    let mut request = (client.as_raw_fd(), keys.first().context("no key")?.deletion());
    let mut stack = vec![0_u128; 4096];
    // SAFETY: the stack and the request live until the child has ended, which CLONE_VFORK waits for.
    let pid = unsafe {
        libc::clone(
            child,
            stack.as_mut_ptr_range().end.cast(),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
            (&raw mut request).cast(),
        )
    };
    println!("{pid}");
    wait(pid)
}

fn renamed(name: &std::ffi::CStr, keys: &[Key]) -> Result<()> {
    // SAFETY: the name is terminated.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
    take(keys)
}

/// Writes over its own arguments, as daemons do to show a title.
fn overwritten(keys: &[Key]) -> Result<()> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let start: usize = stat
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.split_whitespace().nth(45))
        .context("stat")?
        .parse()?;
    // SAFETY: `arg_start` of this process, whose arguments are longer than this and have been parsed.
    unsafe { ptr::copy_nonoverlapping(b"innocent".as_ptr(), ptr::with_exposed_provenance_mut(start), 8) };
    take(keys)
}

/// Executes a copy of itself that is in no filesystem.
fn from_memory() -> Result<()> {
    // SAFETY: the name is terminated; the result is checked.
    let fd = unsafe { libc::memfd_create(c"taker".as_ptr(), libc::MFD_CLOEXEC) };
    ensure!(fd >= 0, "memfd_create");
    // SAFETY: a fresh descriptor.
    let mut file = unsafe { fs::File::from_raw_fd(fd) };
    let mut program = Vec::new();
    fs::File::open("/proc/self/exe")?.read_to_end(&mut program)?;
    file.write_all(&program)?;
    let words: Vec<CString> = std::env::args_os()
        .map(|word| CString::new(if word == OsStr::new("memfd") { b"plain" } else { word.as_bytes() }))
        .collect::<Result<_, _>>()?;
    let mut argv: Vec<_> = words.iter().map(|word| word.as_ptr()).collect();
    argv.push(ptr::null());
    // SAFETY: terminated lists of terminated words.
    unsafe { libc::fexecve(file.as_raw_fd(), argv.as_ptr(), [ptr::null()].as_ptr()) };
    Err(io::Error::last_os_error()).context("fexecve")
}

/// Sends, and is gone before it could read an answer.
fn killed(keys: &[Key]) -> Result<()> {
    say()?;
    let client = Client::open()?;
    for key in keys {
        client.send_raw(&key.deletion())?;
    }
    // SAFETY: two numbers.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    Ok(())
}

/// By the child, over a socket that this process made and passed to it.
fn passed(keys: &[Key]) -> Result<()> {
    let (here, there) = std::os::unix::net::UnixDatagram::pair()?;
    // SAFETY: there is one thread.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let socket = receive(there.as_raw_fd())?;
        say()?;
        for key in keys {
            send(&socket, &key.deletion())?;
        }
        return Ok(());
    }
    let client = Client::open()?;
    pass(here.as_raw_fd(), client.as_raw_fd())?;
    drop(client);
    wait(child)
}

fn send(socket: &OwnedFd, message: &[u8]) -> Result<()> {
    // SAFETY: the bytes live across the call.
    let sent = unsafe { libc::send(socket.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) };
    ensure!(sent == message.len() as isize, "send: {}", io::Error::last_os_error());
    Ok(())
}

/// A `msghdr` for one byte and one descriptor, given to `call`.
fn with_rights(mut call: impl FnMut(&mut libc::msghdr) -> isize, fd: i32) -> Result<i32> {
    let mut control = [0_u64; 4];
    let byte = [0_u8];
    let mut part = IoSlice::new(&byte);
    // SAFETY: plain old data; the buffers live across the call, and the control message fits.
    unsafe {
        let mut header: libc::msghdr = mem::zeroed();
        header.msg_iov = (&raw mut part).cast();
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = libc::CMSG_SPACE(4) as _;
        let message = libc::CMSG_FIRSTHDR(&raw const header);
        (*message).cmsg_level = libc::SOL_SOCKET;
        (*message).cmsg_type = libc::SCM_RIGHTS;
        (*message).cmsg_len = libc::CMSG_LEN(4) as _;
        libc::CMSG_DATA(message).cast::<i32>().write_unaligned(fd);
        ensure!(call(&mut header) == 1, "a descriptor: {}", io::Error::last_os_error());
        Ok(libc::CMSG_DATA(libc::CMSG_FIRSTHDR(&raw const header)).cast::<i32>().read_unaligned())
    }
}

fn pass(over: i32, fd: i32) -> Result<()> {
    // SAFETY: the header is whole, see `with_rights`.
    with_rights(|header| unsafe { libc::sendmsg(over, header, 0) }, fd).map(drop)
}

fn receive(over: i32) -> Result<OwnedFd> {
    // SAFETY: as above.
    let fd = with_rights(|header| unsafe { libc::recvmsg(over, header, 0) }, -1)?;
    // SAFETY: the kernel has just made it for this process.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// By the child, over a socket of its parent.
fn inherited(keys: &[Key]) -> Result<()> {
    let mut client = Client::open()?;
    // SAFETY: there is one thread.
    match unsafe { libc::fork() } {
        0 => {
            say()?;
            Ok(client.delete_all(keys)?)
        }
        child => wait(child),
    }
}

/// `storm PROCESSES EACH TOGETHER`: children, so many at once, each of which executes `route-taker plain` and takes so
/// many routes away.
fn storm(words: &[OsString]) -> Result<()> {
    let number = |n: usize| -> Result<u32> {
        Ok(words.get(n).and_then(|word| word.to_str()).context("PROCESSES EACH TOGETHER")?.parse()?)
    };
    let (processes, each, together) = (number(0)?, number(1)?, number(2)?);
    let next = AtomicU32::new(0);
    let run = || -> Result<()> {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= processes {
                return Ok(());
            }
            let addresses =
                (0..each).map(|k| Ipv4Addr::from(0x6440_0000 + ((n * each + k) << 8)).to_string());
            let status = process::Command::new("/proc/self/exe")
                .arg("plain")
                .args(addresses)
                .stdin(process::Stdio::null())
                .stdout(process::Stdio::null())
                .status()?;
            ensure!(status.success(), "child {n}: {status}");
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..together).map(|_| scope.spawn(run)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?)
    })
}

/// `forks PROCESSES`: children that execute nothing, some at once, each of which takes one route away. Prints a line for
/// each: its process id and the address.
fn forks(processes: u32) -> Result<()> {
    const TOGETHER: usize = 16;
    let mut running = VecDeque::new();
    for n in 0..processes {
        if running.len() >= TOGETHER {
            running.pop_front().map_or(Ok(()), wait)?;
        }
        let address = Ipv4Addr::from(0x6440_0000 + (n << 8));
        // SAFETY: there is one thread.
        match unsafe { libc::fork() } {
            0 => {
                // In one write, so that lines of several processes do not mix.
                io::stdout().write_all(format!("{} {address}\n", process::id()).as_bytes())?;
                io::stdout().flush()?;
                let taken = Client::open()?.delete_all(&[Key::main(address.into(), 24)]);
                process::exit(i32::from(taken.is_err()));
            }
            child => running.push_back(child),
        }
    }
    running.into_iter().try_for_each(wait)
}
