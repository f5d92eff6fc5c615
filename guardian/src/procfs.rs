//! Processes as /proc tells them: those that started before the guardian, and where no sensor knows.

use std::{
    fs::{self, File},
    io::Read as _,
    os::fd::{AsRawFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use rustix::fs::{FileType, Mode, OFlags};

use crate::model::{Process, ProcessId};

/// The resolution of start times in /proc: `USER_HZ` is 100 on every architecture that Linux still runs on,
/// and the kernel truncates (`nsec_to_clock_t`).
pub const TICK_NS: u64 = 10_000_000;

/// Whether both are the same run of a pid, as far as can be told: start times are compared in ticks,
/// because /proc knows no better, and a start time of 0 is one that is not known. Two runs of one pid
/// within a tick would need the whole pid space to be used up in it.
pub const fn same_run(a: ProcessId, b: ProcessId) -> bool {
    a.tgid == b.tgid && (a.start_ns == 0 || b.start_ns == 0 || a.start_ns / TICK_NS == b.start_ns / TICK_NS)
}

/// Reads a process; `None` where there is none with this pid, or it is gone before its name could be read.
///
/// Everything is read below one open directory, which stays bound to this run of the pid: a reuse of the
/// pid meanwhile cannot mix two processes. What cannot be read (the executable of a kernel thread, or of a
/// process of another user without `CAP_SYS_PTRACE`) is left out.
///
/// Start times count in ticks of 10 ms, cgroup ids are not told (0). A process adopted by another has
/// that one for its parent here; one whose parent lies outside the pid namespace has the parent 0.
pub fn read(tgid: u32) -> Option<Process> {
    let directory = Directory::open(tgid)?;
    let stat = Stat::parse(&directory.text("stat")?)?;
    let (argv, argv_cut) = parse_cmdline(&directory.bytes("cmdline").unwrap_or_default());
    let exe = fs::read_link(directory.path("exe")).ok().map(|path| path.to_string_lossy().into_owned());
    Some(Process {
        id: ProcessId { tgid, start_ns: stat.start_ns },
        parent: stat.parent(tgid),
        comm: stat.comm,
        exe_deleted: exe.as_deref().is_some_and(|exe| without_deleted(exe) != exe),
        exe: exe.map(|exe| without_deleted(&exe).to_owned()),
        argv,
        argv_cut,
        uid: directory.text("status").as_deref().and_then(parse_uid)?,
        login_uid: directory.text("loginuid").as_deref().and_then(parse_login_uid),
        cgroup_id: 0,
    })
}

/// How often a process has gone to sleep, if its first thread sleeps now; `None` where it has something to do, or is gone
/// (`State` and `voluntary_ctxt_switches` of proc(5)). Who says the same twice has slept all the time between.
pub fn asleep(id: ProcessId) -> Option<u64> {
    parse_asleep(&Directory::of(id)?.text("status")?)
}

/// Opens a folder of exactly this run as the process sees it, for a path below its root folder (`/proc/PID/root` of
/// proc(5)); `None` where there is none, or it is gone.
///
/// What is there is for the process to say: no links are followed, which might lead elsewhere, but a file system that does
/// not answer keeps waiting whoever calls this.
pub fn folder(id: ProcessId, path: &str) -> Option<File> {
    let directory = Directory::of(id)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(directory.path("root"), flags, Mode::empty()).ok()?;
    // Not by openat2(2), which could tell in one: to a unit with `RestrictSUIDSGID=` there is no such call, since a filter cannot
    // see what it is to do (`seccomp_restrict_sxid` of systemd).
    let below =
        |folder: OwnedFd, name| rustix::fs::openat(folder, name, flags | OFlags::NOFOLLOW, Mode::empty());
    let mut names = Path::new(path).components();
    let folder = names.try_fold(root, |folder, name| match name {
        Component::Normal(name) => below(folder, name).ok(),
        _ => None,
    })?;
    Some(folder.into())
}

/// What is in a file of a folder, as text, `most` bytes of it at most; `None` where there is no such file, or no text in it.
///
/// It may be for somebody else to say what is there: nothing but a file is opened. Of what is a device or a terminal, to open it may
/// be to do something.
pub fn text_of(folder: &File, name: &str, most: u64) -> Option<String> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = rustix::fs::openat(folder, name, flags, Mode::empty()).ok()?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&found).ok()?.st_mode);
    if kind != FileType::RegularFile {
        return None;
    }
    let file = File::open(format!("/proc/self/fd/{}", found.as_raw_fd())).ok()?;
    let mut text = String::new();
    file.take(most).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Whether a process may change links and routes of this network namespace: it has `CAP_NET_ADMIN`, and not merely in a user
