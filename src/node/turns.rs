//! Which turn of the event loop it is.

use napi::sys;
use std::{ffi::c_int, mem::MaybeUninit, ptr};

/// `uv_metrics_t` of libuv 1.45 and newer, which Node 20 has; its rest is reserved.
#[repr(C)]
struct Metrics {
    loop_count: u64,
    rest: [u64; 15],
}

type MetricsInfo = unsafe extern "C" fn(*mut sys::uv_loop_s, *mut Metrics) -> c_int;

/// An environment's event loop. Used on its thread only.
pub struct Turns {
    uv_loop: *mut sys::uv_loop_s,
    info: Option<MetricsInfo>,
}

impl Turns {
    pub fn of(env: sys::napi_env) -> Self {
        let mut uv_loop = ptr::null_mut();
        let status = unsafe { sys::napi_get_uv_event_loop(env, &raw mut uv_loop) };
        let there = status == sys::Status::napi_ok && !uv_loop.is_null();
        Self { uv_loop, info: if there { metrics_info() } else { None } }
    }

    /// The number of the present turn; the same for all turns where the host does not tell.
    pub fn count(&self) -> u64 {
        let Some(info) = self.info else { return 0 };
        let mut metrics = MaybeUninit::<Metrics>::zeroed();
        // Plain numbers, of which all zeros are some: what is not filled stays as it is.
        unsafe {
            info(self.uv_loop, metrics.as_mut_ptr());
            metrics.assume_init().loop_count
        }
    }
}

/// The function of the program that we were loaded into. Not linked, since not every host of N-API has libuv.
fn metrics_info() -> Option<MetricsInfo> {
    #[cfg(unix)]
    let program = libloading::os::unix::Library::this();
    #[cfg(windows)]
    let program = libloading::os::windows::Library::this().ok()?;
    let symbol = unsafe { program.get::<MetricsInfo>(b"uv_metrics_info\0") }.ok()?;
    Some(*symbol)
}
