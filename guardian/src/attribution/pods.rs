//! From a container's id and a pod's uid to what people call them: runtime, namespace and name.
//!
//! From files that the kubelet and the runtimes leave on the node, whichever are there; none is needed, and
//! nobody is asked over a socket. To be used when there is time: it reads files.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::model::record::ActorRecord;

/// The most that is read of a file, in bytes: OCI configurations take some tens of thousands.
const FILE_MAX: u64 = 1 << 20;

/// Where a runtime keeps the OCI configuration of a container, `{}` for its id; and the runtime, where the place
/// says so.
const CONFIGURATIONS: &[(&str, Option<&str>)] = &[
    ("run/containerd/io.containerd.runtime.v2.task/k8s.io/{}/config.json", Some("containerd")),
    ("run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io/{}/config.json", Some("containerd")),
    ("run/containerd/io.containerd.runtime.v2.task/moby/{}/config.json", Some("docker")),
    ("run/docker/containerd/daemon/io.containerd.runtime.v2.task/moby/{}/config.json", Some("docker")),
    ("run/containerd/io.containerd.runtime.v2.task/default/{}/config.json", Some("containerd")),
    // CRI-O and Podman share it, and say in the annotation `io.container.manager` which of them it was.
    ("run/containers/storage/overlay-containers/{}/userdata/config.json", None),
    ("var/lib/containers/storage/overlay-containers/{}/userdata/config.json", None),
];

/// Looks up the names of containers and pods, and remembers what it found.
pub struct Pods {
    roots: Vec<PathBuf>,
    known: HashMap<String, Names>,
}

/// What files say about a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Names {
    runtime: Option<String>,
    uid: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
}

#[derive(Deserialize)]
struct Configuration {
    #[serde(default)]
    annotations: HashMap<String, String>,
}

impl Pods {
    /// How many containers are remembered. When it is full, all are forgotten.
    const KNOWN: usize = 1024;

    /// On this node: in the daemon's own root, then in that of PID 1, which is the host's for a container that sees
    /// the host's processes.
    pub fn discover() -> Self {
        Self { roots: vec!["/".into(), "/proc/1/root".into()], known: HashMap::new() }
    }

    /// Below another root.
    pub fn under(root: &Path) -> Self {
        Self { roots: vec![root.into()], known: HashMap::new() }
    }

    /// Adds to the record of an actor in a container or pod what is not known from its cgroup.
    pub fn complete(&mut self, record: &mut ActorRecord) {
        let Some(key) = record.container.clone().or_else(|| record.pod.clone()) else { return };
        let names = if let Some(names) = self.known.get(&key) {
            names.clone()
        } else {
            let names = self.look_up(record);
            // What is not there may be later: only an answer is kept, of a container in no pod its runtime.
            let is_whole = names.name.is_some() || (names.runtime.is_some() && record.pod.is_none());
            if is_whole {
                if self.known.len() >= Self::KNOWN {
                    self.known.clear();
                }
                self.known.insert(key, names.clone());
            }
            names
        };
        record.runtime = record.runtime.take().or(names.runtime);
        record.pod = record.pod.take().or(names.uid);
        record.pod_namespace = names.namespace;
        record.pod_name = names.name;
    }

    fn look_up(&self, record: &ActorRecord) -> Names {
        let mut names = Names::default();
        for root in &self.roots {
            if let Some(id) = &record.container {
                names = configuration(root, id).unwrap_or_default();
            }
            if names.name.is_none()
                && let Some(uid) = record.pod.as_ref().or(names.uid.as_ref())
                && let Some((namespace, name)) = log_folder(root, uid)
            {
                (names.namespace, names.name) = (Some(namespace), Some(name));
            }
            if names != Names::default() {
                break;
            }
        }
        names
    }
}

/// What the runtime's configuration of a container says.
fn configuration(root: &Path, id: &str) -> Option<Names> {
    CONFIGURATIONS.iter().find_map(|&(place, runtime)| {
        let mut text = String::new();
        let file = File::open(root.join(place.replace("{}", id))).ok()?;
        file.take(FILE_MAX).read_to_string(&mut text).ok()?;
        let annotations = serde_json::from_str::<Configuration>(&text).ok()?.annotations;
        let any = |keys: [&str; 2]| keys.iter().find_map(|&key| annotations.get(key)).cloned();
        let manager = annotations.get("io.container.manager").map(|manager| match manager.as_str() {
            "libpod" => "podman".to_owned(),
            other => other.to_owned(),
        });
        Some(Names {
            runtime: runtime.map(str::to_owned).or(manager),
            uid: any(["io.kubernetes.cri.sandbox-uid", "io.kubernetes.pod.uid"]),
            namespace: any(["io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace"]),
            name: any(["io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"]),
        })
    })
}

