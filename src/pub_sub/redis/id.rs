//! The ids of a stream's entries: milliseconds by the server's clock, and a count within them.

/// `<milliseconds>-<count>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Id {
    pub milliseconds: u64,
    pub count: u64,
}

impl Id {
    /// Before all entries.
    pub const ZERO: Self = Self { milliseconds: 0, count: 0 };

    pub fn parse(text: &[u8]) -> Option<Self> {
        let (milliseconds, count) = std::str::from_utf8(text).ok()?.split_once('-')?;
        Some(Self { milliseconds: milliseconds.parse().ok()?, count: count.parse().ok()? })
    }

    /// The first that may come after it.
    pub fn next(self) -> Self {
        match self.count.checked_add(1) {
            Some(count) => Self { count, ..self },
            None => Self { milliseconds: self.milliseconds.saturating_add(1), count: 0 },
        }
    }

    /// The last that may come before it.
    pub fn previous(self) -> Self {
        match (self.count.checked_sub(1), self.milliseconds.checked_sub(1)) {
            (Some(count), _) => Self { count, ..self },
            (None, Some(milliseconds)) => Self { milliseconds, count: u64::MAX },
            (None, None) => Self::ZERO,
        }
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.milliseconds, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_ordered_as_numbers_and_have_neighbours() {
        let id = |text: &str| Id::parse(text.as_bytes()).expect("an id");
        assert!(id("9-10") < id("10-2") && id("9-9") < id("9-10"));
        assert_eq!(id("7-0").previous(), id("6-18446744073709551615"));
        for text in ["7-0", "7-3", "6-18446744073709551615"] {
            assert_eq!(id(text).to_string(), text);
            assert_eq!(id(text).previous().next(), id(text));
        }
        assert!([&b"7"[..], b"a-1", b"1-", b""].into_iter().all(|text| Id::parse(text).is_none()));
    }
}
