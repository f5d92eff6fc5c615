//! All that a namespace holds, as `ip -d -j` shows it, without what the kernel itself counts: to be compared.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value};

use crate::{Lab, wait_for};

/// Of links, what the kernel finds out or counts by itself.
const LINK_OWN: &[&str] = &[
    "operstate",
    "promiscuity",
    "allmulti",
    "carrier_changes",
    "carrier_up_count",
    "carrier_down_count",
    // A bridge's are the least of its ports'.
    "tso_max_size",
    "tso_max_segs",
    "stats",
    "stats64",
];

/// Of bridges and their ports: timers, spanning tree, and the numbers that ports get as they come.
const BRIDGE_OWN: &[&str] = &[
    "hello_timer",
    "tcn_timer",
    "topology_change_timer",
    "gc_timer",
    // Of a bridge without ports it is zero, or its address if somebody has set one.
    "bridge_id",
    "root_id",
    "root_port",
    "root_path_cost",
    "topology_change",
    "topology_change_detected",
    "topology_change_ack",
    "state",
    "id",
    "no",
    "designated_port",
    "designated_cost",
    "designated_bridge",
    "message_age_timer",
    "forward_delay_timer",
    "hold_timer",
    "config_pending",
];

/// Flags that follow the carrier, and so somebody else.
const FLAGS_OWN: &[&str] = &["LOWER_UP", "NO-CARRIER", "M-DOWN", "linkdown"];

/// One object: what it is known by, and all that is said of it.
#[derive(Clone, Debug, PartialEq)]
struct Item {
    label: String,
    value: Value,
}

/// Links, addresses, rules, routes of all tables and nexthop objects of a namespace.
///
/// Sorted by what they are known by. The order of the kernel is kept where it decides: rules of one priority,
/// and routes to one destination in one table.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    items: Vec<Item>,
}

impl State {
    /// What is different in `now`: a line with `-` for what is gone, `+` for what is new, and for what has
    /// changed its name and the fields of both. Empty where nothing is.
    pub fn diff(&self, now: &Self) -> String {
        if self == now {
            return String::new();
        }
        let mut out = String::new();
        let mut rest: Vec<&Item> = now.items.iter().collect();
        let mut gone = Vec::new();
        for item in &self.items {
            match rest.iter().position(|other| *other == item) {
                Some(at) => drop(rest.remove(at)),
                None => gone.push(item),
            }
        }
        for item in &gone {
            match rest.iter().position(|other| other.label == item.label) {
                Some(at) => {
                    let other = rest.remove(at);
                    let _ = writeln!(out, "  {}", item.label);
                    fields("", &item.value, &other.value, &mut out);
                }
                None => {
                    let _ = writeln!(out, "- {} {}", item.label, item.value);
                }
            }
        }
        for item in &rest {
            let _ = writeln!(out, "+ {} {}", item.label, item.value);
        }
        if out.is_empty() {
            for (one, other) in self.items.iter().zip(&now.items).filter(|(one, other)| one != other) {
                let _ = writeln!(out, "- {} (order)\n+ {} (order)", one.label, other.label);
            }
        }
        out
    }

    /// What the objects are known by, such as `route inet 254 10.244.2.0/24`, `link kube-bridge`,
    /// `address kube-bridge 10.244.1.1/24`, `rule inet 32765`, `nexthop 7`.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.items.iter().map(|item| item.label.as_str())
    }

    /// The objects: what they are known by, and all that is said of them.
    pub fn objects(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.items.iter().map(|item| (item.label.as_str(), &item.value))
    }

    /// Only the objects whose label satisfies this.
    #[must_use]
    pub fn only(&self, like: impl Fn(&str) -> bool) -> Self {
        Self { items: self.items.iter().filter(|item| like(&item.label)).cloned().collect() }
    }

    /// Only the objects that satisfy this, by label and by what is said of them.
    #[must_use]
    pub fn only_like(&self, like: impl Fn(&str, &Value) -> bool) -> Self {
        Self { items: self.items.iter().filter(|item| like(&item.label, &item.value)).cloned().collect() }
    }

    /// What is said of the first object with this label.
    pub fn get(&self, label: &str) -> Option<&Value> {
        self.items.iter().find(|item| item.label == label).map(|item| &item.value)
    }
}

