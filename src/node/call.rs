//! A call from JavaScript: its arguments, its reply, and the registration of functions.

use super::Context;
use crate::error::{Error, Result};
use napi::sys;
use std::{any::TypeId, ffi::c_void, mem::MaybeUninit, panic::AssertUnwindSafe, ptr};

/// The most arguments a function of the binding takes.
pub const MAX_ARGUMENTS: usize = 9;
/// Keys up to this many UTF-16 units are read without an allocation.
const STACK_UNITS: usize = 256;

/// A value for JavaScript, or an error that is thrown there.
pub type Reply = Result<sys::napi_value>;

/// The arguments of one call, and the environment it came from.
pub struct Call<'a> {
    pub env: sys::napi_env,
    pub context: &'a Context,
    arguments: [sys::napi_value; MAX_ARGUMENTS],
}

/// A function that JavaScript can call.
pub type Entry = unsafe extern "C" fn(sys::napi_env, sys::napi_callback_info) -> sys::napi_value;

/// `functions!["name" => function, …]`: the named functions `fn(&Call) -> Reply` as entries.
macro_rules! functions {
    ($($name:literal => $function:path),* $(,)?) => {
        vec![$((
            $name,
            {
                unsafe extern "C" fn entry(
                    env: napi::sys::napi_env,
                    info: napi::sys::napi_callback_info,
                ) -> napi::sys::napi_value {
                    unsafe { $crate::node::call::enter(env, info, $function) }
                }
                entry as $crate::node::call::Entry
            },
        )),*]
    };
}
pub(crate) use functions;

/// Puts `functions` on the `exports` object, each with `context`, a [`Context`], behind it.
pub fn define(
    env: sys::napi_env,
    exports: sys::napi_value,
    context: *mut c_void,
    functions: Vec<(&'static str, Entry)>,
) -> napi::Result<()> {
    for (name, entry) in functions {
        let mut function = ptr::null_mut();
        let status = unsafe {
            let length = name.len().cast_signed();
            let name = name.as_ptr().cast();
            match sys::napi_create_function(
                env,
                name,
                length,
                Some(entry),
                context,
                &raw mut function,
            ) {
                sys::Status::napi_ok => {
                    let mut key = ptr::null_mut();
                    sys::napi_create_string_utf8(env, name, length, &raw mut key);
                    sys::napi_set_property(env, exports, key, function)
                }
                status => status,
            }
        };
        if status != sys::Status::napi_ok {
            return Err(napi::Error::from_reason(format!("cannot define {name}")));
        }
    }
    Ok(())
}

/// Runs `function` for a call: an error becomes a JavaScript exception with its code, and so does
/// a panic, which must not unwind into C.
///
/// # Safety
/// `env` and `info` are those that N-API gave to the entry, and the entry's data is a [`Context`].
pub unsafe fn enter(
    env: sys::napi_env,
    info: sys::napi_callback_info,
    function: fn(&Call) -> Reply,
) -> sys::napi_value {
    let mut arguments = [ptr::null_mut(); MAX_ARGUMENTS];
    let mut count = MAX_ARGUMENTS;
    let mut data = ptr::null_mut();
    unsafe {
        sys::napi_get_cb_info(
            env,
            info,
            &raw mut count,
            arguments.as_mut_ptr(),
            ptr::null_mut(),
            &raw mut data,
        );
    }
    let call = Call { env, context: unsafe { &*data.cast::<Context>() }, arguments };
    match std::panic::catch_unwind(AssertUnwindSafe(|| function(&call))) {
        Ok(Ok(value)) => value,
        Ok(Err(error)) => throw(env, &error),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("a panic");
            throw(env, &Error::Internal(text.to_owned()))
        }
    }
}

fn throw(env: sys::napi_env, error: &Error) -> sys::napi_value {
    // When the error cannot even be made, N-API has an exception pending already.
    if let Ok(value) = error_to_js(env, error) {
        unsafe { sys::napi_throw(env, value) };
    }
    ptr::null_mut()
}