/// namespace of its own.
pub fn may_configure_network(id: ProcessId) -> bool {
    let may = || {
        let directory = Directory::of(id)?;
        let namespace = fs::read_link(directory.path("ns/user")).ok()?;
        let same = namespace == fs::read_link("/proc/self/ns/user").ok()?;
        Some(same && parse_net_admin(&directory.text("status")?)?)
    };
    may().unwrap_or(false)
}

/// Reads `/proc/PID/cgroup` of exactly this run; `None` where it is gone.
pub fn cgroup(id: ProcessId) -> Option<String> {
    Directory::of(id)?.text("cgroup")
}

/// Where a process works, and whether its executable is gone from its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The working directory in its mount namespace.
    pub cwd: Option<String>,
    /// Whether the executable was deleted or replaced since.
    pub exe_deleted: bool,
}

/// Reads what may change while a process runs, of exactly this run; `None` where it is gone.
pub fn surroundings(id: ProcessId) -> Option<Surroundings> {
    let directory = Directory::of(id)?;
    let link = |name| Some(fs::read_link(directory.path(name)).ok()?.to_string_lossy().into_owned());
    let exe_deleted = link("exe").is_some_and(|exe| without_deleted(&exe) != exe);
    Some(Surroundings { cwd: link("cwd"), exe_deleted })
}

/// All processes that are running, in the order of their pids.
pub fn all() -> impl Iterator<Item = Process> {
    pids().into_iter().filter_map(read)
}

/// The processes of this network namespace whose executable has such a path, in the order of their pids.
pub fn here(is_one: impl Fn(&str) -> bool) -> impl Iterator<Item = Process> {
    let link = |tgid: u32, name| fs::read_link(format!("/proc/{tgid}/{name}")).ok();
    let here = fs::read_link("/proc/self/ns/net").ok();
    pids()
        .into_iter()
        .filter(move |&tgid| {
            let exe = link(tgid, "exe");
            let is_one = exe.and_then(|exe| Some(is_one(without_deleted(exe.to_str()?)))) == Some(true);
            is_one && here.is_some() && link(tgid, "ns/net") == here
        })
        .filter_map(read)
}

fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    let mut pids: Vec<u32> =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    pids
}

/// The program of a path, without the suffix that the kernel appends (`d_path`) when the file was deleted,
/// or replaced by another, since. A file that is really called so cannot be told from it; only who may
/// write next to the program can make one.
pub fn without_deleted(path: &str) -> &str {
    path.strip_suffix(" (deleted)").unwrap_or(path)
}

/// `/proc/PID`, held open.
struct Directory {
    _open: File,
    path: PathBuf,
}

impl Directory {
    fn open(tgid: u32) -> Option<Self> {
        let open = File::open(Path::new("/proc").join(tgid.to_string())).ok()?;
        let path = Path::new("/proc/self/fd").join(open.as_raw_fd().to_string());
        Some(Self { _open: open, path })
    }

    /// That of exactly this run; `None` where it is gone.
    fn of(id: ProcessId) -> Option<Self> {
        let directory = Self::open(id.tgid)?;
        let stat = Stat::parse(&directory.text("stat")?)?;
        same_run(id, ProcessId { tgid: id.tgid, start_ns: stat.start_ns }).then_some(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn text(&self, name: &str) -> Option<String> {
        fs::read(self.path(name)).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// As much of the arguments as is kept, and one byte more to see that there are more.
    fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(Process::ARGV_MAX + 1);
        let file = File::open(self.path(name)).ok()?;
        file.take(Process::ARGV_MAX as u64 + 1).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }
}

/// What is needed of `/proc/PID/stat` (proc(5)).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    comm: String,
    ppid: u32,
    start_ns: u64,
}

impl Stat {
    /// The comm stands in parentheses and may itself hold any of `) (` and spaces: it ends at the last one.
    fn parse(text: &str) -> Option<Self> {
        let (head, tail) = text.rsplit_once(')')?;
        let (_, comm) = head.split_once('(')?;
        let mut fields = tail.split_ascii_whitespace();
        let ppid = fields.nth(1)?.parse().ok()?;
        let ticks: u64 = fields.nth(17)?.parse().ok()?;
        Some(Self { comm: comm.to_owned(), ppid, start_ns: ticks.checked_mul(TICK_NS)? })
    }

