//! Sets the link options that a Node addon needs; does nothing for the core alone.
fn main() {
    #[cfg(feature = "node")]
    napi_build::setup();
}
