//! A Redis server of a test's own: on a free port of 127.0.0.1, with its data in a temporary folder,
//! gone when the test is over.

use mortise::redis::Config;
use std::{
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(20);
const ATTEMPTS: usize = 5;

/// A running server; dropping it ends the process.
pub struct RedisServer {
    process: Child,
    port: u16,
    _folder: TempDir,
}

impl RedisServer {
    /// Starts one. A machine without `redis-server` fails the test, and does not skip it.
    pub fn start() -> Self {
        // Somebody else may take the port between the look and the use.
        (0..ATTEMPTS).find_map(|_| Self::attempt()).expect("redis-server starts")
    }

    fn attempt() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
        let binary =
            std::env::var("MORTISE_REDIS_SERVER").unwrap_or_else(|_| "redis-server".into());
        let process = Command::new(&binary)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{binary} cannot be started: {error}"));
        let mut server = Self { process, port, _folder: folder };
        let end = Instant::now() + DEADLINE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > end || !matches!(server.process.try_wait(), Ok(None)) {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(server)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// How to reach it.
    pub fn config(&self) -> Config {
        Config::from_url(&format!("redis://127.0.0.1:{}", self.port)).expect("a URL")
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // It may have ended by itself.
        _ = self.process.kill();
        _ = self.process.wait();
    }
}
