//! Virtual machines with Debian's own kernels, under QEMU: for the kernels that clusters run, and where this
//! machine's own cannot make network namespaces.
//!
//! The guest's root is an initramfs of programs of this machine with their libraries, and of the kernel's
//! modules. Its only init is a shell script; what it runs writes to a serial port that is our output.

mod archive;
mod cpio;
mod image;
mod kernel;
mod release;
mod systemd;

use std::{
    env, fs,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};

use lab::tethered;

use crate::{
    packages,
    program::{self, say},
    setup,
};

/// The series that are tried where none is named: the newest that Debian 12 has, and the oldest.
pub const SERIES: [&str; 2] = ["6.12", "6.1"];

/// What Debian's releases have cloud kernels of, and clusters run. (Those after 6.18 have their modules in packages of
/// their own.)
pub const ALL_SERIES: [&str; 4] = ["5.10", "6.1", "6.12", "6.18"];

/// What a guest with systemd is made of.
const SYSTEMD: &[packages::Wanted] = &[
    ("/lib/systemd/systemd", "systemd"),
    ("udevadm", "udev"),
    ("dbus-daemon", "dbus"),
    ("dnsmasq", "dnsmasq-base"),
    ("ipvsadm", "ipvsadm"),
];

/// What QEMU and the making of the image need on this machine.
const WANTED: &[packages::Wanted] = &[("qemu-system-x86_64", "qemu-system-x86"), ("depmod", "kmod")];

/// One thread for all of a guest's CPUs. With one for each the emulator may still run a breakpoint that the kernel has
/// taken out again while it patched its own code, as it does when a program is attached on the path of packets; and the
/// kernel takes that for its own fault (`do_int3`).
const EMULATION: &str = "tcg,thread=single";

/// After this a guest has hung: it is ended.
const LIMIT: Duration = Duration::from_secs(120 * 60);

/// The line by which the guest tells how its command ended.
const ENDED: &str = "route-guardian-vm ended with ";

/// What runs in a guest.
pub struct Job {
    /// The kernel's series, such as `6.12`.
    pub series: String,
    /// A line for the guest's shell.
    pub command: String,
    /// Files of this machine that the guest is to have, at the same paths.
    pub files: Vec<PathBuf>,
    /// What its first process is.
    pub init: Init,
    /// The release of Debian whose systemd it has; without one, this machine's.
    pub release: Option<String>,
}

/// A guest's first process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    /// A shell script, which starts in a second or two.
    Script,
    /// systemd with udev, on a node with two network cards that are wired together.
    Systemd,
}

/// How a guest's command ended.
pub struct Outcome {
    /// Whether it succeeded.
    pub succeeded: bool,
    /// The lines that it printed.
    pub lines: Vec<String>,
}

/// Starts a guest, shows what its command prints, and returns whether that succeeded.
pub fn run(job: &Job) -> Result<bool> {
    Ok(Guest::prepare(job)?.boot("")?.succeeded)
}

