//! What `Batch` of `lib/native.ts` hands over: the commands of one turn, their strings joined to
//! one and their numbers in one typed array.

use super::call::{Call, check};
use crate::error::{Error, Result};
use napi::sys;
use std::ptr;

/// The commands, read one after the other in the order in which they were added.
pub struct Commands {
    count: usize,
    units: Vec<u16>,
    numbers: Vec<f64>,
    next_number: usize,
    next_unit: usize,
}

impl Call<'_> {
    /// The arguments `count, text, numbers` from `index` on.
    pub fn batch(&self, index: usize) -> Result<Commands> {
        Ok(Commands {
            count: self.u32(index)? as usize,
            units: self.utf16(index + 1)?,
            numbers: self.numbers(index + 2)?,
            next_number: 0,
            next_unit: 0,
        })
    }

    /// A copy of a `Float64Array`.
    fn numbers(&self, index: usize) -> Result<Vec<f64>> {
        let (mut kind, mut length, mut data) = (0, 0, ptr::null_mut());
        check(unsafe {
            sys::napi_get_typedarray_info(
                self.env,
                self.raw(index),
                &raw mut kind,
                &raw mut length,
                &raw mut data,
                ptr::null_mut(),
                ptr::null_mut(),
            )
        })?;
        if kind != sys::TypedarrayType::float64_array {
            return Err(Error::InvalidArgument("a Float64Array is expected".into()));
        }
        if length == 0 {
            return Ok(Vec::new());
        }
        Ok(unsafe { std::slice::from_raw_parts(data.cast::<f64>(), length) }.to_vec())
    }
}

impl Commands {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The next number, as the small integer it is.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    pub fn number(&mut self) -> Result<u32> {
        Ok(self.f64()? as u32)
    }

    /// The next number.
    pub fn f64(&mut self) -> Result<f64> {
        let number = self.numbers.get(self.next_number).copied();
        self.next_number += 1;
        number.ok_or_else(|| Error::Internal("a batch is too short".into()))
    }

    /// The next string; a lone surrogate becomes U+FFFD.
    pub fn string(&mut self) -> Result<String> {
        let end = self.next_unit + self.number()? as usize;
        let units = self.units.get(self.next_unit..end);
        let units = units.ok_or_else(|| Error::Internal("a batch is too short".into()))?;
        self.next_unit = end;
        Ok(String::from_utf16_lossy(units))
    }
}
