//! (to be written)

use super::call::{Entry, functions};

/// What JavaScript can call, by name.
pub fn functions() -> Vec<(&'static str, Entry)> {
    functions![]
}
