//! Whether the guardian acts.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What the guardian does about changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Sees and names them, touches nothing.
    Observe,
    /// Undoes them.
    #[default]
    Restore,
}

impl Mode {
    /// Both, for metrics that exist from the start.
    pub const ALL: [Self; 2] = [Self::Observe, Self::Restore];

    /// The word used in files, reports and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Restore => "restore",
        }
    }

    /// The mode of this word, or what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "observe" => Ok(Self::Observe),
            "restore" => Ok(Self::Restore),
            _ => Err(format!("`{text}` is not a mode: write \"observe\" or \"restore\"")),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
