//! The cache: which entries a bounded store keeps and for how long ([`memory`]), sets that answer
//! "perhaps" or "no" in a few bits a member ([`bloom`]), and the patterns that keys are listed
//! by ([`glob`]).
//!
//! Values that only this process sees stay JavaScript values, held by reference on that side: a
//! hit never waits for another thread, never copies and never parses. What is decided about them
//! is decided here, in terms of slots.

#![forbid(unsafe_code)]

pub mod bloom;
pub mod glob;
pub mod memory;
pub mod redis;
pub mod tiered;
