//! Memory that Rust and JavaScript both read and write, as plain loads and stores on either side.

use super::call::{Reply, check};
use napi::sys;
use std::{
    ffi::c_void,
    ptr,
    sync::{
        Arc,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};

/// 64-bit cells, zero at first, that live until neither side refers to them: the `ArrayBuffer`
/// owns one count of the `Arc` and Rust another, so that neither can be left dangling.
#[derive(Clone)]
pub struct SharedCells(Arc<[AtomicU64]>);

impl SharedCells {
    pub fn new(cells: usize) -> Self {
        Self((0..cells).map(|_| AtomicU64::new(0)).collect())
    }

    pub fn set_f64(&self, index: usize, value: f64) {
        self.0[index].store(value.to_bits(), Relaxed);
    }

    pub fn f64(&self, index: usize) -> f64 {
        f64::from_bits(self.0[index].load(Relaxed))
    }

    /// Whether `other` is the same memory.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Counts the cell up. JavaScript reads the count from the lower half, as a `Uint32`.
    pub fn count(&self, index: usize) {
        self.0[index].fetch_add(1, Release);
    }

    /// The lower half of a count.
    #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
    pub fn counted(&self, index: usize) -> u32 {
        self.0[index].load(Acquire) as u32
    }

    /// The byte at `index`, counting bytes and not cells.
    pub fn byte(&self, index: usize) -> u8 {
        self.0[index / 8].load(Relaxed).to_ne_bytes()[index % 8]
    }

    /// Sets a byte. Only this thread's JavaScript may write the other bytes of its cell.
    pub fn set_byte(&self, index: usize, value: u8) {
        let cell = &self.0[index / 8];
        let mut bytes = cell.load(Relaxed).to_ne_bytes();
        bytes[index % 8] = value;
        cell.store(u64::from_ne_bytes(bytes), Relaxed);
    }

    /// An `ArrayBuffer` over the same memory.
    pub fn to_js(&self, env: sys::napi_env) -> Reply {
        let owner = Box::into_raw(Box::new(self.clone()));
        let data = self.0.as_ptr().cast_mut().cast::<c_void>();
        let mut value = ptr::null_mut();
        let status = unsafe {
            sys::napi_create_external_arraybuffer(
                env,
                data,
                self.0.len() * size_of::<AtomicU64>(),
                Some(forget),
                owner.cast(),
                &raw mut value,
            )
        };
        if status != sys::Status::napi_ok {
            drop(unsafe { Box::from_raw(owner) });
        }
        check(status)?;
        Ok(value)
    }
}

unsafe extern "C" fn forget(_env: sys::napi_env, _data: *mut c_void, owner: *mut c_void) {
    drop(unsafe { Box::from_raw(owner.cast::<SharedCells>()) });
}
