//! The text that travels: `{"publisherId":…,"skipSelf"?:…,"onlySelf"?:…,"message":…}`, in any
//! order of the fields, so that nodes of the reference and ours understand each other.

use serde::Deserialize;
use serde_json::value::RawValue;

/// A text that came, its message still as JSON.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope<'a> {
    #[serde(default)]
    publisher_id: Option<String>,
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

    /// Whether the manager of that id is to hear it: `onlySelf` wins over `skipSelf`.
    pub fn is_for(&self, publisher_id: &str) -> bool {
        let own = self.publisher_id.as_deref() == Some(publisher_id);
        if self.only_self == Some(true) { own } else { !own || self.skip_self != Some(true) }
    }

    pub fn message(&self) -> Option<&'a str> {
        self.message.map(RawValue::get)
    }
}

/// The text for a message, which is JSON already; `None` stands for `undefined`.
pub fn frame(
    publisher_id: &str,
    skip_self: Option<bool>,
    only_self: Option<bool>,
    message: Option<&str>,
) -> String {
    let mut text = String::with_capacity(80 + message.map_or(0, str::len));
    text.push_str(r#"{"publisherId":"#);
    text.push_str(&serde_json::Value::from(publisher_id).to_string());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_framed_message_is_read_back() {
        let text = frame("a\"b", Some(true), None, Some(r#"{"x":[1,"y"]}"#));
        assert_eq!(text, r#"{"publisherId":"a\"b","skipSelf":true,"message":{"x":[1,"y"]}}"#);
        let envelope = Envelope::parse(&text).expect("valid");
        assert_eq!(envelope.message(), Some(r#"{"x":[1,"y"]}"#));
        assert!(envelope.is_for("other"));
        assert!(!envelope.is_for("a\"b"));
    }

    #[test]
    fn only_self_wins_over_skip_self() {
        let text = frame("a", Some(true), Some(true), None);
        let envelope = Envelope::parse(&text).expect("valid");
        assert!(envelope.is_for("a"));
        assert!(!envelope.is_for("b"));
        assert_eq!(envelope.message(), None);
    }

    #[test]
    fn any_order_unknown_fields_and_missing_ones_are_read() {
        let text = r#" {"message" : null, "more": {}, "skipSelf": null, "publisherId": "p"} "#;
        let envelope = Envelope::parse(text).expect("valid");
        assert_eq!(envelope.message(), Some("null"));
        assert!(envelope.is_for("p"));
        assert!(Envelope::parse("{}").expect("valid").is_for("p"));
        assert!(Envelope::parse("[]").is_err());
        assert!(Envelope::parse("no").is_err());
    }
}