/// The fields in which two values differ.
fn fields(path: &str, was: &Value, is: &Value, out: &mut String) {
    match (was, is) {
        (Value::Object(a), Value::Object(b)) => {
            let mut names: Vec<&String> = a.keys().chain(b.keys()).collect();
            names.sort_unstable();
            names.dedup();
            for name in names {
                let path = format!("{path}/{name}");
                fields(&path, a.get(name).unwrap_or(&Value::Null), b.get(name).unwrap_or(&Value::Null), out);
            }
        }
        (was, is) if was != is => {
            let _ = writeln!(out, "-   {path} {was}\n+   {path} {is}");
        }
        _ => {}
    }
}

impl Lab {
    /// All that this namespace holds.
    pub fn state(&self) -> Result<State> {
        let mut items = Vec::new();
        for mut link in list(self.ip_json("-d link")?) {
            settle_link(&mut link);
            items.push(Item { label: format!("link {}", text(&link, "ifname")), value: link });
        }
        for link in list(self.ip_json("-d address")?) {
            let name = text(&link, "ifname");
            for mut address in list(link.get("addr_info").cloned().unwrap_or_default()) {
                settle_address(&mut address);
                let label =
                    format!("address {name} {}/{}", text(&address, "local"), text(&address, "prefixlen"));
                items.push(Item { label, value: address });
            }
        }
        for (family, option) in [("inet", "-4"), ("inet6", "-6")] {
            for rule in list(self.ip_json(&format!("{option} -d rule"))?) {
                items.push(Item { label: format!("rule {family} {}", text(&rule, "priority")), value: rule });
            }
            for mut route in list(self.ip_json(&format!("{option} -d route show table all"))?) {
                settle_route(&mut route, family == "inet6");
                let table = route.get("table").map_or_else(|| "main".into(), plain);
                let mut label = format!("route {family} {table} {}", text(&route, "dst"));
                if text(&route, "type") == "multicast" {
                    // The kernel has one for each link, in the order in which these came up.
                    let _ = write!(label, " {}", text(&route, "dev"));
                }
                items.push(Item { label, value: route });
            }
        }
        for mut nexthop in list(self.ip_json("-d nexthop")?) {
            settle_route(&mut nexthop, false);
            items.push(Item { label: format!("nexthop {}", text(&nexthop, "id")), value: nexthop });
        }
        items.sort_by(|a, b| a.label.cmp(&b.label));
        Ok(State { items })
    }

    /// Waits until the kernel has done what it does for links that have their carrier, a moment later: IPv6 makes
    /// them a multicast route.
    pub fn settle(&self) -> Result<()> {
        let mut unready = Vec::new();
        let waited = wait_for("links to be ready", Duration::from_secs(5), || {
            let routes = self.ip("-6 route show table local type multicast")?;
            let ready: Vec<&str> = routes.split(' ').collect();
            unready = list(self.ip_json("link")?).into_iter().filter(runs).collect();
            unready.retain(|link| !ready.contains(&&*text(link, "ifname")));
            Ok(unready.is_empty())
        });
        waited.with_context(|| format!("IPv6 has no multicast route for {unready:?}"))
    }

    /// How this namespace differs from what it was; empty if it does not. See [`State::diff`].
    pub fn changed(&self, before: &State) -> Result<String> {
        Ok(before.diff(&self.state()?))
    }

    /// Waits until all is as it was; an error that says what is not, after `limit`.
    pub fn whole_within(&self, before: &State, limit: Duration) -> Result<()> {
        let mut diff = String::new();
        let whole = wait_for("all to be as it was", limit, || {
            diff = self.changed(before)?;
            Ok(diff.is_empty())
        });
        if let Err(error) = whole {
            bail!("{error}; it differs (- before, + now):\n{diff}{}", self.logs());
        }
        Ok(())
    }

    /// All is as it was, now.
    pub fn assert_whole(&self, before: &State) -> Result<()> {
        let diff = self.changed(before)?;
        assert!(diff.is_empty(), "it differs (- before, + now):\n{diff}");
        Ok(())
    }
}

