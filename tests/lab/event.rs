//! The guardian's event records, as scripts see them.

use std::fmt;

use serde_json::Value;

/// One line of `events -o json`.
#[derive(Clone, Debug, PartialEq)]
pub struct Event(pub Value);

impl Event {
    /// The string at a JSON pointer (RFC 6901); empty where there is none.
    pub fn text(&self, pointer: &str) -> &str {
        self.0.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// The number at a JSON pointer.
    pub fn number(&self, pointer: &str) -> Option<u64> {
        self.0.pointer(pointer).and_then(Value::as_u64)
    }

    /// The list at a JSON pointer.
    pub fn list(&self, pointer: &str) -> &[Value] {
        self.0.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// What the object is known by: the prefix of a route.
    pub fn key(&self) -> &str {
        self.text("/object/key")
    }

    /// Which record it is: a later line with the same id supersedes an earlier one.
    pub fn id(&self) -> &str {
        self.text("/id")
    }

    /// What the guardian did.
    pub fn outcome(&self) -> &str {
        self.text("/outcome")
    }

    /// The actor's arguments.
    pub fn argv(&self) -> Vec<&str> {
        self.list("/actor/argv").iter().filter_map(Value::as_str).collect()
    }

    /// The pids of the actor's ancestors, the parent first.
    pub fn ancestors(&self) -> Vec<u64> {
        self.list("/actor/ancestors").iter().filter_map(|a| a.get("pid")?.as_u64()).collect()
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Of the ancestors, who they are is enough for the eye.
        let mut short = self.0.clone();
        if let Some(Value::Array(ancestors)) = short.pointer_mut("/actor/ancestors") {
            for ancestor in ancestors {
                let who = format!("{}[{}]", ancestor["comm"].as_str().unwrap_or_default(), ancestor["pid"]);
                *ancestor = who.into();
            }
        }
        write!(f, "{short}")
    }
}
