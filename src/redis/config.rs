//! Where a server is and how to talk to it: from a URL, from options, or from both.

use crate::error::{Error, Result};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use std::{fmt::Write as _, path::PathBuf, time::Duration};

const DEFAULT_PORT: u16 = 6379;
const DEFAULT_SENTINEL_PORT: u16 = 26379;
/// How long a command may take, waiting for the connection included. Defaults to 5 seconds.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);
/// How long connecting may take, greeting included. Defaults to 10 seconds.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long after losing the server commands wait for it before they fail at once. Defaults to 1 second.
pub const GRACE: Duration = Duration::from_secs(1);
/// How often the server is asked for a sign of life. Defaults to 2 seconds.
pub const HEARTBEAT: Duration = Duration::from_secs(2);
/// How long that sign may take before the connection counts as dead. Defaults to 3 seconds.
pub const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(3);

/// What JavaScript may give beside a URL, or instead of one; `lib/redis/options.ts` documents it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Options {
    url: Option<String>,
    host: Option<String>,
    port: Option<u16>,
    path: Option<PathBuf>,
    username: Option<String>,
    password: Option<String>,
    database: Option<i64>,
    tls: Option<TlsOptions>,
    sentinels: Option<Vec<Node>>,
    master_name: Option<String>,
    sentinel_username: Option<String>,
    sentinel_password: Option<String>,
    cluster: Option<Vec<Node>>,
    protocol: Option<u8>,
    command_timeout: Option<f64>,
    connect_timeout: Option<f64>,
    reconnect_grace: Option<f64>,
    heartbeat: Option<f64>,
    heartbeat_timeout: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum TlsOptions {
    Flag(bool),
    Given(Tls),
}

/// How the connection is encrypted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tls {
    /// Certificates of the authority, PEM; the system's when absent.
    pub ca: Option<String>,
    /// This client's certificate, PEM.
    pub cert: Option<String>,
    /// The key to it, PEM.
    pub key: Option<String>,
    /// `false` accepts any certificate.
    pub reject_unauthorized: Option<bool>,
}

/// One host and port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// A name or an address; IPv6 without brackets.
    pub host: String,
    /// The TCP port.
    #[serde(default)]
    pub port: u16,
}

/// Where the server, or servers, are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Servers {
    /// One server.
    Single(Node),
    /// One server on a Unix socket.
    Unix(PathBuf),
    /// The master that the sentinels name.
    Sentinel {
        /// The sentinels.
        sentinels: Vec<Node>,
        /// What they call the master.
        master_name: String,
        /// The user at the sentinels.
        username: Option<String>,
        /// The password at the sentinels.
        password: Option<String>,
    },
    /// A cluster, of which some nodes are known.
    Cluster(Vec<Node>),
}

/// All that is needed to connect. Two that are equal may share a connection.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    /// Where.
    pub servers: Servers,
    /// The ACL user.
    pub username: Option<String>,
    /// The password.
    pub password: Option<String>,
    /// The number of the database; 0 on a cluster.
    pub database: i64,
    /// Encryption, if any.
    pub tls: Option<Tls>,
    /// Whether RESP3 is tried at all.
    pub resp3: bool,
    /// See [`COMMAND_TIMEOUT`].
    pub command_timeout: Duration,
    /// See [`CONNECT_TIMEOUT`].
    pub connect_timeout: Duration,
    /// See [`GRACE`].
    pub grace: Duration,
    /// See [`HEARTBEAT`].
    pub heartbeat: Duration,
    /// See [`HEARTBEAT_TIMEOUT`].
    pub heartbeat_timeout: Duration,
}