/// Runs all, as many at a time as this machine has CPUs for; each line that one prints has its series before it then. What
/// fails in one is no matter of the others.
pub fn run_all(jobs: &[Job]) -> Vec<Result<Outcome>> {
    // An emulated guest has one thread for all of its own.
    let cpus = if kvm() { jobs.iter().map(|job| job.init.cpus()).max().unwrap_or(1) } else { 1 };
    let at_once = thread::available_parallelism().map_or(1, |here| (here.get() / cpus).max(1));
    // One installs and fetches at a time.
    let preparing = Mutex::new(());
    let run = |job: &Job, mark: &str| {
        let one = preparing.lock().map_err(|_| anyhow!("another guest's preparation broke off"))?;
        let guest = Guest::prepare(job)?;
        drop(one);
        guest.boot(mark)
    };
    let mut outcomes = Vec::new();
    for batch in jobs.chunks(at_once) {
        let mark = |job: &Job| if batch.len() > 1 { format!("{} | ", job.series) } else { String::new() };
        outcomes.extend(thread::scope(|scope| {
            let threads: Vec<_> = batch.iter().map(|job| scope.spawn(|| run(job, &mark(job)))).collect();
            let ended = threads.into_iter().map(|thread| match thread.join() {
                Ok(outcome) => outcome,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            ended.collect::<Vec<_>>()
        }));
    }
    outcomes
}

/// A guest that is ready to be started.
struct Guest {
    kernel: kernel::Kernel,
    init: Init,
    /// Its image, and QEMU's sockets.
    dir: Folder,
}

impl Guest {
    /// Fetches and writes what it needs.
    fn prepare(job: &Job) -> Result<Self> {
        setup::programs(WANTED)?;
        if job.init == Init::Systemd {
            setup::programs(SYSTEMD)?;
        }
        let kernel = kernel::find(&job.series)?;
        let dir = Folder::new().context("cannot make a folder for the guest's image")?;
        image::write(&dir.initramfs(), &kernel, job)?;
        Ok(Self { kernel, init: job.init, dir })
    }

    /// Runs its command, and shows what that prints, each line after `mark`.
    fn boot(&self, mark: &str) -> Result<Outcome> {
        let how = if kvm() { "KVM" } else { "emulated: slow" };
        say(&format!("Linux {} under QEMU ({how})", self.kernel.release));
        boot(&self.kernel, &self.dir, self.init, mark)
    }
}

/// A folder below target/ for one guest of a run; what an interrupted one left is removed by the next.
struct Folder(PathBuf);

/// The next one's number.
static NEXT: AtomicU32 = AtomicU32::new(0);

impl Folder {
    fn new() -> io::Result<Self> {
        let all = program::root().join("target/vm");
        fs::create_dir_all(&all)?;
        for left in fs::read_dir(&all)?.filter_map(Result::ok) {
            let name = left.file_name().to_string_lossy().into_owned();
            let process = name.split('-').next().unwrap_or_default();
            if !Path::new("/proc").join(process).exists() {
                fs::remove_dir_all(left.path())?;
            }
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = all.join(format!("{}-{number}", std::process::id()));
        fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }

    fn initramfs(&self) -> PathBuf {
        self.0.join("initramfs")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// KVM is for who asks for it: under some clouds' nested virtualisation it is there and does not work.
fn kvm() -> bool {
    env::var_os("ROUTE_GUARDIAN_KVM").is_some()
}

/// How many times slower than this machine a guest is, about; for tests, which then wait longer and do less.
pub fn slowness() -> u32 {
    if kvm() { 1 } else { 10 }
}

fn boot(kernel: &kernel::Kernel, dir: &Folder, init: Init, mark: &str) -> Result<Outcome> {
    let console = dir.0.join("console");
    let accelerator: &[&str] =
        if kvm() { &["-accel", "kvm", "-cpu", "host"] } else { &["-accel", EMULATION, "-cpu", "max"] };
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args([
            "-machine",
            "q35",
            "-smp",
            &init.cpus().to_string(),
            "-m",
            "3072",
            "-no-reboot",
            "-display",
            "none",
        ])
        .args(accelerator)
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(dir.initramfs())
        .arg("-append")
        .arg(format!("console=ttyS0 quiet panic=-1 tsc=reliable {}", init.kernel_arguments()))
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .args(["-serial", "stdio"])
        .args(init.devices(&dir.0))
        .args(if kvm() { &[] } else { init.clock() })
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    // It ends with this program, however that ends.
    let mut qemu = tethered(&mut command).context("cannot start qemu-system-x86_64")?;
    let output = qemu.child().stdout.take().context("QEMU has no output")?;
    let over = Arc::new(AtomicBool::new(false));
    let (watched, pid) = (Arc::clone(&over), qemu.pid());
    thread::spawn(move || {
        thread::sleep(LIMIT);
        if !watched.load(Ordering::Relaxed) {
            say(&format!("the guest has not ended after {} minutes: it is ended", LIMIT.as_secs() / 60));
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
        }
    });
    let (mut ended, mut lines) = (None, Vec::new());
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("cannot read the guest's output")?;
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end_matches('\r');
        // What came last may have had no end of line.
        let (said, code) = line.split_once(ENDED).map_or((line, None), |(said, code)| (said, Some(code)));
        ended = code.and_then(|code| code.trim().parse::<i32>().ok()).or(ended);
        if code.is_none() || !said.is_empty() {
            println!("{mark}{said}");
            io::stdout().flush()?;
            lines.push(said.to_owned());
        }
    }
    over.store(true, Ordering::Relaxed);
    qemu.child().wait()?;
    if ended != Some(0) {
        show_tail(&console, mark);
    }
    match ended {
        Some(code) => Ok(Outcome { succeeded: code == 0, lines }),
        None => bail!("the guest ended without a word of how its command did"),
    }
}

fn show_tail(console: &Path, mark: &str) {
    let text = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    eprintln!("{mark}The end of the guest's console:");
    for line in lines.iter().skip(lines.len().saturating_sub(40)) {
        eprintln!("{mark}  {line}");
    }
}