    /// The parent with its own start time, 0 where it is gone meanwhile; none for PID 1.
    fn parent(&self, tgid: u32) -> Option<ProcessId> {
        let start = |ppid| Self::parse(&Directory::open(ppid)?.text("stat")?).map(|stat| stat.start_ns);
        match self.ppid {
            0 if tgid == 1 => None,
            0 => Some(ProcessId { tgid: 0, start_ns: 0 }),
            ppid => Some(ProcessId { tgid: ppid, start_ns: start(ppid).unwrap_or(0) }),
        }
    }
}

/// The arguments, each terminated by a zero byte, cut at [`Process::ARGV_MAX`] bytes; and whether they were.
fn parse_cmdline(bytes: &[u8]) -> (Vec<String>, bool) {
    let cut = bytes.len() > Process::ARGV_MAX;
    let bytes = bytes.get(..Process::ARGV_MAX).unwrap_or(bytes);
    if bytes.is_empty() {
        return (Vec::new(), cut);
    }
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    (bytes.split(|&byte| byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect(), cut)
}

/// What `/proc/PID/status` says behind a name.
fn value<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// The real user id from `/proc/PID/status`.
fn parse_uid(status: &str) -> Option<u32> {
    value(status, "Uid:")?.split_ascii_whitespace().next()?.parse().ok()
}

/// [`asleep`], of `/proc/PID/status`.
fn parse_asleep(status: &str) -> Option<u64> {
    value(status, "State:").filter(|state| state.starts_with('S'))?;
    value(status, "voluntary_ctxt_switches:")?.parse().ok()
}

/// Whether `CAP_NET_ADMIN` is among the effective capabilities of `/proc/PID/status`.
fn parse_net_admin(status: &str) -> Option<bool> {
    /// `include/uapi/linux/capability.h`.
    const CAP_NET_ADMIN: u64 = 12;
    let effective = u64::from_str_radix(value(status, "CapEff:")?, 16).ok()?;
    Some(effective & (1 << CAP_NET_ADMIN) != 0)
}

/// The audit login uid; -1 as an unsigned number is nobody (`AUDIT_UID_UNSET`).
fn parse_login_uid(text: &str) -> Option<u32> {
    text.trim().parse().ok().filter(|&uid| uid != u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        process::{Child, Command, Stdio},
    };

    use super::*;

    /// A child that is ended with the test.
    struct Running(Child);

    impl Running {
        fn start(command: &mut Command) -> Self {
            Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
        }

        /// The first line it prints.
        fn line(&mut self) -> String {
            let mut line = String::new();
            BufReader::new(self.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
            line.trim().to_owned()
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn stat_survives_hostile_names() {
        let tail = "S 42 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 1 2 3";
        for comm in ["ip", "tmux: server", "a) S 1 (b", ")", "", "kworker/0:1-eve"] {
            let stat = Stat::parse(&format!("7 ({comm}) {tail}")).unwrap();
            assert_eq!(stat, Stat { comm: comm.to_owned(), ppid: 42, start_ns: 1_234_560_000_000 });
        }
        for bad in ["", "7 (ip", "7 ip) S", "7 (ip) S 42", "7 (ip) S x 7"] {
            assert_eq!(Stat::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn arguments_keep_empty_words_and_show_the_cut() {
        assert_eq!(parse_cmdline(b""), (vec![], false));
        assert_eq!(parse_cmdline(b"ip\0route\0"), (vec!["ip".into(), "route".into()], false));
        assert_eq!(
            parse_cmdline(b"a\0\0b\0\0"),
            (vec!["a".into(), String::new(), "b".into(), String::new()], false)
        );
        assert_eq!(parse_cmdline(b"sshd: root [priv]"), (vec!["sshd: root [priv]".into()], false));
        let long = vec![b'x'; Process::ARGV_MAX + 1];
        assert_eq!(parse_cmdline(&long), (vec!["x".repeat(Process::ARGV_MAX)], true));
        assert!(!parse_cmdline(&long[..Process::ARGV_MAX]).1);
    }

    #[test]
    fn nobody_logged_in_is_not_a_user() {
        assert_eq!(parse_login_uid("4294967295"), None);
        assert_eq!(parse_login_uid("1000\n"), Some(1000));
        assert_eq!(parse_uid("Name:\tx\nUid:\t101\t0\t0\t0\n"), Some(101));
        assert_eq!(parse_uid("Name:\tx\n"), None);
    }

    /// A shell that says so when it runs, and then waits for its end. (Before, it may be between two
    /// programs: the kernel lets the parent of a vfork go on before the arguments are in place.)
    fn shell(program: &str, arguments: &[&str]) -> Running {
        let mut child =
            Running::start(Command::new(program).args(["-c", "echo; read never"]).args(arguments));
        child.line();
        child
    }

    #[test]
    fn reads_a_child_as_it_was_started() {
        let child = shell("/bin/sh", &["a b", ""]);
        let process = read(child.0.id()).unwrap();
        assert_eq!(process.argv, ["/bin/sh", "-c", "echo; read never", "a b", ""]);
        assert_eq!(process.comm, "sh");
        let expected = fs::canonicalize("/bin/sh").unwrap();
        assert_eq!(process.exe.as_deref(), expected.to_str());
        let parent = process.parent.unwrap();
        let own = read(std::process::id()).unwrap();
        assert_eq!(parent, own.id);
        assert!(process.id.start_ns >= own.id.start_ns);
        assert_eq!(process.uid, own.uid);
    }

    #[test]
    fn a_long_command_line_is_cut() {
        let child = shell("/bin/sh", &vec!["0"; 4000]);
        let process = read(child.0.id()).unwrap();
        assert!(process.argv_cut);
        // The last word may be cut off before its terminator.
        let bytes: usize = process.argv.iter().map(|word| word.len() + 1).sum();
        assert!((Process::ARGV_MAX..=Process::ARGV_MAX + 1).contains(&bytes), "{bytes}");
    }

    #[test]
    fn a_name_can_be_made_up_but_not_the_executable() {
        let script = "printf '%s' 'kube-router) S 1 (' >/proc/$$/comm; echo; read never";
        let mut child = Running::start(Command::new("/bin/sh").args(["-c", script]));
        child.line();
        let process = read(child.0.id()).unwrap();
        assert_eq!(process.comm, "kube-router) S ");
        let shell = fs::canonicalize("/bin/sh").unwrap();
        assert_eq!(process.exe.as_deref(), shell.to_str());
        assert_eq!(process.parent.unwrap().tgid, std::process::id());
    }

    #[test]
    fn who_has_nothing_to_do_sleeps() {
        let mut waits = Running::start(Command::new("/bin/sh").args(["-c", "echo; exec sleep 600"]));
        let mut runs = Running::start(Command::new("/bin/sh").args(["-c", "echo; while :; do :; done"]));
        waits.line();
        runs.line();
        let id = |child: &Running| read(child.0.id()).unwrap().id;
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while asleep(id(&waits)).is_none() {
            assert!(std::time::Instant::now() < deadline, "it does not go to sleep");
            std::thread::yield_now();
        }
        assert_eq!(asleep(id(&waits)), asleep(id(&waits)), "and sleeps on");
        assert_eq!(asleep(id(&runs)), None);
        let earlier = ProcessId { start_ns: id(&waits).start_ns - TICK_NS, ..id(&waits) };
        assert_eq!(asleep(earlier), None, "another run of this pid");
    }

    #[test]
    fn a_folder_is_the_one_that_a_process_sees() {
        let mut child = Running::start(Command::new("/bin/sh").args(["-c", "echo; exec sleep 600"]));
        child.line();
        let id = read(child.0.id()).unwrap().id;
        let temporary = tempfile::tempdir().unwrap();
        let place = temporary.path().canonicalize().unwrap();
        let below = |name: &str| place.join(name).to_str().unwrap().trim_start_matches('/').to_owned();
        fs::create_dir(place.join("links")).unwrap();
        fs::write(place.join("links/7"), "").unwrap();
        let open = folder(id, &below("links")).unwrap();
        let names = fs::read_dir(Path::new("/proc/self/fd").join(open.as_raw_fd().to_string())).unwrap();
        assert_eq!(names.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>(), ["7"]);
        for other in ["none", "links/7"] {
            assert!(folder(id, &below(other)).is_none(), "{other}");
        }
        let earlier = ProcessId { start_ns: id.start_ns - TICK_NS, ..id };
        assert!(folder(earlier, &below("links")).is_none(), "another run of this pid");
        // Through a link of /proc it would be another's.
        std::os::unix::fs::symlink("/proc/self/root", place.join("out")).unwrap();
        assert!(folder(id, &below("out")).is_none());
    }

    #[test]
    fn who_has_capabilities_of_its_own_only_may_not_configure_this_network() {
        let may = |words: &[&str]| {
            let mut child = Running::start(Command::new(words[0]).args(&words[1..]));
            assert_eq!(child.line(), "it runs", "{words:?}");
            may_configure_network(read(child.0.id()).unwrap().id)
        };
        let runs = "echo it runs; exec sleep 600";
        let own = parse_net_admin(&fs::read_to_string("/proc/self/status").unwrap());
        assert_eq!(Some(may(&["sh", "-c", runs])), own);
        let unshared = ["unshare", "--user", "--map-root-user", "sh", "-c", runs];
        assert!(!may(&unshared), "{own:?}");
        for (status, expected) in [
            ("Name:\tx\nCapEff:\t0000000000001000\n", Some(true)),
            ("CapEff:\t000001ffffffefff\n", Some(false)),
            ("CapEff:\tx\n", None),
            ("CapPrm:\t0000000000001000\n", None),
        ] {
            assert_eq!(parse_net_admin(status), expected, "{status}");
        }
    }

    #[test]
    fn a_deleted_program_keeps_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().canonicalize().unwrap().join("kube-router");
        // By another process: a descriptor open for writing here could leak into a child of another test.
        assert!(Command::new("cp").arg("/bin/sh").arg(&program).status().unwrap().success());
        let child = shell(program.to_str().unwrap(), &[]);
        fs::remove_file(&program).unwrap();
        let process = read(child.0.id()).unwrap();
        assert_eq!(process.exe.as_deref(), program.to_str());
        assert!(process.exe_deleted);
        let around = surroundings(process.id).unwrap();
        assert_eq!(around.cwd.as_deref(), std::env::current_dir().unwrap().to_str());
        assert!(around.exe_deleted);
        let earlier = ProcessId { start_ns: process.id.start_ns - TICK_NS, ..process.id };
        assert_eq!(surroundings(earlier), None);
        assert!(!read(std::process::id()).unwrap().exe_deleted);
    }

    #[test]
    fn an_orphan_of_a_double_fork_has_whoever_adopted_it() {
        let mut child =
            Running::start(Command::new("/bin/sh").args(["-c", "(sleep 600 >&- & echo $!); exec sleep 600"]));
        let pid: u32 = child.line().parse().unwrap();
        let orphan = read(pid);
        // SAFETY: kill(2) takes two numbers; the process is the one that the shell above has just started.
        unsafe { libc::kill(pid as i32, libc::SIGKILL) };
        let orphan = orphan.unwrap();
        let adopted_by = orphan.parent.unwrap();
        assert_ne!(adopted_by.tgid, child.0.id());
        assert!(adopted_by.start_ns <= orphan.id.start_ns);
    }

    #[test]
    fn the_gone_are_not_there_and_a_wrong_start_time_is_somebody_else() {
        let mut child = Running::start(&mut Command::new("/bin/true"));
        let pid = child.0.id();
        child.0.wait().unwrap();
        assert_eq!(read(pid), None);
        assert_eq!(cgroup(ProcessId { tgid: pid, start_ns: 0 }), None);

        let own = read(std::process::id()).unwrap().id;
        assert!(cgroup(own).is_some());
        assert!(cgroup(ProcessId { start_ns: own.start_ns + TICK_NS - 1, ..own }).is_some());
        assert_eq!(cgroup(ProcessId { start_ns: own.start_ns + TICK_NS, ..own }), None);
    }

    #[test]
    fn the_first_of_all_is_here() {
        let pids: Vec<u32> = all().map(|process| process.id.tgid).collect();
        assert!(pids.contains(&std::process::id()));
        assert!(pids.is_sorted());
    }
}
