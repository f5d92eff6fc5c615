//! Reads TOML tables key by key and collects what is wrong, with lines.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::error::Problem;

/// Collects the problems of one file.
pub(super) struct Problems<'a> {
    origin: &'a str,
    text: &'a str,
    /// What was found so far.
    pub found: Vec<Problem>,
}

impl<'a> Problems<'a> {
    pub fn new(origin: &'a str, text: &'a str) -> Self {
        Self { origin, text, found: Vec::new() }
    }

    /// Records a problem at a byte offset of the file.
    pub fn push(&mut self, offset: usize, key: impl Into<String>, message: impl Into<String>) {
        let before = self.text.get(..offset).unwrap_or(self.text);
        self.found.push(Problem {
            origin: self.origin.to_owned(),
            line: Some(before.matches('\n').count() + 1),
            key: key.into(),
            message: message.into(),
        });
    }
}

/// A table whose keys are taken one after the other; what is left over at the end is unknown.
pub(super) struct Section<'t> {
    path: &'static str,
    table: Option<&'t DeTable<'t>>,
    known: Vec<&'static str>,
}

/// A value with the key it belongs to.
pub(super) struct Entry<'t> {
    pub key: String,
    pub value: &'t Spanned<DeValue<'t>>,
}

impl<'t> Section<'t> {
    pub fn root(table: &'t DeTable<'t>) -> Self {
        Self { path: "", table: Some(table), known: Vec::new() }
    }

    /// The sub-table `name`; an absent one is empty.
    pub fn section(&mut self, name: &'static str, problems: &mut Problems<'_>) -> Self {
        let entry = self.take(name);
        let table = entry.as_ref().and_then(|entry| {
            let table = entry.value.get_ref().as_table();
            if table.is_none() {
                let found = describe(entry.value.get_ref());
                let message = format!("found {found} where a table belongs: write [{name}] on its own line");
                problems.push(entry.value.span().start, name, message);
            }
            table
        });
        Self { path: name, table, known: Vec::new() }
    }

    /// The value of `key`, if it is there.
    pub fn take(&mut self, key: &'static str) -> Option<Entry<'t>> {
        self.known.push(key);
        let value = self.table?.get(key)?;
        Some(Entry { key: self.dotted(key), value })
    }

    fn dotted(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Reports every key that was not asked for. `all` are the dotted keys of the whole file, for the
    /// suggestion.
    pub fn finish(self, all: &[&str], problems: &mut Problems<'_>) {
        for key in &self.known {
            debug_assert!(all.contains(&&*self.dotted(key)), "{} is read, and not defined", self.dotted(key));
        }
        let Some(table) = self.table else { return };
        for (key, _) in table {
            if self.known.contains(&key.get_ref().as_ref()) {
                continue;
            }
            let dotted = self.dotted(key.get_ref());
            let message = match nearest(&dotted, all) {
                Some(near) => format!("there is no such key; did you mean `{near}`?"),
                None => format!("there is no such key here; known are {}", self.known.join(", ")),
            };
            problems.push(key.span().start, dotted, message);
        }
    }
}

/// The known key that is nearest to `dotted`, if one is near at all; the last part counts most, so that a
/// key in the wrong table is found too.
fn nearest<'k>(dotted: &str, all: &[&'k str]) -> Option<&'k str> {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    all.iter()
        .map(|&key| {
            let alike = dotted.contains('.') == key.contains('.');
            let whole = if alike { strsim::jaro_winkler(dotted, key) } else { 0.0 };
            let part = strsim::jaro_winkler(&last(dotted), &last(key)) - 0.02;
            (key, whole.max(part))
        })
        .filter(|(_, score)| *score > 0.84)
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(key, _)| key)
}

/// What a value is, for people.
pub(super) fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the text \"{text}\""),
        DeValue::Integer(number) => format!("the number {number}"),
        DeValue::Float(number) => format!("the number {number}"),
        DeValue::Boolean(flag) => format!("{flag}"),
        DeValue::Datetime(_) => "a date".into(),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
    }
}

impl<'t> Entry<'t> {
    /// Reads the value with `read`, or reports what is wrong and returns `None`.
    pub fn read<T>(
        &self,
        problems: &mut Problems<'_>,
        read: impl FnOnce(&'t DeValue<'t>) -> Result<T, String>,
    ) -> Option<T> {
        match read(self.value.get_ref()) {
            Ok(value) => Some(value),
            Err(message) => {
                problems.push(self.value.span().start, self.key.clone(), message);
                None
            }
        }
    }

    /// Reads a list, item by item; a wrong item is reported with its own line.
    pub fn list<T>(
        &self,
        problems: &mut Problems<'_>,
        such_as: &str,
        read: impl Fn(&'t DeValue<'t>) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let Some(items) = self.value.get_ref().as_array() else {
            let found = describe(self.value.get_ref());
            let message = format!("found {found} where a list belongs: write {such_as}");
            problems.push(self.value.span().start, self.key.clone(), message);
            return None;
        };
        let before = problems.found.len();
        let mut list = Vec::new();
        for (n, item) in items.iter().enumerate() {
            match read(item.get_ref()) {
                Ok(value) => list.push(value),
                Err(message) => problems.push(item.span().start, format!("{}[{n}]", self.key), message),
            }
        }
        (problems.found.len() == before).then_some(list)
    }
}

/// Reads a text.
pub(super) fn text<'t>(value: &'t DeValue<'t>, such_as: &str) -> Result<&'t str, String> {
    value
        .as_str()
        .ok_or_else(|| format!("found {} where a text belongs: write \"{such_as}\"", describe(value)))
}

/// Reads a whole number.
pub(super) fn integer(value: &DeValue<'_>, such_as: &str) -> Result<i64, String> {
    let wrong = || format!("found {} where a whole number belongs: write {such_as}", describe(value));
    let number = value.as_integer().ok_or_else(wrong)?;
    i64::from_str_radix(number.as_str(), number.radix()).map_err(|_| wrong())
}

/// Reads `true` or `false`.
pub(super) fn boolean(value: &DeValue<'_>) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("found {} where true or false belongs", describe(value)))
}
