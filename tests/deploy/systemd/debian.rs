//! A clean Debian in namespaces of its own: made once from the archive, then unpacked into a tmpfs for each test.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Mutex,
};

use anyhow::{Context, Result, ensure};
use lab::Tethered;

use crate::{run, said, top};

/// Packages beyond those that every Debian has.
const INCLUDED: &str = "systemd-sysv,iproute2,rpm";

/// Two tests must not make the archive of it at once.
static MAKING: Mutex<()> = Mutex::new(());

/// Makes the namespaces (but for that of mounts, which it is started in) and waits for their end. $1: an empty folder;
/// $2: the archive; $3: a name; the rest: the first process. A cgroup of its own is what systemd needs; it is on the
/// machine, and so is taken away at the end.
const OUTSIDE: &str = r#"
set -e
dir=$1 archive=$2 name=$3
shift 3
mount --make-rprivate /
mount -t tmpfs none "$dir"
mkdir "$dir/root" "$dir/cgroup"
mount -t cgroup2 none "$dir/cgroup"
mkdir "$dir/cgroup/$name"
sh -c 'echo $$ > "$0" && exec "$@"' "$dir/cgroup/$name/cgroup.procs" setpriv --pdeathsig KILL \
    unshare --cgroup --pid --fork --kill-child --net --uts --ipc --mount sh -c "$INSIDE" inside "$dir/root" "$archive" "$@" &
inner=$!
trap 'kill -KILL $inner 2>/dev/null || :' TERM
# What ends it, and that it was ended, is no news.
{ wait $inner || wait $inner || true; } 2>/dev/null
# The kernel is a moment behind with what has ended.
for turn in $(seq 40); do
    if find "$dir/cgroup/$name" -depth -type d -exec rmdir {} + 2>/dev/null; then break; fi
    [ "$turn" -lt 40 ] || echo "the cgroup $name is left" >&2
    sleep 0.1
done
"#;

/// Unpacks, makes it the root, says its process id as it is outside, and becomes the first process.
const INSIDE: &str = r#"
set -e
root=$1 archive=$2
shift 2
mount -t tmpfs none "$root"
tar --extract --file "$archive" --directory "$root" --exclude './dev/*'
mount -t tmpfs none "$root/dev"
for device in null zero full random urandom tty; do
    : > "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
ln -s /proc/self/fd "$root/dev/fd"
ln -s pts/ptmx "$root/dev/ptmx"
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t devpts -o newinstance none "$root/dev/pts"
mount -t tmpfs none "$root/run"
mount -t sysfs none "$root/sys"
mount -t cgroup2 none "$root/sys/fs/cgroup"
mount -t proc none "$root/proc"
read -r pid _ < /proc/self/stat
cd "$root"
mkdir old
pivot_root . old
umount -l old
rmdir old
ip link set lo up
echo "$pid"
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@" < /dev/null > /dev/null 2>&1
"#;

/// A Debian that runs. Dropped, all of it is gone: who makes the namespaces is told to end, and takes it along.
pub struct Debian {
    _process: Tethered,
    /// Its first process, as the machine counts.
    init: String,
    _dir: tempfile::TempDir,
}

impl Debian {
    /// One whose first process does nothing.
    pub fn asleep() -> Result<Self> {
        Self::start(&["sleep", "infinity"])
    }

    /// One whose first process is systemd.
    pub fn booted() -> Result<Self> {
        let debian = Self::start(&["/lib/systemd/systemd"])?;
        // "degraded": what looks for hardware has failed; "offline": it has not opened its socket yet.
        lab::wait_for("systemd to have started everything", std::time::Duration::from_secs(60), || {
            let output = debian.try_sh("systemctl is-system-running")?;
            Ok(["running", "degraded"].contains(&String::from_utf8_lossy(&output.stdout).trim()))
        })?;
        Ok(debian)
    }

    fn start(init: &[&str]) -> Result<Self> {
        let archive = archive()?;
        let dir = tempfile::Builder::new().prefix("route-guardian-debian-").tempdir()?;
        let name = dir.path().file_name().context("no name")?.to_owned();
        let mut process = lab::tethered(
            Command::new("unshare")
                .args(["--mount", "sh", "-c", OUTSIDE, "outside"])
                .args([dir.path(), &archive, Path::new(&name)])
                .args(init)
                .env("INSIDE", INSIDE)
                .stdin(Stdio::null())
                .stdout(Stdio::piped()),
        )?;
        let mut init = String::new();
        let stdout = process.child().stdout.take().context("no pipe")?;
        BufReader::new(stdout).read_line(&mut init)?;
        let init = init.trim().to_owned();
        ensure!(!init.is_empty(), "no Debian could be started: what it said is above");
        Ok(Self { _process: process, init, _dir: dir })
    }

    fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init, "--all", "--", "env", "-i", "DEBIAN_FRONTEND=noninteractive"]);
        command.args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", program]);
        command
    }

    /// Runs a line in a shell: how it ended and what it said.
    pub fn try_sh(&self, line: &str) -> Result<Output> {
        Ok(self.inside("timeout").args(["60", "sh", "-c", line]).stdin(Stdio::null()).output()?)
    }

    /// The same where it has to succeed: what it printed, trimmed.
    pub fn sh(&self, line: &str) -> Result<String> {
        let output = self.try_sh(line)?;
        ensure!(output.status.success(), "`{line}` failed: {}:\n{}", output.status, said(&output));
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Whether a line ends well.
    pub fn holds(&self, line: &str) -> Result<bool> {
        Ok(self.try_sh(line)?.status.success())
    }

    /// Writes a file.
    pub fn put(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let mut child = self.inside("sh").args(["-c", "cat > \"$0\"", path]).stdin(Stdio::piped()).spawn()?;
        child.stdin.take().context("no pipe")?.write_all(bytes)?;
        ensure!(child.wait()?.success(), "{path} cannot be written");
        Ok(())
    }

    /// Brings a package in and installs it, with the default answer to whether a changed configuration stays.
    pub fn install(&self, package: &Path) -> Result<()> {
        self.put("/tmp/package.deb", &fs::read(package)?)?;
        self.sh("dpkg --force-confdef --install /tmp/package.deb && rm /tmp/package.deb")?;
        Ok(())
    }
}

/// The archive of a Debian of this machine's own release and sources, made where there is none yet.
fn archive() -> Result<PathBuf> {
    let _making = MAKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let release = fs::read_to_string("/etc/os-release")?;
    let codename = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .context("/etc/os-release names no release of Debian")?;
    let folder = top().join("target/debian");
    let archive = folder.join(format!("{codename}-{INCLUDED}.tar"));
    if archive.is_file() {
        return Ok(archive);
    }
    fs::create_dir_all(&folder)?;
    let half = folder.join("half.tar");
    let mut make = Command::new("mmdebstrap");
    make.args(["--quiet", "--variant=minbase", "--include", INCLUDED, codename]).arg(&half).args(sources());
    run(&mut make).context("no clean Debian can be made")?;
    fs::rename(half, &archive)?;
    Ok(archive)
}

/// Where this machine has its packages from.
fn sources() -> Vec<PathBuf> {
    let more = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().filter_map(Result::ok);
    let all = more.map(|entry| entry.path()).chain(["/etc/apt/sources.list".into()]);
    let named = |path: &PathBuf| path.extension().is_some_and(|end| end == "list" || end == "sources");
    all.filter(|path| path.is_file() && named(path)).collect()
}
