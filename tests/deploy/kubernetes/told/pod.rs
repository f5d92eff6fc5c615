//! A guardian as it is in its pod: with the environment, the certificate and the token that the kubelet gives it.

use std::{collections::BTreeSet, fs};

use anyhow::{Context, Result};
use lab::{Lab, Launch};
use serde_json::Value;

use super::api_server::{ApiServer, TOKEN};
use crate::kubernetes::{VARIANTS, Variant, objects};

/// The name of the Node.
pub const NODE: &str = "node-7";

/// Puts the service account's files in their place, in a mount namespace where nobody else sees that, and goes on with
/// the rest of the words.
const KUBELET: &str = r#"
account=/var/run/secrets/kubernetes.io/serviceaccount
mount -t tmpfs none /var/run && mkdir -p "$account" && cp "$0.d"/* "$account" && exec "$@"
"#;

/// A guardian that is to be started with this in its `[kubernetes]`.
pub fn launch<'lab>(lab: &'lab Lab, api: &ApiServer, kubernetes: &[(&str, &str)]) -> Result<Launch<'lab>> {
    let kubelet = lab.dir().join("kubelet.sh");
    let account = lab.dir().join("kubelet.sh.d");
    fs::create_dir_all(&account)?;
    fs::write(&kubelet, KUBELET)?;
    fs::copy(lab.dir().join("ca.crt"), account.join("ca.crt"))?;
    fs::write(account.join("token"), TOKEN)?;
    fs::write(account.join("namespace"), "route-guardian")?;
    let environment = format!(
        "env NODE_NAME={NODE} KUBERNETES_SERVICE_HOST={} KUBERNETES_SERVICE_PORT={}",
        api.address().ip(),
        api.address().port()
    );
    let launch = lab
        .guardian()
        .program(lab::binary_in_pod())
        .through(&format!("{environment} unshare --mount sh {}", kubelet.display()));
    Ok(kubernetes.iter().fold(launch, |launch, (key, value)| launch.set(&format!("kubernetes.{key}"), value)))
}

/// What the guardian's service account may do by these objects: `create default/events`, `get nodes`.
pub fn rights(objects: &[Value]) -> Result<BTreeSet<String>> {
    let of_kind = |kind: &'static str| objects.iter().filter(move |object| object["kind"] == kind);
    let account = of_kind("ServiceAccount").next().context("no ServiceAccount")?;
    let mut rights = BTreeSet::new();
    for (binding, role) in [("RoleBinding", "Role"), ("ClusterRoleBinding", "ClusterRole")] {
        for binding in of_kind(binding) {
            let is_ours = |subject: &Value| {
                subject["name"] == account["metadata"]["name"]
                    && subject["namespace"] == account["metadata"]["namespace"]
            };
            let subjects = binding["subjects"].as_array().context("no subjects")?;
            anyhow::ensure!(subjects.iter().all(is_ours), "{binding} is for somebody else");
            let role = of_kind(role)
                .find(|role| {
                    role["metadata"]["name"] == binding["roleRef"]["name"]
                        && role["metadata"]["namespace"] == binding["metadata"]["namespace"]
                })
                .with_context(|| format!("{binding} is to no role"))?;
            let namespace =
                role["metadata"]["namespace"].as_str().map(|n| format!("{n}/")).unwrap_or_default();
            for rule in role["rules"].as_array().context("no rules")? {
                anyhow::ensure!(rule["apiGroups"] == serde_json::json!([""]), "{rule} is of another API");
                let words = |key: &str| rule[key].as_array().into_iter().flatten().filter_map(Value::as_str);
                for verb in words("verbs") {
                    rights.extend(words("resources").map(|resource| format!("{verb} {namespace}{resource}")));
                }
            }
        }
    }
    Ok(rights)
}

/// What the manifests of the first such variant let it do.
pub fn granted(like: impl Fn(&Variant) -> bool) -> Result<BTreeSet<String>> {
    let variant = VARIANTS.iter().find(|variant| like(variant)).context("no such variant")?;
    rights(&objects(&variant.kustomized()?)?)
}
