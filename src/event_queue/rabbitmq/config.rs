//! Where a broker is and how to talk to it: from a URL and options.

use super::tls::Tls;
use crate::error::{Error, Result};
use lapin::uri::{AMQPScheme, AMQPUri};
use serde::Deserialize;
use std::{str::FromStr, time::Duration};

/// How often the broker and this side give a sign of life. Defaults to 10 seconds.
pub const HEARTBEAT: Duration = Duration::from_secs(10);
/// How long connecting may take. Defaults to 10 seconds.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a confirmation or a reply may take. Defaults to 5 seconds.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);
/// The broker's `consumer_timeout`: after how long it takes a message away that runs. Defaults to 30 minutes.
pub const CONSUMER_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// What all names on the broker begin with. Defaults to `mortise`.
pub const NAME_PREFIX: &str = "mortise";
const DEFAULT_URL: &str = "amqp://127.0.0.1:5672";
/// Names have 255 bytes at most, and the channel's is to have room.
const LONGEST_PREFIX: usize = 40;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Options {
    url: Option<String>,
    heartbeat: Option<f64>,
    connect_timeout: Option<f64>,
    command_timeout: Option<f64>,
    consumer_timeout: Option<f64>,
    tls: Option<Tls>,
    name_prefix: Option<String>,
}

/// All that is needed to connect.
#[derive(Clone)]
pub struct Config {
    /// The brokers, nodes of one cluster, in the order in which they are tried.
    pub brokers: Vec<AMQPUri>,
    /// The URL by which messages name them; secrets masked.
    pub shown: String,
    /// See [`CONNECT_TIMEOUT`].
    pub connect_timeout: Duration,
    /// See [`COMMAND_TIMEOUT`].
    pub command_timeout: Duration,
    /// See [`CONSUMER_TIMEOUT`].
    pub consumer_timeout: Duration,
    /// See [`NAME_PREFIX`].
    pub name_prefix: String,
    /// How connections to `amqps` are encrypted.
    pub tls: Tls,
}

impl Config {
    /// Reads the JSON of an options object: `url`, `heartbeat`, `connectTimeout`, `commandTimeout`,
    /// `consumerTimeout`, `namePrefix`, `tls`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`], naming the option; secrets are not in its message.
    pub fn from_json(text: &str) -> Result<Self> {
        let options: Options = serde_json::from_str(text).map_err(|error| {
            invalid(&format!("the options of rabbitmq are wrong: {}", told(&error)))
        })?;
        let url = options.url.as_deref().unwrap_or(DEFAULT_URL);
        let mut config = Self::from_url(url)?;
        for (name, given, place) in [
            ("connectTimeout", options.connect_timeout, &mut config.connect_timeout),
            ("commandTimeout", options.command_timeout, &mut config.command_timeout),
            ("consumerTimeout", options.consumer_timeout, &mut config.consumer_timeout),
        ] {
            if let Some(milliseconds) = given {
                *place = duration(name, milliseconds)?;
            }
        }
        if let Some(milliseconds) = options.heartbeat {
            let seconds = seconds(duration("heartbeat", milliseconds)?);
            config.brokers.iter_mut().for_each(|broker| broker.query.heartbeat = Some(seconds));
        }
        if let Some(prefix) = options.name_prefix {
            config.name_prefix = checked(prefix)?;
        }
        if let Some(tls) = options.tls {
            if config.brokers.iter().any(|broker| broker.scheme == AMQPScheme::AMQP) {
                return Err(invalid("the option tls of rabbitmq goes with a URL of amqps"));
            }
            config.tls = tls.checked()?;
        }
        Ok(config)
    }

    /// Reads a URL: `amqp://[user:password@]host[:port][,host…][/vhost]`, `amqps://` with TLS; `?heartbeat=` in
    /// seconds, `frame_max`, `channel_max`, `auth_mechanism` may follow.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`]; secrets are not in its message.
    pub fn from_url(url: &str) -> Result<Self> {
        let shown = mask(url);
        let wrong = |what: &str| invalid(&format!("the rabbitmq URL {shown} is wrong: {what}"));
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("it has no scheme"))?;
        if scheme != "amqp" && scheme != "amqps" {
            return Err(wrong("the scheme is amqp or amqps"));
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        // A password may have an @ in it that somebody forgot to encode, but not a slash.
        let (authority, path) = rest.split_at(end);
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (format!("{user}@"), hosts),
            None => (String::new(), authority),
        };
        let broker = |host: &str| {
            let host = if host.is_empty() { "127.0.0.1" } else { host };
            AMQPUri::from_str(&format!("{scheme}://{user}{host}{path}"))
                .map_err(|_| wrong("it cannot be read"))
        };
        let mut brokers = hosts.split(',').map(broker).collect::<Result<Vec<_>>>()?;
        for broker in &mut brokers {
            broker.query.heartbeat.get_or_insert(seconds(HEARTBEAT));
            // Without a path it is the default, with an empty one too: nobody means the virtual host without a name.
            if broker.vhost.is_empty() {
                broker.vhost = "/".into();
            }
        }
        Ok(Self {
            brokers,
            shown,
            connect_timeout: CONNECT_TIMEOUT,
            command_timeout: COMMAND_TIMEOUT,
            consumer_timeout: CONSUMER_TIMEOUT,
            name_prefix: NAME_PREFIX.into(),
            tls: Tls::default(),
        })
    }
}

