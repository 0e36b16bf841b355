//! Opening one connection: the address (asking the sentinels for it), TLS, the greeting in RESP3
//! or, where the server has none, RESP2.

use super::config::{Config, Node, Servers, Tls};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ErrorKind, IntoConnectionInfo,
    ProtocolVersion, RedisConnectionInfo, RedisError, TlsCertificates, Value,
    aio::{AsyncPushSender, MultiplexedConnection},
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};
use std::{sync::Once, time::Duration};

/// The operating system's own look for dead peers, beneath our heartbeat.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Batches that may wait in the connection's own queue.
const QUEUED_BATCHES: usize = 1024;

/// Which server of those in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// The only one, or the master that the sentinels name.
    Main,
    /// This node of a cluster.
    Node(Node),
}

/// An open connection, and what the server said of itself.
pub struct Connected {
    /// The connection.
    pub connection: MultiplexedConnection,
    /// Whether it speaks RESP3.
    pub resp3: bool,
    /// `redis_version`; empty when the user may not ask.
    pub version: String,
    /// `maxmemory_policy`; empty when the user may not ask.
    pub eviction: String,
}

/// Connects to `target`. `purpose` is the connection's name on the server.
///
/// The error is the reason, as an operator reads it.
pub async fn connect<P: AsyncPushSender + Clone>(
    config: &Config,
    target: &Target,
    purpose: &str,
    pushes: P,
) -> Result<Connected, String> {
    let address = match (target, &config.servers) {
        (Target::Node(node), _) | (Target::Main, Servers::Single(node)) => {
            tcp(node, config.tls.as_ref())
        }
        (Target::Main, Servers::Unix(path)) => ConnectionAddr::Unix(path.clone()),
        (Target::Main, Servers::Sentinel { sentinels, .. }) => {
            return connect_to_master(config, sentinels, purpose, pushes).await;
        }
        (Target::Main, Servers::Cluster(_)) => return Err("a cluster has no main server".into()),
    };
    connect_to(config, address, purpose, pushes).await
}

async fn connect_to<P: AsyncPushSender + Clone>(
    config: &Config,
    address: ConnectionAddr,
    purpose: &str,
    pushes: P,
) -> Result<Connected, String> {
    let mut login = RedisConnectionInfo::default().set_db(config.database);
    if let Some(name) = &config.username {
        login = login.set_username(name);
    }
    if let Some(password) = &config.password {
        login = login.set_password(password);
    }
    let (mut connection, resp3) = open(config, address, login, pushes).await?;
    if matches!(config.servers, Servers::Sentinel { .. }) {
        check_is_master(&mut connection).await?;
    }
    let (version, eviction) = introduce(&mut connection, purpose).await?;
    Ok(Connected { connection, resp3, version, eviction })
}

/// Asks the sentinels, one after the other, until one names a master that is there and is one:
/// after a failover some of them may still name the old one.
async fn connect_to_master<P: AsyncPushSender + Clone>(
    config: &Config,
    sentinels: &[Node],
    purpose: &str,
    pushes: P,
) -> Result<Connected, String> {
    // One that hangs must not use up the time that the others could answer in.
    let patience = config.connect_timeout / u32::try_from(sentinels.len() + 1).unwrap_or(2);
    let mut reasons = Vec::new();
    for sentinel in sentinels {
        let attempt = async {
            let master = ask_sentinel(config, sentinel).await?;
            let address = tcp(&master, config.tls.as_ref());
            let connected = connect_to(config, address, purpose, pushes.clone()).await;
            connected.map_err(|reason| format!("{master}: {reason}"))
        };
        match tokio::time::timeout(patience, attempt).await {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(reason)) => reasons.push(format!("by sentinel {sentinel}: {reason}")),
            Err(_) => reasons.push(format!("by sentinel {sentinel}: no answer")),
        }
    }
    Err(format!("no master was found ({})", reasons.join("; ")))
}

/// Greets in RESP3, and again in RESP2 when the server does not know it.
async fn open<P: AsyncPushSender + Clone>(
    config: &Config,
    address: ConnectionAddr,
    login: RedisConnectionInfo,
    pushes: P,
) -> Result<(MultiplexedConnection, bool), String> {
    let settings = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(config.connect_timeout))
        // Ours are set for each batch.
        .set_response_timeout(None)
        .set_pipeline_buffer_size(QUEUED_BATCHES);
    if config.resp3 {
        let with_pushes = settings.clone().set_push_sender(pushes);
        let login = login.clone().set_protocol(ProtocolVersion::RESP3);
        match client(config, address.clone(), login)
            .map_err(|error| reason(&error))?
            .get_multiplexed_async_connection_with_config(&with_pushes)
            .await
        {
            Ok(connection) => return Ok((connection, true)),
            Err(error) if knows_no_resp3(&error) => {}
            Err(error) => return Err(reason(&error)),
        }
    }
    let login = login.set_protocol(ProtocolVersion::RESP2);
    let connection = client(config, address, login)
        .map_err(|error| reason(&error))?
        .get_multiplexed_async_connection_with_config(&settings)
        .await;
    connection.map(|connection| (connection, false)).map_err(|error| reason(&error))
}

fn knows_no_resp3(error: &RedisError) -> bool {
    let text = error.to_string().to_lowercase();
    error.kind() == ErrorKind::RESP3NotSupported
        || text.contains("noproto")
        || text.contains("unknown command") && text.contains("hello")
}