/// Whether a link is up, has its carrier, and is none of those that IPv6 has no routes for.
fn runs(link: &Value) -> bool {
    let has = |flag: &str| link["flags"].as_array().is_some_and(|flags| flags.iter().any(|f| f == flag));
    has("UP") && has("LOWER_UP") && !has("LOOPBACK")
}

fn list(value: Value) -> Vec<Value> {
    match value {
        // `ip` prints empty objects for what its filter leaves out.
        Value::Array(list) => {
            list.into_iter().filter(|v| v.as_object().is_some_and(|o| !o.is_empty())).collect()
        }
        _ => Vec::new(),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), Into::into)
}

fn text(value: &Value, field: &str) -> String {
    value.get(field).map(plain).unwrap_or_default()
}

fn without(map: &mut Map<String, Value>, names: &[&str]) {
    for name in names {
        map.remove(*name);
    }
}

fn without_flags(value: &mut Value) {
    if let Some(Value::Array(flags)) = value.get_mut("flags") {
        flags.retain(|flag| !FLAGS_OWN.iter().any(|own| flag.as_str() == Some(own)));
    }
}

fn settle_link(link: &mut Value) {
    without_flags(link);
    let Some(map) = link.as_object_mut() else { return };
    without(map, LINK_OWN);
    for part in ["info_data", "info_slave_data"] {
        let data = map.get_mut("linkinfo").and_then(|info| info.get_mut(part)).and_then(Value::as_object_mut);
        if let Some(data) = data {
            without(data, BRIDGE_OWN);
        }
    }
}

fn settle_address(address: &mut Value) {
    let Some(map) = address.as_object_mut() else { return };
    without(map, &["tentative", "dadfailed"]);
    // When a link is renamed, and renamed back, the kernel numbers its labels (`inetdev_changename`).
    let label = map.get("label").and_then(Value::as_str).and_then(|label| label.split(':').next());
    if let Some(label) = label.map(Value::from) {
        map.insert("label".into(), label);
    }
    for life in ["valid_life_time", "preferred_life_time"] {
        // What is not for ever runs down.
        if map.get(life).is_some_and(|time| time.as_u64() != Some(u64::from(u32::MAX))) {
            map.insert(life.into(), "runs down".into());
        }
    }
}

fn settle_route(route: &mut Value, sort_legs: bool) {
    without_flags(route);
    if let Some(map) = route.as_object_mut() {
        without(map, &["age", "used", "users", "expires"]);
    }
    if let Some(Value::Array(legs)) = route.get_mut("nexthops") {
        legs.iter_mut().for_each(without_flags);
        if sort_legs {
            legs.sort_by_key(ToString::to_string);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(items: &[(&str, &str)]) -> State {
        let item = |(label, json): &(&str, &str)| Item {
            label: (*label).into(),
            value: serde_json::from_str(json).unwrap_or_default(),
        };
        State { items: items.iter().map(item).collect() }
    }

    #[test]
    fn a_diff_says_what_is_gone_new_changed_or_elsewhere() {
        let before = state(&[("a", r#"{"x":1}"#), ("b", r#"{"x":1,"y":2}"#), ("c", "{}")]);
        assert_eq!(before.diff(&before), "");
        let now = state(&[("b", r#"{"x":1,"y":3}"#), ("c", "{}"), ("d", "{}")]);
        assert_eq!(before.diff(&now), "- a {\"x\":1}\n  b\n-   /y 2\n+   /y 3\n+ d {}\n");
        let other = state(&[("b", r#"{"x":1,"y":2}"#), ("a", r#"{"x":1}"#), ("c", "{}")]);
        assert_eq!(before.diff(&other), "- a (order)\n+ b (order)\n- b (order)\n+ a (order)\n");
    }

    #[test]
    fn what_the_kernel_counts_does_not_count() -> Result<()> {
        let mut link: Value = serde_json::from_str(
            r#"{"ifname":"b","flags":["UP","LOWER_UP"],"operstate":"UP","linkinfo":{"info_data":{"gc_timer":7,"ageing_time":300}}}"#,
        )?;
        settle_link(&mut link);
        assert_eq!(
            link.to_string(),
            r#"{"flags":["UP"],"ifname":"b","linkinfo":{"info_data":{"ageing_time":300}}}"#
        );
        Ok(())
    }
}
