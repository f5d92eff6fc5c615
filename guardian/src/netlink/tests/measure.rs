//! What a write costs. Run with `--release -- --ignored --nocapture measure`.