impl Config {
    /// Reads the JSON of an options object, whose `url`, if it has one, the other options override.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`], naming the option.
    pub fn from_json(text: &str) -> Result<Self> {
        let options: Options = serde_json::from_str(text)
            .map_err(|error| invalid(&format!("the options of redis are wrong: {error}")))?;
        let mut config = match &options.url {
            Some(url) => Self::from_url(url)?,
            None => {
                Self::new(Servers::Single(Node { host: "127.0.0.1".into(), port: DEFAULT_PORT }))
            }
        };
        config.override_servers(&options)?;
        config.username = options.username.or(config.username);
        config.password = options.password.or(config.password);
        config.database = options.database.unwrap_or(config.database);
        config.tls = match options.tls {
            None => config.tls,
            Some(TlsOptions::Flag(flag)) => flag.then(|| config.tls.unwrap_or_default()),
            Some(TlsOptions::Given(tls)) => Some(tls),
        };
        match options.protocol {
            None => {}
            Some(version @ (2 | 3)) => config.resp3 = version == 3,
            Some(other) => {
                return Err(invalid(&format!("the option protocol of redis is 2 or 3: {other}")));
            }
        }
        for (name, given, place) in [
            ("commandTimeout", options.command_timeout, &mut config.command_timeout),
            ("connectTimeout", options.connect_timeout, &mut config.connect_timeout),
            ("reconnectGrace", options.reconnect_grace, &mut config.grace),
            ("heartbeat", options.heartbeat, &mut config.heartbeat),
            ("heartbeatTimeout", options.heartbeat_timeout, &mut config.heartbeat_timeout),
        ] {
            if let Some(milliseconds) = given {
                *place = duration(name, milliseconds)?;
            }
        }
        config.check()
    }

    /// Reads a URL: `redis://[[user]:password@]host[:port][/database]`, `rediss://` with TLS,
    /// `redis+unix:///path?db=1`, `redis+sentinel://host,host/name[/database]`,
    /// `redis+cluster://host,host`; `valkey` may stand for `redis`, and `?protocol=2` keeps to RESP2.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`]; secrets are not in its message.
    pub fn from_url(url: &str) -> Result<Self> {
        let shown = mask(url);
        let wrong = |what: &str| invalid(&format!("the redis URL {shown} is wrong: {what}"));
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("it has no scheme"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let scheme = scheme.replacen("valkey", "redis", 1);
        let (tls, kind) = match scheme.as_str() {
            "unix" => (false, "unix"),
            other => {
                let (base, kind) = other.split_once('+').unwrap_or((other, "single"));
                match base {
                    "redis" => (false, kind),
                    "rediss" => (true, kind),
                    _ => {
                        return Err(wrong(
                            "the scheme is redis, rediss or valkey, with +sentinel, +cluster or +unix",
                        ));
                    }
                }
            }
        };
        let (authority, path) = if kind == "unix" {
            rest.find('/').map_or((rest, ""), |at| rest.split_at(at))
        } else {
            rest.split_once('/').unwrap_or((rest, ""))
        };
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (Some(user), hosts),
            None => (None, authority),
        };
        let segments: Vec<String> =
            path.split('/').filter(|part| !part.is_empty()).map(decode).collect();
        let port = if kind == "sentinel" { DEFAULT_SENTINEL_PORT } else { DEFAULT_PORT };
        let nodes = hosts
            .split(',')
            .filter(|host| !host.is_empty() || kind == "single")
            .map(|host| {
                Node::parse(host, port).ok_or_else(|| wrong("a host or port cannot be read"))
            })
            .collect::<Result<Vec<_>>>()?;
        let (servers, database) = match kind {
            "single" => match nodes.as_slice() {
                [node] => (Servers::Single(node.clone()), segments.first()),
                _ => {
                    return Err(wrong("it has several hosts; use redis+sentinel or redis+cluster"));
                }
            },
            "unix" => (Servers::Unix(PathBuf::from(decode(path))), None),
            "sentinel" => {
                let name = segments.first().ok_or_else(|| wrong("the master's name is missing"))?;
                let sentinels = nodes;
                (
                    Servers::Sentinel {
                        sentinels,
                        master_name: name.clone(),
                        username: None,
                        password: None,
                    },
                    segments.get(1),
                )
            }
            "cluster" => (Servers::Cluster(nodes), segments.first()),
            _ => return Err(wrong("after + come sentinel, cluster or unix")),
        };
        let mut config = Self::new(servers);
        config.tls = tls.then(Tls::default);
        if let Some(database) = database {
            config.database = database.parse().map_err(|_| wrong("the database is a number"))?;
        }
        if let Some(user) = user {
            let (name, password) = user.split_once(':').map_or((user, None), |(n, p)| (n, Some(p)));
            config.username = Some(decode(name)).filter(|name| !name.is_empty());
            config.password = password.map(decode);
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            config.set_query(name, &decode(value)).map_err(|what| wrong(&what))?;
        }
        config.check()
    }

