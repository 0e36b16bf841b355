//! How much may wait to be published, and the promise that whoever waits is told.

use crate::{
    error::{Error, Result},
    pub_sub::adapter::Completion,
};
use parking_lot::Mutex;
use std::sync::Arc;

/// The most texts that may wait.
pub const MOST_TEXTS: usize = 100_000;
/// The most bytes that may wait. A larger text may when nothing else does.
pub const MOST_BYTES: usize = 16 << 20;

/// What waits.
pub struct Bounds {
    server: String,
    used: Mutex<(usize, usize)>,
}

/// A part of the room, given back when it is dropped.
pub struct Taken {
    bounds: Arc<Bounds>,
    texts: usize,
    bytes: usize,
}

impl Bounds {
    pub fn new(server: String) -> Arc<Self> {
        Arc::new(Self { server, used: Mutex::default() })
    }

    /// # Errors
    /// [`Error::BufferFull`] when there is not so much room.
    pub fn take(bounds: &Arc<Self>, texts: usize, bytes: usize) -> Result<Taken> {
        let mut used = bounds.used.lock();
        let full = |limit| Error::BufferFull { server: bounds.server.clone(), limit };
        if used.0 > 0 && used.0 + texts > MOST_TEXTS {
            return Err(full("100000 messages"));
        }
        if used.0 > 0 && used.1 + bytes > MOST_BYTES {
            return Err(full("16 MiB"));
        }
        used.0 += texts;
        used.1 += bytes;
        Ok(Taken { bounds: Arc::clone(bounds), texts, bytes })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut used = self.bounds.used.lock();
        used.0 -= self.texts;
        used.1 -= self.bytes;
    }
}

/// A completion that is called in any case: dropped, it tells that the adapter was closed.
pub struct Told {
    completion: Option<Completion>,
    taken: Option<Taken>,
}

impl Told {
    pub fn new(completion: Completion, taken: Option<Taken>) -> Self {
        Self { completion: Some(completion), taken }
    }

    pub fn is_told(&self) -> bool {
        self.completion.is_none()
    }

    /// Nothing when it was told before.
    pub fn tell(&mut self, result: Result<()>) {
        // First, so that who is told finds the room.
        self.taken = None;
        if let Some(completion) = self.completion.take() {
            completion(result);
        }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.tell(Err(Error::Closed("the pub/sub adapter")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_bounded_by_texts_and_by_bytes_and_given_back() {
        let bounds = Bounds::new("redis://h".into());
        let Ok(large) = Bounds::take(&bounds, 1, MOST_BYTES + 1) else { panic!("alone it may") };
        assert_eq!(
            Bounds::take(&bounds, 1, 1).err().map(|error| error.code()),
            Some("E_BUFFER_FULL")
        );
        drop(large);
        let Ok(many) = Bounds::take(&bounds, MOST_TEXTS, 0) else { panic!("there is room") };
        assert_eq!(
            Bounds::take(&bounds, 1, 1).err().map(|error| error.code()),
            Some("E_BUFFER_FULL")
        );
        drop(many);
        assert!(Bounds::take(&bounds, 2, MOST_BYTES).is_ok());
    }
}
