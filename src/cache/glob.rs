//! Patterns for keys, with the meaning that Redis gives them in `KEYS` and `SCAN`: `*`, `?`,
//! `[abc]`, `[a-z]`, `[^a]`, and `\` before a character meant literally.

/// A pattern made ready for many keys.
pub struct Glob(Vec<Part>);

enum Part {
    Any,
    One,
    Literal(u32),
    Class { negated: bool, ranges: Vec<(u32, u32)> },
}

impl Glob {
    /// Parses a pattern. Every text is one: a `[` without its `]` runs to the end, as on Redis.
    pub fn new(pattern: &[u16]) -> Self {
        let mut parts = Vec::new();
        let mut rest = points(pattern).into_iter().peekable();
        let is = |point: Option<&u32>, character: char| point == Some(&u32::from(character));
        while let Some(point) = rest.next() {
            parts.push(match char::from_u32(point) {
                Some('*') => {
                    while is(rest.peek(), '*') {
                        rest.next();
                    }
                    Part::Any
                }
                Some('?') => Part::One,
                Some('\\') => Part::Literal(rest.next().unwrap_or(point)),
                Some('[') => class(&mut rest),
                _ => Part::Literal(point),
            });
        }
        Self(parts)
    }

    /// Whether the whole of `key` fits.
    pub fn matches(&self, key: &[u16]) -> bool {
        let key = points(key);
        let (mut part, mut at) = (0, 0);
        // Where to go on when the attempt fails: after the last `*`, which then takes one more.
        let mut retry: Option<(usize, usize)> = None;
        loop {
            match self.0.get(part) {
                Some(Part::Any) => {
                    retry = Some((part + 1, at));
                    part += 1;
                    continue;
                }
                Some(other) if key.get(at).is_some_and(|point| other.fits(*point)) => {
                    part += 1;
                    at += 1;
                    continue;
                }
                None if at == key.len() => return true,
                _ => {}
            }
            match retry {
                Some((after, from)) if from < key.len() => {
                    retry = Some((after, from + 1));
                    (part, at) = (after, from + 1);
                }
                _ => return false,
            }
        }
    }
}

impl Part {
    fn fits(&self, point: u32) -> bool {
        match self {
            Self::Any | Self::One => true,
            Self::Literal(literal) => *literal == point,
            Self::Class { negated, ranges } => {
                ranges.iter().any(|(from, to)| (*from..=*to).contains(&point)) != *negated
            }
        }
    }
}

fn class(rest: &mut std::iter::Peekable<impl Iterator<Item = u32>>) -> Part {
    let negated = rest.next_if_eq(&u32::from('^')).is_some();
    let mut ranges = Vec::new();
    while let Some(mut from) = rest.next() {
        if from == u32::from(']') {
            break;
        }
        if from == u32::from('\\') {
            from = rest.next().unwrap_or(from);
        }
        let to = match rest.next_if_eq(&u32::from('-')) {
            Some(_) => rest.next().unwrap_or(from),
            None => from,
        };
        ranges.push((from.min(to), from.max(to)));
    }
    Part::Class { negated, ranges }
}

/// Code points, a lone surrogate standing for itself.
fn points(units: &[u16]) -> Vec<u32> {
    char::decode_utf16(units.iter().copied())
        .map(|point| point.map_or_else(|lone| u32::from(lone.unpaired_surrogate()), u32::from))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, key: &str) -> bool {
        let units = |text: &str| text.encode_utf16().collect::<Vec<_>>();
        Glob::new(&units(pattern)).matches(&units(key))
    }

    #[test]
    fn stars_question_marks_classes_and_escapes_mean_what_they_do_on_redis() {
        for (pattern, key) in [
            ("*", ""),
            ("user:*", "user:1"),
            ("h?llo", "hello"),
            ("h[ae]llo", "hallo"),
            ("h[^e]llo", "hallo"),
            ("h[a-b]llo", "hbllo"),
            ("h[b-a]llo", "hallo"),
            ("a\\*b", "a*b"),
            ("*a*b*c", "xxaxxbxabc"),
            ("?", "😀"),
            ("[😀-😂]", "😁"),
            ("a[b", "ab"),
        ] {
            assert!(matches(pattern, key), "{pattern} fits {key}");
        }
        for (pattern, key) in [
            ("", "a"),
            ("user:*", "users:1"),
            ("h?llo", "hllo"),
            ("h[^e]llo", "hello"),
            ("a\\*b", "axb"),
            ("*a*b*c", "xxaxxbxabd"),
            ("abc", "ab"),
        ] {
            assert!(!matches(pattern, key), "{pattern} does not fit {key}");
        }
    }

    #[test]
    fn many_stars_do_not_take_exponential_time() {
        assert!(!matches(&"*a".repeat(40), &"a".repeat(30)));
        assert!(!matches(&format!("{}b", "*a".repeat(40)), &"a".repeat(5000)));
    }
}