    fn new(servers: Servers) -> Self {
        Self {
            servers,
            username: None,
            password: None,
            database: 0,
            tls: None,
            resp3: true,
            command_timeout: COMMAND_TIMEOUT,
            connect_timeout: CONNECT_TIMEOUT,
            grace: GRACE,
            heartbeat: HEARTBEAT,
            heartbeat_timeout: HEARTBEAT_TIMEOUT,
        }
    }

    fn set_query(&mut self, name: &str, value: &str) -> Result<(), String> {
        match (name, &mut self.servers) {
            ("protocol", _) => match value.trim_start_matches("resp") {
                "2" => self.resp3 = false,
                "3" => self.resp3 = true,
                _ => return Err("protocol is 2 or 3".into()),
            },
            ("db" | "database", _) => {
                self.database = value.parse().map_err(|_| "the database is a number")?;
            }
            ("user" | "username", _) => self.username = Some(value.to_owned()),
            ("pass" | "password", _) => self.password = Some(value.to_owned()),
            ("sentinelUsername", Servers::Sentinel { username, .. }) => {
                *username = Some(value.to_owned());
            }
            ("sentinelPassword", Servers::Sentinel { password, .. }) => {
                *password = Some(value.to_owned());
            }
            _ => return Err(format!("nobody knows the parameter {name}")),
        }
        Ok(())
    }

    fn override_servers(&mut self, options: &Options) -> Result<()> {
        if let Some(path) = &options.path {
            self.servers = Servers::Unix(path.clone());
        }
        if options.host.is_some() || options.port.is_some() {
            let Servers::Single(node) = &mut self.servers else {
                return Err(invalid("the options host and port of redis go with a single server"));
            };
            node.host = options.host.clone().unwrap_or_else(|| node.host.clone());
            node.port = options.port.unwrap_or(node.port);
        }
        if let Some(nodes) = &options.cluster {
            self.servers = Servers::Cluster(with_ports(nodes, DEFAULT_PORT));
        }
        if let Some(nodes) = &options.sentinels {
            self.servers = Servers::Sentinel {
                sentinels: with_ports(nodes, DEFAULT_SENTINEL_PORT),
                master_name: String::new(),
                username: None,
                password: None,
            };
        }
        if let Servers::Sentinel { master_name, username, password, .. } = &mut self.servers {
            if let Some(name) = &options.master_name {
                master_name.clone_from(name);
            }
            *username = options.sentinel_username.clone().or(username.take());
            *password = options.sentinel_password.clone().or(password.take());
        }
        Ok(())
    }