/// The JavaScript `Error` for `error`: a `TypeError` for invalid arguments, with `code`, and
/// `cause` where there is one.
pub fn error_to_js(env: sys::napi_env, error: &Error) -> Reply {
    let code = string(env, error.code())?;
    let message = string(env, &error.to_string())?;
    let mut value = ptr::null_mut();
    check(unsafe {
        if matches!(error, Error::InvalidArgument(_)) {
            sys::napi_create_type_error(env, code, message, &raw mut value)
        } else {
            sys::napi_create_error(env, code, message, &raw mut value)
        }
    })?;
    if let Some(source) = std::error::Error::source(error) {
        let message = string(env, &source.to_string())?;
        let mut cause = ptr::null_mut();
        check(unsafe {
            sys::napi_create_error(env, ptr::null_mut(), message, &raw mut cause);
            sys::napi_set_named_property(env, value, c"cause".as_ptr(), cause)
        })?;
    }
    Ok(value)
}

/// A JavaScript string; the cheap one-byte kind when `text` is ASCII.
pub fn string(env: sys::napi_env, text: &str) -> Reply {
    string_of_bytes(env, text.as_bytes())
}

/// As [`string`]; what is not UTF-8 becomes U+FFFD.
pub fn string_of_bytes(env: sys::napi_env, bytes: &[u8]) -> Reply {
    let mut value = ptr::null_mut();
    let (data, length) = (bytes.as_ptr().cast(), bytes.len().cast_signed());
    check(unsafe {
        if bytes.is_ascii() {
            sys::napi_create_string_latin1(env, data, length, &raw mut value)
        } else {
            sys::napi_create_string_utf8(env, data, length, &raw mut value)
        }
    })?;
    Ok(value)
}

/// An error for a failed N-API call, which means a wrong argument or a closing environment.
pub fn check(status: sys::napi_status) -> Result<()> {
    match status {
        sys::Status::napi_ok => Ok(()),
        sys::Status::napi_string_expected => {
            Err(Error::InvalidArgument("a string is expected".into()))
        }
        sys::Status::napi_number_expected => {
            Err(Error::InvalidArgument("a number is expected".into()))
        }
        status => Err(Error::Internal(format!("N-API status {status}"))),
    }
}

/// What the external of a handle points to.
#[repr(C)]
struct Handle<T> {
    kind: TypeId,
    value: T,
}

