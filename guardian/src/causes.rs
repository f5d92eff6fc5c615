//! Errors in one line.

use std::error::Error;

/// An error with all its causes. Some have the text of what is below them in their own: nothing is said twice.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Over(&'static str, #[source] io::Error);

    #[test]
    fn every_cause_is_said_once() {
        let below = || io::Error::other("refused");
        assert_eq!(chain(&Over("cannot load", below())), "cannot load: refused");
        assert_eq!(chain(&Over("cannot load (refused) it", below())), "cannot load (refused) it");
    }
}
