//! Bloom filters: sets that never forget a member and now and then claim one they were not given,
//! at a rate that is chosen beforehand. About 9.6 bits a member for one wrong answer in a hundred.
//!
//! Bits and hash functions by the classic formulas (Bloom 1970); the functions are made of the two
//! halves of one 128-bit XXH3 hash (Kirsch and Mitzenmacher, "Less Hashing, Same Performance",
//! ESA 2006), so the bits of a value are the same on every node and in every version.

use crate::error::{Error, Result};
use std::f64::consts::LN_2;
use xxhash_rust::xxh3::xxh3_128;

/// The largest filter: 2^32 bits are 512 MiB.
const MOST_BITS: f64 = 4_294_967_296.0;

/// How many bits a filter has, and how many of them a value sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BloomShape {
    /// Bits in the filter, 64 at least.
    pub bits: u64,
    /// Bits that one value sets.
    pub hashes: u32,
}

impl BloomShape {
    /// The smallest shape that gives `error_rate` (above 0, below 1) with `capacity` members.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a rate outside its range, a capacity below 1, and a filter
    /// that would be larger than 512 MiB.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked before")]
    pub fn new(error_rate: f64, capacity: f64) -> Result<Self> {
        if !(error_rate > 0.0 && error_rate < 1.0) {
            let message =
                format!("the error rate of a bloom filter lies between 0 and 1: {error_rate}");
            return Err(Error::InvalidArgument(message));
        }
        if !(capacity >= 1.0 && capacity.is_finite()) {
            let message = format!("the capacity of a bloom filter is 1 or more: {capacity}");
            return Err(Error::InvalidArgument(message));
        }
        let bits = (-capacity * error_rate.ln() / (LN_2 * LN_2)).ceil().max(64.0);
        if bits > MOST_BITS {
            let message = format!("a bloom filter of {bits} bits is larger than 512 MiB");
            return Err(Error::InvalidArgument(message));
        }
        let hashes = (bits / capacity * LN_2).round().clamp(1.0, 64.0);
        Ok(Self { bits: bits as u64, hashes: hashes as u32 })
    }

    /// The numbers of the bits that `value` sets.
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of the hash")]
    pub fn bits_of(self, value: &[u8]) -> impl Iterator<Item = u64> {
        let hash = xxh3_128(value);
        let (first, step) = (hash as u64, (hash >> 64) as u64 | 1);
        (0..u64::from(self.hashes))
            .map(move |nth| first.wrapping_add(nth.wrapping_mul(step)) % self.bits)
    }
}

/// A filter in this process's memory.
pub struct BloomFilter {
    shape: BloomShape,
    words: Vec<u64>,
}

impl BloomFilter {
    /// An empty filter.
    pub fn new(shape: BloomShape) -> Self {
        let words = usize::try_from(shape.bits.div_ceil(64)).unwrap_or(usize::MAX);
        Self { shape, words: vec![0; words] }
    }

    /// Makes `value` a member.
    pub fn add(&mut self, value: &[u8]) {
        for bit in self.shape.bits_of(value) {
            let (word, mask) = place(bit);
            self.words[word] |= mask;
        }
    }

    /// False when `value` was never added; true when it was, or, at the error rate, by chance.
    pub fn contains(&self, value: &[u8]) -> bool {
        self.shape.bits_of(value).all(|bit| {
            let (word, mask) = place(bit);
            self.words[word] & mask != 0
        })
    }
}

fn place(bit: u64) -> (usize, u64) {
    (usize::try_from(bit / 64).unwrap_or(usize::MAX), 1 << (bit % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_and_others_claimed_at_the_promised_rate() {
        for (rate, capacity) in [(0.01, 10_000), (0.001, 1_000), (0.3, 50)] {
            let shape = BloomShape::new(rate, f64::from(capacity)).expect("a valid shape");
            let mut filter = BloomFilter::new(shape);
            (0..capacity).for_each(|n| filter.add(format!("member {n}").as_bytes()));
            assert!((0..capacity).all(|n| filter.contains(format!("member {n}").as_bytes())));
            let claimed = (0..100_000)
                .filter(|n| filter.contains(format!("stranger {n}").as_bytes()))
                .count();
            let measured = f64::from(u32::try_from(claimed).expect("few")) / 100_000.0;
            assert!(measured < rate * 1.5, "{measured} for {rate}");
        }
    }

    #[test]
    fn impossible_shapes_are_refused() {
        for (rate, capacity) in
            [(0.0, 10.0), (1.0, 10.0), (f64::NAN, 10.0), (0.1, 0.0), (0.1, f64::NAN), (0.01, 1e12)]
        {
            let error = BloomShape::new(rate, capacity).expect_err("refused");
            assert_eq!(error.code(), "E_INVALID_ARGUMENT");
        }
    }

    #[test]
    fn the_bits_of_a_value_never_change() {
        // Filters on a server outlive a version of this crate.
        let shape = BloomShape { bits: 9586, hashes: 7 };
        assert_eq!(shape.bits_of(b"mortise").take(3).collect::<Vec<_>>(), [5864, 5817, 1352]);
    }
}