fn client(
    config: &Config,
    address: ConnectionAddr,
    login: RedisConnectionInfo,
) -> redis::RedisResult<Client> {
    // Off by default in redis-rs; without it small batches wait for the last one's acknowledgement.
    let tcp = TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3));
    let info = address.into_connection_info()?.set_redis_settings(login).set_tcp_settings(tcp);
    match &config.tls {
        None => Client::open(info),
        Some(tls) => {
            use_crypto();
            let bytes = |text: &Option<String>| text.as_ref().map(|text| text.clone().into_bytes());
            let client_tls = bytes(&tls.cert)
                .zip(bytes(&tls.key))
                .map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
            Client::build_with_tls(info, TlsCertificates { client_tls, root_cert: bytes(&tls.ca) })
        }
    }
}

/// rustls asks for one provider of cryptography a process.
fn use_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Somebody else's choice is as good.
        _ = rustls::crypto::ring::default_provider().install_default();
    });
}

fn tcp(node: &Node, tls: Option<&Tls>) -> ConnectionAddr {
    match tls {
        None => ConnectionAddr::Tcp(node.host.clone(), node.port),
        Some(tls) => ConnectionAddr::TcpTls {
            host: node.host.clone(),
            port: node.port,
            insecure: tls.reject_unauthorized == Some(false),
            tls_params: None,
        },
    }
}

/// The version and the eviction policy; users who may not ask get no answer, which is none of
/// the connection's business.
async fn introduce(
    connection: &mut MultiplexedConnection,
    purpose: &str,
) -> Result<(String, String), String> {
    let mut pipe = redis::pipe();
    pipe.cmd("CLIENT").arg("SETNAME").arg(format!("mortise:{purpose}"));
    pipe.cmd("INFO").arg("server").cmd("INFO").arg("memory").cmd("INFO").arg("persistence");
    let replies =
        connection.send_packed_commands(&pipe, 0, 4).await.map_err(|error| reason(&error))?;
    let mut texts = replies.into_iter().skip(1).map(|reply| match reply {
        Value::BulkString(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Value::VerbatimString { text, .. } => text,
        _ => String::new(),
    });
    let [server, memory, persistence] = [(); 3].map(|()| texts.next().unwrap_or_default());
    // Such a server answers, and is not of use yet.
    if persistence.lines().any(|line| line == "loading:1") {
        return Err("the server is loading its data".into());
    }
    Ok((field(&server, "redis_version"), field(&memory, "maxmemory_policy")))
}

fn field(info: &str, name: &str) -> String {
    info.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| *key == name)
        .map_or_else(String::new, |(_, value)| value.trim().to_owned())
}

/// The master, as a sentinel knows it.
async fn ask_sentinel(config: &Config, sentinel: &Node) -> Result<Node, String> {
    let Servers::Sentinel { master_name, username, password, .. } = &config.servers else {
        return Err("there are no sentinels".into());
    };
    let mut login = RedisConnectionInfo::default().set_skip_set_lib_name();
    if let Some(name) = username {
        login = login.set_username(name);
    }
    if let Some(password) = password {
        login = login.set_password(password);
    }
    let settings =
        AsyncConnectionConfig::new().set_connection_timeout(Some(config.connect_timeout));
    let mut connection = client(config, tcp(sentinel, config.tls.as_ref()), login)
        .map_err(|error| reason(&error))?
        .get_multiplexed_async_connection_with_config(&settings)
        .await
        .map_err(|error| reason(&error))?;
    let mut ask = redis::cmd("SENTINEL");
    ask.arg("GET-MASTER-ADDR-BY-NAME").arg(master_name);
    let found: Option<(String, u16)> =
        ask.query_async(&mut connection).await.map_err(|error| reason(&error))?;
    let (host, port) = found.ok_or_else(|| format!("it does not know the master {master_name}"))?;
    Ok(Node { host, port })
}

/// A sentinel may still name the old master, or one that has become a replica since.
async fn check_is_master(connection: &mut MultiplexedConnection) -> Result<(), String> {
    let reply = connection
        .send_packed_command(&redis::cmd("ROLE"))
        .await
        .map_err(|error| reason(&error))?;
    match is_master(&reply) {
        Some(false) => Err("the server that the sentinels name is not a master".into()),
        _ => Ok(()),
    }
}

/// What a reply to `ROLE` says; nothing when the user may not ask.
pub fn is_master(reply: &Value) -> Option<bool> {
    let Value::Array(items) = reply else { return None };
    match items.first()? {
        Value::BulkString(bytes) => Some(bytes == b"master"),
        Value::SimpleString(text) => Some(text == "master"),
        _ => None,
    }
}

/// An error of redis-rs as a reason, on one line.
pub fn reason(error: &RedisError) -> String {
    let refused = matches!(error.code(), Some("WRONGPASS" | "NOAUTH"));
    let text = match error.kind() {
        ErrorKind::AuthenticationFailed => format!("authentication failed: {error}"),
        _ if refused => format!("authentication failed: {error}"),
        ErrorKind::Parse => format!("it does not speak Redis' protocol: {error}"),
        _ if error.is_timeout() => "no answer in time".to_owned(),
        _ => error.to_string(),
    };
    text.lines().collect::<Vec<_>>().join(" ")
}
