//! What `Batch` of `lib/native.ts` hands over: the commands of one turn, their strings joined to
//! one and their numbers in one typed array.

use super::call::{Call, check};
use crate::error::{Error, Result};
use napi::sys;
use std::{borrow::Cow, ptr};

/// The commands, read one after the other in the order in which they were added.
pub struct Commands {
    count: usize,
    text: Text,
    numbers: Vec<f64>,
    next_number: usize,
    next_unit: usize,
}

/// The joined strings. Lengths count UTF-16 units, which in ASCII are bytes: then no string has to
/// be converted, a third of the work of a batch.
enum Text {
    Ascii(Vec<u8>),
    Utf16(Vec<u16>),
}

impl Call<'_> {
    /// The arguments `count, text, numbers, filled, units` from `index` on.
    pub fn batch(&self, index: usize) -> Result<Commands> {
        Ok(Commands {
            count: self.u32(index)? as usize,
            text: self.batch_text(index + 1, self.u32(index + 4)? as usize)?,
            numbers: self.numbers(index + 2, self.u32(index + 3)? as usize)?,
            next_number: 0,
            next_unit: 0,
        })
    }

    /// One call of N-API in the usual case, and no zeroed memory: half of what a small batch costs.
    fn batch_text(&self, index: usize, units: usize) -> Result<Text> {
        let (env, value) = (self.env, self.raw(index));
        // Room for the longest that is still ASCII, for N-API's NUL, and for one byte more, by
        // which a longer text shows.
        let capacity = units + 2;
        let mut text = Vec::<u8>::with_capacity(capacity);
        let mut bytes = 0;
        check(unsafe {
            let target = text.as_mut_ptr().cast();
            sys::napi_get_value_string_utf8(env, value, target, capacity, &raw mut bytes)
        })?;
        unsafe { text.set_len(bytes) };
        if bytes == units && text.is_ascii() {
            return Ok(Text::Ascii(text));
        }
        Ok(Text::Utf16(self.utf16(index)?))
    }

    /// A copy of the first `filled` numbers of a `Float64Array`.
    fn numbers(&self, index: usize, filled: usize) -> Result<Vec<f64>> {
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
        Ok(unsafe { std::slice::from_raw_parts(data.cast::<f64>(), length.min(filled)) }.to_vec())
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "lengths and counts")]
impl Commands {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The length of all strings, in UTF-16 units or, when all is ASCII, in bytes.
    pub fn units(&self) -> usize {
        match &self.text {
            Text::Ascii(bytes) => bytes.len(),
            Text::Utf16(units) => units.len(),
        }
    }

    /// The sequence numbers of commands that consist of one, the count of their words, and the words;
    /// and whether the batch is whole. Nothing is consumed.
    pub fn sequences(&self) -> Result<Vec<f64>> {
        let short = || Error::Internal("a batch is too short".into());
        let (mut at, mut units, mut sequences) = (0, 0.0, Vec::with_capacity(self.count));
        for _ in 0..self.count {
            sequences.push(*self.numbers.get(at).ok_or_else(short)?);
            let words = *self.numbers.get(at + 1).ok_or_else(short)? as usize;
            let lengths = self.numbers.get(at + 2..at + 2 + words).ok_or_else(short)?;
            units += lengths.iter().sum::<f64>();
            at += 2 + words;
        }
        if units as usize == self.units() { Ok(sequences) } else { Err(short()) }
    }

    /// The lengths of the next strings, without consuming them.
    pub fn lengths(&self, count: usize) -> impl Iterator<Item = usize> {
        self.numbers.iter().skip(self.next_number).take(count).map(|length| *length as usize)
    }

    /// The next number, as the small integer it is.
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
        Ok(String::from_utf8_lossy(&self.bytes()?).into_owned())
    }

    /// The next string as UTF-8; a lone surrogate becomes U+FFFD.
    pub fn bytes(&mut self) -> Result<Cow<'_, [u8]>> {
        let start = self.next_unit;
        let end = start + self.number()? as usize;
        self.next_unit = end;
        let bytes = match &self.text {
            Text::Ascii(bytes) => bytes.get(start..end).map(Cow::Borrowed),
            Text::Utf16(units) => units
                .get(start..end)
                .map(|units| Cow::Owned(String::from_utf16_lossy(units).into_bytes())),
        };
        bytes.ok_or_else(|| Error::Internal("a batch is too short".into()))
    }
}