fn checked(prefix: String) -> Result<String> {
    let plain = prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if prefix.is_empty() || prefix.len() > LONGEST_PREFIX || !plain || prefix.starts_with("amq.") {
        return Err(invalid(&format!(
            "the option namePrefix of rabbitmq has 1 to {LONGEST_PREFIX} letters, digits and -_. and does not begin with amq.: {prefix}"
        )));
    }
    Ok(prefix)
}

fn duration(name: &str, milliseconds: f64) -> Result<Duration> {
    if milliseconds >= 1.0 && milliseconds <= f64::from(i32::MAX) {
        return Ok(Duration::from_secs_f64(milliseconds / 1000.0));
    }
    Err(invalid(&format!(
        "the option {name} of rabbitmq is a number of milliseconds from 1: {milliseconds}"
    )))
}

/// AMQP counts heartbeats in whole seconds.
fn seconds(duration: Duration) -> u16 {
    u16::try_from(duration.as_millis().div_ceil(1000)).unwrap_or(u16::MAX).max(1)
}

fn invalid(message: &str) -> Error {
    Error::InvalidArgument(message.to_owned())
}

/// What is wrong with options, without the value that is of the wrong type: it may be a key.
fn told(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(", expected ") {
        Some((what, expected)) if what.starts_with("invalid") => {
            format!("a value is not as expected: {expected}")
        }
        _ => text,
    }
}

/// A URL whose password is not shown, nor what follows the path.
fn mask(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "***".into() };
    let before_query = |text: &str| text.split('?').next().unwrap_or_default().to_owned();
    // The last @: a password may have one in it, or a ?, that somebody forgot to encode.
    let Some((user, hosts)) = rest.rsplit_once('@') else {
        return format!("{scheme}://{}", before_query(rest));
    };
    let hosts = before_query(hosts);
    match user.split_once(':') {
        None => format!("{scheme}://{}@{hosts}", before_query(user)),
        Some((name, _)) => format!("{scheme}://{name}:***@{hosts}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_hosts_users_and_virtual_hosts() {
        let config =
            Config::from_url("amqps://me:p%40ss@a,b:7/my%2Fhost?heartbeat=3").expect("valid");
        let [a, b] = config.brokers.as_slice() else { panic!("two brokers") };
        assert_eq!((a.authority.host.as_str(), a.authority.port), ("a", 5671));
        assert_eq!((b.authority.host.as_str(), b.authority.port), ("b", 7));
        assert_eq!((a.vhost.as_str(), a.query.heartbeat), ("my/host", Some(3)));
        assert_eq!(a.authority.userinfo.password, "p@ss");
        assert_eq!(config.shown, "amqps://me:***@a,b:7/my%2Fhost");
        for url in ["amqp://h", "amqp://h/", "amqp://h:5672"] {
            assert_eq!(Config::from_url(url).expect("valid").brokers[0].vhost, "/", "{url}");
        }
    }

    #[test]
    fn options_go_beside_the_url() {
        let json = r#"{"url":"amqp://h","heartbeat":1500,"connectTimeout":70,"commandTimeout":80,"consumerTimeout":90,"namePrefix":"x.y"}"#;
        let config = Config::from_json(json).expect("valid");
        assert_eq!(config.brokers[0].query.heartbeat, Some(2));
        assert_eq!(
            [config.connect_timeout, config.command_timeout, config.consumer_timeout]
                .map(|it| it.as_millis()),
            [70, 80, 90]
        );
        assert_eq!(config.name_prefix, "x.y");
    }

    #[test]
    fn what_is_wrong_is_named_and_secrets_are_not_shown() {
        for (json, named) in [
            (r#"{"url":"http://u:hidden@h"}"#, "scheme"),
            (r#"{"url":"u:hidden@h"}"#, "scheme"),
            (r#"{"url":"amqp://u:hidden@h:port"}"#, "URL"),
            (r#"{"url":"amqp://u:hid@den@h:port"}"#, "URL"),
            (r#"{"url":"amqp://u:hid?den@h"}"#, "URL"),
            (r#"{"heartbeat":0}"#, "heartbeat"),
            (r#"{"connectTimeout":-1}"#, "connectTimeout"),
            (r#"{"namePrefix":"a b"}"#, "namePrefix"),
            (r#"{"namePrefix":"amq.x"}"#, "namePrefix"),
            (r#"{"colour":1}"#, "colour"),
            (r#"{"tls":{"ca":"x"}}"#, "amqps"),
            (r#"{"url":"amqps://u:hidden@h","tls":{"ca":"x"}}"#, "tls.ca"),
            (r#"{"url":"amqps://u:hidden@h","tls":{"key":"hidden"}}"#, "tls.key"),
            (r#"{"url":"amqps://u:hidden@h","tls":{"colour":1}}"#, "colour"),
            (r#"{"url":"amqps://u:hidden@h","tls":"hidden"}"#, "Tls"),
        ] {
            let message =
                Config::from_json(json).err().unwrap_or_else(|| panic!("{json}")).to_string();
            assert!(message.contains(named), "{message}");
            assert!(!message.contains("hid"), "{message}");
        }
    }
}