/// Namespace and name from the kubelet's log folder of a pod, `NAMESPACE_NAME_UID`
/// (`BuildPodLogsDirectory`); neither may hold an underscore.
fn log_folder(root: &Path, uid: &str) -> Option<(String, String)> {
    fs::read_dir(root.join("var/log/pods")).ok()?.find_map(|entry| {
        let folder = entry.ok()?.file_name();
        let (namespace, name) = folder.to_str()?.strip_suffix(uid)?.strip_suffix('_')?.split_once('_')?;
        (!namespace.is_empty() && !name.is_empty()).then(|| (namespace.to_owned(), name.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "8dbc5577-d0e2-4706-8787-57d52c03ddf2";

    fn id() -> String {
        "0123456789abcdef".repeat(4)
    }

    fn record(container: bool, pod: bool) -> ActorRecord {
        ActorRecord {
            container: container.then(id),
            pod: pod.then(|| UID.to_owned()),
            ..ActorRecord::default()
        }
    }

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path.replace("{}", &id()));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn completed(root: &Path, mut record: ActorRecord) -> [Option<String>; 4] {
        Pods::under(root).complete(&mut record);
        [record.runtime, record.pod, record.pod_namespace, record.pod_name]
    }

    fn words(words: [&str; 4]) -> [Option<String>; 4] {
        words.map(|word| (!word.is_empty()).then(|| word.to_owned()))
    }

    #[test]
    fn the_kubelets_log_folder_names_a_pod() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("var/log/pods/kube-system_other-0_11111111")).unwrap();
        fs::create_dir_all(root.path().join(format!("var/log/pods/kube-system_coredns-5d78c_{UID}")))
            .unwrap();
        let expected = words(["", UID, "kube-system", "coredns-5d78c"]);
        assert_eq!(completed(root.path(), record(true, true)), expected);
        assert_eq!(completed(root.path(), record(false, true)), expected);
        assert_eq!(completed(root.path(), record(true, false)), words(["", "", "", ""]));
    }

    #[test]
    fn the_runtimes_annotations_name_runtime_and_pod() {
        let cri = format!(
            r#"{{"ociVersion":"1.1.0","annotations":{{"io.kubernetes.cri.sandbox-name":"web-0",
            "io.kubernetes.cri.sandbox-namespace":"shop","io.kubernetes.cri.sandbox-uid":"{UID}"}}}}"#
        );
        let crio = format!(
            r#"{{"annotations":{{"io.container.manager":"cri-o","io.kubernetes.pod.name":"web-0",
            "io.kubernetes.pod.namespace":"shop","io.kubernetes.pod.uid":"{UID}"}}}}"#
        );
        for (place, text, expected) in [
            (CONFIGURATIONS[0].0, cri.as_str(), ["containerd", UID, "shop", "web-0"]),
            (CONFIGURATIONS[1].0, &cri, ["containerd", UID, "shop", "web-0"]),
            (CONFIGURATIONS[2].0, r#"{"ociVersion":"1.1.0"}"#, ["docker", "", "", ""]),
            (CONFIGURATIONS[5].0, &crio, ["cri-o", UID, "shop", "web-0"]),
            (
                CONFIGURATIONS[5].0,
                r#"{"annotations":{"io.container.manager":"libpod"}}"#,
                ["podman", "", "", ""],
            ),
            (CONFIGURATIONS[0].0, "not json", ["", "", "", ""]),
            (CONFIGURATIONS[0].0, r#"{"annotations":{"a":7}}"#, ["", "", "", ""]),
        ] {
            let root = tempfile::tempdir().unwrap();
            write(root.path(), place, text);
            assert_eq!(completed(root.path(), record(true, false)), words(expected), "{place} {text}");
        }
    }

    #[test]
    fn an_answer_is_kept_when_the_files_are_gone_and_a_gap_is_not() {
        let root = tempfile::tempdir().unwrap();
        let mut pods = Pods::under(root.path());
        let mut first = record(true, true);
        pods.complete(&mut first);
        assert_eq!(first.pod_name, None);
        let folder = root.path().join(format!("var/log/pods/a_b_{UID}"));
        fs::create_dir_all(&folder).unwrap();
        pods.complete(&mut first);
        assert_eq!(first.pod_name.as_deref(), Some("b"));
        fs::remove_dir(folder).unwrap();
        let mut second = record(true, true);
        pods.complete(&mut second);
        assert_eq!(second.pod_name.as_deref(), Some("b"));
    }
}
