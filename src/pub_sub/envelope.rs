//! The text that travels: `{"publisherId":…,"skipSelf"?:…,"onlySelf"?:…,"message":…}`, in any
//! order of the fields, so that nodes of the reference and ours understand each other.

use serde::Deserialize;
use serde_json::value::RawValue;

/// A text that came, its message still as JSON.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope<'a> {
    /// As JSON, so that it is compared without being read.
    #[serde(default, borrow, deserialize_with = "present")]
    publisher_id: Option<&'a RawValue>,
    #[serde(default)]
    skip_self: Option<bool>,
    #[serde(default)]
    only_self: Option<bool>,
    /// Absent when the message was `undefined`.
    #[serde(default, borrow, deserialize_with = "present")]
    message: Option<&'a RawValue>,
}

/// `null` is a message; only an absent field is none.
fn present<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl<'a> Envelope<'a> {
    pub fn parse(text: &'a str) -> serde_json::Result<Self> {
        if !text.trim_start().starts_with('{') {
            // An array would do as well otherwise, for its elements in the order of the fields.
            return Err(serde::de::Error::custom("it is no JSON object"));
        }
        serde_json::from_str(text)
    }

    /// Whether that manager is to hear it: `onlySelf` wins over `skipSelf`.
    pub fn is_for(&self, publisher: &Publisher) -> bool {
        let own = self.publisher_id.is_some_and(|id| publisher.is(id.get()));
        if self.only_self == Some(true) { own } else { !own || self.skip_self != Some(true) }
    }

    pub fn message(&self) -> Option<&'a str> {
        self.message.map(RawValue::get)
    }
}

/// A manager's id, and the same as JSON.
pub struct Publisher {
    pub id: String,
    json: String,
}

impl Publisher {
    pub fn new(id: String) -> Self {
        Self { json: serde_json::Value::from(id.as_str()).to_string(), id }
    }

    fn is(&self, json: &str) -> bool {
        // What has escapes may be written in several ways.
        json == self.json
            || json.contains('\\')
                && serde_json::from_str::<String>(json).is_ok_and(|id| id == self.id)
    }
}

/// The text for a message, which is JSON already; `None` stands for `undefined`.
pub fn frame(
    publisher_id: &str,
    skip_self: Option<bool>,
    only_self: Option<bool>,
    message: Option<&str>,
) -> String {
    Publisher::new(publisher_id.to_owned()).frame(skip_self, only_self, message)
}

impl Publisher {
    /// As [`frame`].
    pub fn frame(
        &self,
        skip_self: Option<bool>,
        only_self: Option<bool>,
        message: Option<&str>,
    ) -> String {
        let mut text = String::with_capacity(80 + message.map_or(0, str::len));
        text.push_str(r#"{"publisherId":"#);
        text.push_str(&self.json);
        for (name, flag) in [("skipSelf", skip_self), ("onlySelf", only_self)] {
            if let Some(flag) = flag {
                text.extend([",\"", name, "\":", if flag { "true" } else { "false" }]);
            }
        }
        if let Some(message) = message {
            text.push_str(r#","message":"#);
            text.push_str(message);
        }
        text.push('}');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publisher(id: &str) -> Publisher {
        Publisher::new(id.into())
    }

    #[test]
    fn a_framed_message_is_read_back() {
        let text = frame("a\"b", Some(true), None, Some(r#"{"x":[1,"y"]}"#));
        assert_eq!(text, r#"{"publisherId":"a\"b","skipSelf":true,"message":{"x":[1,"y"]}}"#);
        let envelope = Envelope::parse(&text).expect("valid");
        assert_eq!(envelope.message(), Some(r#"{"x":[1,"y"]}"#));
        assert!(envelope.is_for(&publisher("other")));
        assert!(!envelope.is_for(&publisher("a\"b")));
        let envelope = Envelope::parse(r#"{"publisherId":"\u0061\u0022b","skipSelf":true}"#);
        assert!(!envelope.expect("valid").is_for(&publisher("a\"b")));
    }

    #[test]
    fn only_self_wins_over_skip_self() {
        let text = frame("a", Some(true), Some(true), None);
        let envelope = Envelope::parse(&text).expect("valid");
        assert!(envelope.is_for(&publisher("a")));
        assert!(!envelope.is_for(&publisher("b")));
        assert_eq!(envelope.message(), None);
    }

    #[test]
    fn any_order_unknown_fields_and_missing_ones_are_read() {
        let text = r#" {"message" : null, "more": {}, "skipSelf": null, "publisherId": "p"} "#;
        let envelope = Envelope::parse(text).expect("valid");
        assert_eq!(envelope.message(), Some("null"));
        assert!(envelope.is_for(&publisher("p")));
        assert!(Envelope::parse("{}").expect("valid").is_for(&publisher("p")));
        assert!(Envelope::parse("[]").is_err());
        assert!(Envelope::parse("no").is_err());
    }
}
