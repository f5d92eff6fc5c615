//! The chart and the manifests say the same.

use anyhow::{Context, Result};
use serde_json::Value;

use super::{VARIANTS, objects};

/// What helm's conventions ask for, and the other side has no use for.
const OF_HELM: [&str; 5] = [
    "app.kubernetes.io/instance",
    "app.kubernetes.io/version",
    "app.kubernetes.io/managed-by",
    "helm.sh/chart",
    "checksum/config",
];

/// Objects without what necessarily differs, by kind and name.
fn plain(stream: &str) -> Result<Vec<Value>> {
    let mut objects = objects(stream)?;
    // A chart cannot make the namespace that it is installed into.
    objects.retain(|object| object["kind"] != "Namespace");
    for object in &mut objects {
        strip(object);
        if let Some(config) = object.pointer_mut("/data/config.toml") {
            *config = toml::from_str(config.as_str().context("config.toml is no text")?)?;
        }
    }
    objects.sort_by_key(|object| object["kind"].to_string());
    Ok(objects)
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|name, _| !OF_HELM.contains(&name.as_str()));
            members.values_mut().for_each(strip);
            members.retain(|name, value| name != "annotations" || value != &serde_json::json!({}));
        }
        Value::Array(values) => values.iter_mut().for_each(strip),
        // kubectl puts a hash behind the name of the ConfigMap, helm into an annotation.
        Value::String(text) => {
            if let Some(hash) = text.strip_prefix("route-guardian-")
                && hash.len() == 10
                && hash.bytes().all(|b| b.is_ascii_alphanumeric())
            {
                *text = "route-guardian".into();
            }
        }
        _ => {}
    }
}

#[test]
fn as_each_variant_is_made() -> Result<()> {
    for variant in VARIANTS {
        let (kustomized, templated) = (plain(&variant.kustomized()?)?, plain(&variant.templated()?)?);
        assert!(kustomized.len() >= 3, "{variant:?}");
        for (ours, helms) in kustomized.iter().zip(&templated) {
            let text = |object| serde_json::to_string_pretty(object).unwrap_or_default();
            assert_eq!(text(ours), text(helms), "{variant:?}");
        }
        assert_eq!(kustomized.len(), templated.len(), "{variant:?}");
    }
    Ok(())
}

#[test]
fn a_difference_would_be_seen() -> Result<()> {
    let stream = VARIANTS[0].kustomized()?;
    let objects = plain(&stream)?;
    for (here, there) in [
        ("128Mi", "129Mi"),
        ("operator: Exists", "operator: Equal"),
        ("mode = \"restore\"", "mode = \"observe\""),
        ("readOnly: true", "readOnly: false"),
        ("path: /readyz", "path: /healthz"),
    ] {
        assert!(stream.contains(here), "no {here:?} in:\n{stream}");
        assert_ne!(objects, plain(&stream.replace(here, there))?, "{there:?}");
    }
    // Comments of the configuration are no difference.
    assert_eq!(objects, plain(&stream.replace("profile = ", "# other words\n    profile = "))?);
    Ok(())
}