    fn check(self) -> Result<Self> {
        let nodes = match &self.servers {
            Servers::Single(node) => std::slice::from_ref(node),
            Servers::Unix(path) if path.as_os_str().is_empty() => {
                return Err(invalid("the path of redis' Unix socket is empty"));
            }
            Servers::Unix(_) => &[],
            Servers::Sentinel { master_name, .. } if master_name.is_empty() => {
                return Err(invalid("the option masterName of redis is missing"));
            }
            Servers::Sentinel { sentinels: nodes, .. } | Servers::Cluster(nodes) => {
                if nodes.is_empty() {
                    return Err(invalid("redis has no host to connect to"));
                }
                nodes.as_slice()
            }
        };
        if nodes.iter().any(|node| node.host.is_empty() || node.port == 0) {
            return Err(invalid("a host of redis is empty, or its port 0"));
        }
        if matches!(self.servers, Servers::Cluster(_)) && self.database != 0 {
            return Err(invalid("a redis cluster has database 0 only"));
        }
        if self.database < 0 {
            return Err(invalid("the database of redis is 0 or more"));
        }
        Ok(self)
    }

    /// The URL by which messages name the server; secrets masked.
    pub fn shown(&self) -> String {
        let secure = if self.tls.is_some() { "rediss" } else { "redis" };
        let mut text = match &self.servers {
            Servers::Single(_) => format!("{secure}://"),
            Servers::Unix(_) => format!("{secure}+unix://"),
            Servers::Sentinel { .. } => format!("{secure}+sentinel://"),
            Servers::Cluster(_) => format!("{secure}+cluster://"),
        };
        match (&self.username, &self.password) {
            (None, None) => {}
            (name, None) => _ = write!(text, "{}@", name.as_deref().unwrap_or("")),
            (name, Some(_)) => _ = write!(text, "{}:***@", name.as_deref().unwrap_or("")),
        }
        match &self.servers {
            Servers::Single(node) => text.push_str(&node.to_string()),
            Servers::Unix(path) => _ = write!(text, "{}", path.display()),
            Servers::Sentinel { sentinels: nodes, .. } | Servers::Cluster(nodes) => {
                let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
                text.push_str(&nodes.join(","));
            }
        }
        if let Servers::Sentinel { master_name, .. } = &self.servers {
            _ = write!(text, "/{master_name}");
        }
        if self.database != 0 {
            _ = match self.servers {
                Servers::Unix(_) => write!(text, "?db={}", self.database),
                _ => write!(text, "/{}", self.database),
            };
        }
        text
    }
}

impl Node {
    fn parse(text: &str, default_port: u16) -> Option<Self> {
        if text.is_empty() {
            return Some(Self { host: "127.0.0.1".into(), port: default_port });
        }
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']')?;
            (host, rest.strip_prefix(':'))
        } else {
            text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)))
        };
        let port = match port {
            None => default_port,
            Some(port) => port.parse().ok()?,
        };
        Some(Self { host: decode(host), port })
    }
}

impl std::fmt::Display for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

fn with_ports(nodes: &[Node], default: u16) -> Vec<Node> {
    let port = |node: &Node| if node.port == 0 { default } else { node.port };
    nodes.iter().map(|node| Node { host: node.host.clone(), port: port(node) }).collect()
}

fn duration(name: &str, milliseconds: f64) -> Result<Duration> {
    if milliseconds >= 1.0 && milliseconds <= f64::from(i32::MAX) {
        return Ok(Duration::from_secs_f64(milliseconds / 1000.0));
    }
    let message =
        format!("the option {name} of redis is a number of milliseconds from 1: {milliseconds}");
    Err(invalid(&message))
}

fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn invalid(message: &str) -> Error {
    Error::InvalidArgument(message.to_owned())
}