impl Call<'_> {
    /// The argument as it came; JavaScript's `undefined` when absent.
    pub fn raw(&self, index: usize) -> sys::napi_value {
        self.arguments[index]
    }

    pub fn f64(&self, index: usize) -> Result<f64> {
        let mut value = 0.0;
        check(unsafe { sys::napi_get_value_double(self.env, self.raw(index), &raw mut value) })?;
        Ok(value)
    }

    pub fn u32(&self, index: usize) -> Result<u32> {
        let mut value = 0;
        check(unsafe { sys::napi_get_value_uint32(self.env, self.raw(index), &raw mut value) })?;
        Ok(value)
    }

    pub fn bool(&self, index: usize) -> Result<bool> {
        let mut value = false;
        check(unsafe { sys::napi_get_value_bool(self.env, self.raw(index), &raw mut value) })?;
        Ok(value)
    }

    /// Calls `read` with the argument's UTF-16 units, which tell all JavaScript strings apart,
    /// lone surrogates too. Short strings are read into the stack.
    pub fn with_utf16<R>(&self, index: usize, read: impl FnOnce(&[u16]) -> R) -> Result<R> {
        let mut buffer = [MaybeUninit::<u16>::uninit(); STACK_UNITS];
        let mut length = 0;
        check(unsafe {
            sys::napi_get_value_string_utf16(
                self.env,
                self.raw(index),
                buffer.as_mut_ptr().cast(),
                STACK_UNITS,
                &raw mut length,
            )
        })?;
        // N-API leaves room for a NUL, so a full buffer may have been cut short.
        if length + 1 < STACK_UNITS {
            let units = unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast(), length) };
            return Ok(read(units));
        }
        Ok(read(&self.utf16(index)?))
    }

    /// The argument's UTF-16 units, of any length.
    pub fn utf16(&self, index: usize) -> Result<Vec<u16>> {
        self.utf16_of(self.raw(index))
    }

    fn utf16_of(&self, value: sys::napi_value) -> Result<Vec<u16>> {
        let env = self.env;
        let mut length = 0;
        check(unsafe {
            sys::napi_get_value_string_utf16(env, value, ptr::null_mut(), 0, &raw mut length)
        })?;
        let mut units = Vec::with_capacity(length + 1);
        check(unsafe {
            let target = units.as_mut_ptr();
            sys::napi_get_value_string_utf16(env, value, target, length + 1, &raw mut length)
        })?;
        unsafe { units.set_len(length) };
        Ok(units)
    }

    /// The argument as text; a lone surrogate becomes U+FFFD, as JavaScript's own UTF-8 does.
    pub fn text(&self, index: usize) -> Result<String> {
        self.with_utf16(index, String::from_utf16_lossy)
    }

    /// The elements of an array of strings, as UTF-8; a lone surrogate becomes U+FFFD.
    pub fn strings(&self, index: usize) -> Result<Vec<Vec<u8>>> {
        let mut length = 0;
        check(unsafe { sys::napi_get_array_length(self.env, self.raw(index), &raw mut length) })?;
        (0..length)
            .map(|at| {
                let mut element = ptr::null_mut();
                check(unsafe {
                    sys::napi_get_element(self.env, self.raw(index), at, &raw mut element)
                })?;
                Ok(String::from_utf16_lossy(&self.utf16_of(element)?).into_bytes())
            })
            .collect()
    }

    pub fn undefined(&self) -> Reply {
        let mut value = ptr::null_mut();
        check(unsafe { sys::napi_get_undefined(self.env, &raw mut value) })?;
        Ok(value)
    }

    pub fn number(&self, number: f64) -> Reply {
        let mut value = ptr::null_mut();
        check(unsafe { sys::napi_create_double(self.env, number, &raw mut value) })?;
        Ok(value)
    }

    pub fn integer(&self, number: u32) -> Reply {
        let mut value = ptr::null_mut();
        check(unsafe { sys::napi_create_uint32(self.env, number, &raw mut value) })?;
        Ok(value)
    }

    pub fn boolean(&self, flag: bool) -> Reply {
        let mut value = ptr::null_mut();
        check(unsafe { sys::napi_get_boolean(self.env, flag, &raw mut value) })?;
        Ok(value)
    }

    pub fn string(&self, text: &str) -> Reply {
        string(self.env, text)
    }

    /// A JavaScript array of `values`.
    pub fn array(&self, values: impl ExactSizeIterator<Item = Reply>) -> Reply {
        let mut array = ptr::null_mut();
        check(unsafe {
            sys::napi_create_array_with_length(self.env, values.len(), &raw mut array)
        })?;
        for (index, value) in (0..).zip(values) {
            check(unsafe { sys::napi_set_element(self.env, array, index, value?) })?;
        }
        Ok(array)
    }

    /// An opaque value that owns `value` until it is garbage collected.
    pub fn new_handle<T: 'static>(&self, value: T) -> Reply {
        let handle = Box::into_raw(Box::new(Handle { kind: TypeId::of::<T>(), value }));
        let mut external = ptr::null_mut();
        let status = unsafe {
            sys::napi_create_external(
                self.env,
                handle.cast(),
                Some(drop_handle::<T>),
                ptr::null_mut(),
                &raw mut external,
            )
        };
        if status != sys::Status::napi_ok {
            drop(unsafe { Box::from_raw(handle) });
        }
        check(status)?;
        Ok(external)
    }

    /// What [`new_handle`](Self::new_handle) was given. `call` borrows it, for JavaScript holds
    /// the argument while the call lasts.
    pub fn handle<T: 'static>(&self, index: usize) -> Result<&T> {
        let mut data = ptr::null_mut();
        let status =
            unsafe { sys::napi_get_value_external(self.env, self.raw(index), &raw mut data) };
        // `kind` comes first in any handle, whatever its type.
        let right = status == sys::Status::napi_ok
            && unsafe { (*data.cast::<Header>()).kind == TypeId::of::<T>() };
        if !right {
            return Err(Error::InvalidArgument("a handle of another kind is expected".into()));
        }
        Ok(unsafe { &(*data.cast::<Handle<T>>()).value })
    }
}

#[repr(C)]
struct Header {
    kind: TypeId,
}

unsafe extern "C" fn drop_handle<T>(_: sys::napi_env, data: *mut c_void, _: *mut c_void) {
    drop(unsafe { Box::from_raw(data.cast::<Handle<T>>()) });
}
