//! Whose changes are obeyed.

use std::path::{Path, PathBuf};

use glob::Pattern;

use crate::{
    model::{Actor, Process},
    procfs::without_deleted,
};

/// Who may change the scope: a process whose executable or whose cgroup is the owner's.
///
/// Never decided by `comm` or the arguments, which anyone can set; a process whose executable nobody knows
/// is the owner by its cgroup at most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnerRule {
    exe: Vec<String>,
    cgroup: Vec<Pattern>,
    children: bool,
}

/// What is wrong with an owner in the configuration.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// An executable is not given by its full path.
    #[error("owner.exe: \"{0}\" is not an absolute path; write it as in \"/usr/local/bin/kube-router\"")]
    RelativeExe(String),
    /// A glob cannot be read.
    #[error(
        "owner.cgroup: \"{pattern}\" is not a glob: {source}; write it as in \"/kubepods.slice/*/cri-containerd-*.scope\""
    )]
    BadGlob {
        /// As it was written.
        pattern: String,
        /// What is wrong, and where.
        source: glob::PatternError,
    },
}

impl OwnerRule {
    /// Compiles the `[owner]` section: absolute paths of executables, globs on cgroup paths (`*` also
    /// matches `/`), and whether a process that an owner has started is one too.
    ///
    /// A path that is a symbolic link here and now stands for its target as well.
    pub fn new(exe: &[String], cgroup: &[String], children: bool) -> Result<Self, OwnerError> {
        let mut paths = Vec::new();
        for path in exe {
            if !Path::new(path).is_absolute() {
                return Err(OwnerError::RelativeExe(path.clone()));
            }
            let target = Path::new(path).canonicalize().ok().map(PathBuf::into_os_string);
            paths.push(path.clone());
            paths.extend(target.and_then(|target| target.into_string().ok()).filter(|target| target != path));
        }
        let compile = |pattern: &String| {
            Pattern::new(pattern).map_err(|source| OwnerError::BadGlob { pattern: pattern.clone(), source })
        };
        let cgroup = cgroup.iter().map(compile).collect::<Result<_, _>>()?;
        Ok(Self { exe: paths, cgroup, children })
    }

    /// Whether cgroups are needed to tell the owner.
    pub fn needs_cgroups(&self) -> bool {
        !self.cgroup.is_empty()
    }

    /// Whether the actor is the owner.
    ///
    /// Ancestors count by their executables. The cgroup that counts is the actor's own: children are born
    /// into their parent's (`cgroup_can_fork`), and whoever was moved out of it was moved on purpose.
    pub fn is_owner(&self, actor: &Actor) -> bool {
        let Actor::Process { process, ancestors, cgroup, .. } = actor else { return false };
        self.has_exe(process)
            || cgroup.as_deref().is_some_and(|path| self.names_cgroup(path))
            || (self.children && ancestors.iter().any(|ancestor| self.has_exe(ancestor)))
    }

    /// Whether a process whose executable is this (as `/proc/PID/exe` has it) is an owner itself, not for having
    /// been started by one. A program that was replaced on disk while it runs (an upgrade in place) still is.
    pub fn names_exe(&self, exe: &str) -> bool {
        self.exe.iter().any(|path| path == exe || path == without_deleted(exe))
    }

    /// Whether a process in the cgroup of this path is an owner.
    pub fn names_cgroup(&self, path: &str) -> bool {
        self.cgroup.iter().any(|glob| glob.matches(path))
    }

    fn has_exe(&self, process: &Process) -> bool {
        process.exe.as_deref().is_some_and(|exe| self.names_exe(exe))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{attribution::tests::process, model::Confidence};

    const KUBE_ROUTER: &str = "/usr/local/bin/kube-router";

    fn program(tgid: u32, exe: Option<&str>) -> Process {
        Process { exe: exe.map(str::to_owned), ..process(tgid, 1) }
    }

    fn actor(process: Process, ancestors: Vec<Process>, cgroup: Option<&str>) -> Actor {
        Actor::Process {
            thread: None,
            process: Arc::new(process),
            ancestors: ancestors.into_iter().map(Arc::new).collect(),
            cgroup: cgroup.map(Arc::from),
            confidence: Confidence::Exact,
        }
    }

    fn rule(children: bool) -> OwnerRule {
        OwnerRule::new(&[KUBE_ROUTER.to_owned()], &["/kubepods*pod12?4*".to_owned()], children).unwrap()
    }

    #[test]
    fn the_executable_decides() {
        let is_owner = |exe| rule(true).is_owner(&actor(program(7, exe), vec![], None));
        assert!(is_owner(Some(KUBE_ROUTER)));
        assert!(is_owner(Some("/usr/local/bin/kube-router (deleted)")));
        assert!(!is_owner(Some("/usr/local/bin/kube-router2")));
        assert!(!is_owner(Some("/tmp/usr/local/bin/kube-router")));
        assert!(!is_owner(Some("/usr/sbin/ip")));
        assert!(!is_owner(None));
    }

    #[test]
    fn a_name_and_arguments_do_not() {
        for exe in [Some("/usr/bin/perl".to_owned()), None] {
            let spoofed = Process {
                exe_deleted: false,
                exe,
                comm: "kube-router".to_owned(),
                argv: vec![KUBE_ROUTER.to_owned(), "--run-router".to_owned()],
                ..process(7, 1)
            };
            assert!(!rule(true).is_owner(&actor(spoofed, vec![], Some("/user.slice"))));
        }
    }

    #[test]
    fn children_count_where_they_should() {
        let child = || {
            let family = vec![program(6, Some("/bin/sh")), program(5, Some(KUBE_ROUTER)), program(1, None)];
            actor(program(7, Some("/usr/sbin/ip")), family, None)
        };
        assert!(rule(true).is_owner(&child()));
        assert!(!rule(false).is_owner(&child()));
    }

    #[test]
    fn the_cgroup_decides_also_for_the_nameless() {
        let is_owner = |path| rule(false).is_owner(&actor(program(7, None), vec![], path));
        assert!(is_owner(Some(
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1234.slice/x.scope"
        )));
        assert!(!is_owner(Some("/kubepods.slice/kubepods-pod1235.slice")));
        assert!(!is_owner(Some("/x/kubepods.slice/kubepods-pod1234.slice")));
        assert!(!is_owner(None));
    }

    #[test]
    fn an_empty_rule_has_no_owner_and_neither_have_the_kernel_and_the_unknown() {
        let anybody = actor(program(7, Some("")), vec![program(1, None)], Some(""));
        assert!(!OwnerRule::default().is_owner(&anybody));
        assert!(!rule(true).is_owner(&Actor::Kernel { what: KUBE_ROUTER.into() }));
        assert!(!rule(true).is_owner(&Actor::Unknown));
    }

    #[test]
    fn a_link_stands_for_its_target() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let (link, target) = (folder.join("kube-router"), folder.join("kube-router-2.11"));
        std::fs::write(&target, "").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let rule = OwnerRule::new(&[link.to_str().unwrap().to_owned()], &[], true).unwrap();
        for path in [&link, &target] {
            assert!(rule.is_owner(&actor(program(7, path.to_str()), vec![], None)));
        }
    }

    #[test]
    fn errors_say_what_would_be_right() {
        let error = OwnerRule::new(&["kube-router".to_owned()], &[], true).unwrap_err().to_string();
        assert!(error.contains("\"kube-router\"") && error.contains("/usr/local/bin/kube-router"), "{error}");
        let error = OwnerRule::new(&[], &["/a[".to_owned()], true).unwrap_err().to_string();
        assert!(error.contains("owner.cgroup: \"/a[\""), "{error}");
    }
}