/// A URL whose password, and whatever follows a `password=`, is not shown.
pub fn mask(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "***".into() };
    let (rest, query) =
        rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    if !rest.contains('@') && query.is_some_and(|query| query.contains('@')) {
        // A password may have a ? in it that somebody forgot to encode: what is secret is not known then.
        return format!("{scheme}://***");
    }
    // The last @: a password may have one in it that somebody forgot to encode.
    let masked = match rest.rsplit_once('@') {
        None => rest.to_owned(),
        Some((user, hosts)) => match user.split_once(':') {
            None => format!("{user}@{hosts}"),
            Some((name, _)) => format!("{name}:***@{hosts}"),
        },
    };
    let query = query.map_or_else(String::new, |query| {
        let shown: Vec<String> = query
            .split('&')
            .map(|pair| match pair.split_once('=') {
                Some((name, _)) if name.to_lowercase().contains("pass") => format!("{name}=***"),
                _ => pair.to_owned(),
            })
            .collect();
        format!("?{}", shown.join("&"))
    });
    format!("{scheme}://{masked}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Config {
        Config::from_url(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn node(host: &str, port: u16) -> Node {
        Node { host: host.into(), port }
    }

    #[test]
    fn urls_of_every_kind_are_read() {
        assert_eq!(url("redis://").servers, Servers::Single(node("127.0.0.1", 6379)));
        let config = url("rediss://me:p%40ss@db.example:7000/3?protocol=2");
        assert_eq!(config.servers, Servers::Single(node("db.example", 7000)));
        assert_eq!(
            (config.username.as_deref(), config.password.as_deref()),
            (Some("me"), Some("p@ss"))
        );
        assert_eq!((config.database, config.tls.is_some(), config.resp3), (3, true, false));
        assert_eq!(url("valkey://:secret@[::1]:1").servers, Servers::Single(node("::1", 1)));
        assert_eq!(
            url("redis+unix:///run/r.sock?db=2").servers,
            Servers::Unix("/run/r.sock".into())
        );
        let Servers::Sentinel { sentinels, master_name, password, .. } =
            url("redis+sentinel://:pw@a,b:1/mymaster/4?sentinelPassword=x").servers
        else {
            panic!("sentinels");
        };
        assert_eq!(sentinels, [node("a", 26379), node("b", 1)]);
        assert_eq!((master_name.as_str(), password.as_deref()), ("mymaster", Some("x")));
        assert_eq!(
            url("redis+cluster://a:1,b:2").servers,
            Servers::Cluster(vec![node("a", 1), node("b", 2)])
        );
    }

    #[test]
    fn options_override_the_url() {
        let config = Config::from_json(
            r#"{"url":"redis://u:p@h:1/2","port":9,"database":5,"password":"q","tls":true,"commandTimeout":70}"#,
        )
        .expect("valid");
        assert_eq!(config.shown(), "rediss://u:***@h:9/5");
        assert_eq!(config.password.as_deref(), Some("q"));
        assert_eq!(config.command_timeout, Duration::from_millis(70));
    }

    #[test]
    fn what_is_wrong_is_named_and_secrets_are_not_shown() {
        for (text, named) in [
            ("http://u:hidden@h", "scheme"),
            ("redis://u:hidden@h:port", "port"),
            ("redis://u:hidden@h/x", "database"),
            ("redis+sentinel://u:hidden@h", "master"),
            ("redis://u:hidden@h?colour=red", "colour"),
            ("redis://u:hidden@a,b", "several hosts"),
            ("u:hidden@h", "scheme"),
            ("redis://h?password=hidden&x=1", "parameter x"),
            ("redis://u:no?hidden@h", "host"),
        ] {
            let message =
                Config::from_url(text).err().unwrap_or_else(|| panic!("{text}")).to_string();
            assert!(message.contains(named), "{message}");
            assert!(!message.contains("hidden"), "{message}");
        }
        for (json, named) in [
            (r#"{"prot":1}"#, "prot"),
            (r#"{"protocol":4}"#, "protocol"),
            (r#"{"reconnectGrace":-1}"#, "reconnectGrace"),
            (r#"{"cluster":[]}"#, "no host"),
            (r#"{"sentinels":[{"host":"a"}]}"#, "masterName"),
            (r#"{"cluster":[{"host":"a"}],"database":1}"#, "database 0"),
        ] {
            let message =
                Config::from_json(json).err().unwrap_or_else(|| panic!("{json}")).to_string();
            assert!(message.contains(named), "{message}");
        }
    }
}
