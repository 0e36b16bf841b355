//! A cluster: a link for each master, commands grouped by the master of their slot, redirections
//! followed, the map of slots kept up to date.
//!
//! redis-rs has a cluster connection; it sends a pipeline to one node only, tells nobody which
//! node's connection was lost, and so can carry neither a batch nor the tracking of keys. Here the
//! same links as for a single server do the work, and this file is only about where.

use super::{
    Completion,
    command::{Command, SLOTS},
    config::{Config, Node, Servers},
    connect::{Target, connect},
    health::{Health, Monitor, State},
    link::{Link, Watch},
};
use crate::error::{Error, Result};
use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::{PushInfo, Value};
use std::{
    collections::{HashMap, HashSet},
    future::Future,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::Notify,
    time::{Instant, sleep, timeout},
};

/// How often the map of slots is asked for while nothing has gone wrong.
const REFRESH: Duration = Duration::from_secs(30);
/// How often while a master is away.
const REFRESH_AWAY: Duration = Duration::from_millis(250);
/// Redirections that one command follows.
const REDIRECTIONS: usize = 8;
/// The pause before a command is tried again that a cluster in transition refused.
const TRANSITION: Duration = Duration::from_millis(50);

/// A cluster.
pub struct Cluster {
    config: Arc<Config>,
    watch: Arc<dyn Watch>,
    monitor: Arc<Monitor>,
    runtime: Handle,
    topology: Mutex<Topology>,
    refresh: Notify,
}

#[derive(Default)]
struct Topology {
    links: HashMap<Node, Arc<Link>>,
    /// By slot; empty while the map is unknown.
    owners: Vec<Option<Arc<Link>>>,
    /// What came before the map was known, in order.
    early: Vec<Early>,
}

struct Early {
    commands: Vec<Command>,
    completion: Completion,
    deadline: Instant,
}

type Sent = (Vec<usize>, std::pin::Pin<Box<dyn Future<Output = Result<Vec<Value>>> + Send>>);

/// Where a server says that a slot is.
enum Redirection {
    Moved(u16, Node),
    Ask(Node),
    /// The slot is on its way; the same place, a little later.
    Later,
}

impl Cluster {
    /// Begins to find out which nodes there are.
    pub fn new(
        config: Arc<Config>,
        watch: Arc<dyn Watch>,
        monitor: Arc<Monitor>,
        runtime: &Handle,
    ) -> Arc<Self> {
        let cluster = Arc::new(Self {
            config,
            watch,
            monitor,
            runtime: runtime.clone(),
            topology: Mutex::default(),
            refresh: Notify::new(),
        });
        runtime.spawn(keep_up(Arc::downgrade(&cluster)));
        cluster
    }

    /// As [`Link::submit`]. Order is kept among the commands of each slot.
    pub fn submit(self: &Arc<Self>, commands: Vec<Command>, completion: Completion) {
        {
            let mut topology = self.topology.lock();
            if topology.owners.is_empty() {
                let deadline = Instant::now() + self.config.command_timeout;
                topology.early.push(Early { commands, completion, deadline });
                return;
            }
        }
        // The first round is on its way when this returns, so that later calls come after it.
        let mut results: Vec<Option<Result<Value>>> = commands.iter().map(|_| None).collect();
        let sent = self.send(&commands, (0..commands.len()).collect(), &mut results);
        let cluster = Arc::clone(self);
        self.runtime.spawn(async move {
            let patience = cluster.config.command_timeout;
            let whole = cluster.follow(&commands, sent, results);
            let results = timeout(patience, whole).await.map_err(|_| Error::CommandTimeout {
                server: cluster.config.shown(),
                after: patience,
            });
            completion(results);
        });
    }

    /// The links of all masters.
    pub fn masters(&self) -> Vec<Arc<Link>> {
        let topology = self.topology.lock();
        let mut seen = HashSet::new();
        let owners = topology.owners.iter().flatten();
        owners.filter(|link| seen.insert(Arc::as_ptr(link))).cloned().collect()
    }

    /// Sends commands to where they belong.
    fn send(
        &self,
        commands: &[Command],
        todo: Vec<usize>,
        results: &mut [Option<Result<Value>>],
    ) -> Vec<Sent> {
        let mut groups: Vec<(Arc<Link>, Vec<usize>)> = Vec::new();
        {
            let topology = self.topology.lock();
            for at in todo {
                match topology.owner(commands[at].slot()) {
                    None => results[at] = Some(Err(self.uncovered())),
                    Some(link) => {
                        match groups.iter_mut().find(|(other, _)| Arc::ptr_eq(other, link)) {
                            Some((_, group)) => group.push(at),
                            None => groups.push((Arc::clone(link), vec![at])),
                        }
                    }
                }
            }
        }
        groups
            .into_iter()
            .map(|(link, group)| -> Sent {
                let batch = group.iter().map(|at| commands[*at].clone()).collect();
                (group, Box::pin(link.send(batch)))
            })
            .collect()
    }

    /// Gathers replies, and follows redirections until each command has one.
    async fn follow(
        &self,
        commands: &[Command],
        mut sent: Vec<Sent>,
        mut results: Vec<Option<Result<Value>>>,
    ) -> Vec<Result<Value>> {
        for _ in 0..REDIRECTIONS {
            let (mut again, mut asked, mut wait) = (Vec::new(), Vec::new(), false);
            let groups =
                join_all(sent.into_iter().map(|(group, reply)| async { (group, reply.await) }))
                    .await;
            for (group, replies) in groups {
                match replies {
                    Err(error) => {
                        self.refresh.notify_one();
                        for at in group {
                            results[at] = Some(Err(error.clone()));
                        }
                    }
                    Ok(replies) => {
                        for (at, reply) in group.into_iter().zip(replies) {
                            match redirection(&reply) {
                                None => results[at] = Some(Ok(reply)),
                                Some(Redirection::Moved(slot, node)) => {
                                    self.moved(slot, &node);
                                    again.push(at);
                                }
                                Some(Redirection::Ask(node)) => asked.push((at, self.link(&node))),
                                Some(Redirection::Later) => {
                                    wait = true;
                                    self.refresh.notify_one();
                                    again.push(at);
                                }
                            }
                        }
                    }
                }
            }
            if again.is_empty() && asked.is_empty() {
                return finish(results);
            }
            for (at, link) in asked {
                let batch = vec![Command::new(["ASKING"]), commands[at].clone()];
                results[at] = Some(match link.send(batch).await {
                    Ok(mut replies) => replies.pop().ok_or_else(|| self.uncovered()),
                    Err(error) => Err(error),
                });
                // The slot may be going on to somewhere else.
                if let Some(Ok(reply)) = &results[at]
                    && redirection(reply).is_some()
                {
                    wait = true;
                    again.push(at);
                }
            }
            if wait {
                sleep(TRANSITION).await;
            }
            sent = self.send(commands, again, &mut results);
        }
        for (group, _) in sent {
            for at in group {
                results[at] = Some(Err(self.uncovered()));
            }
        }
        finish(results)
    }

    fn uncovered(&self) -> Error {
        Error::Unavailable {
            server: self.config.shown(),
            reason: "no master serves the key's slot".into(),
        }
    }

    /// The slot has another master than the map says.
    fn moved(&self, slot: u16, node: &Node) {
        let link = self.link(node);
        if let Some(owner) = self.topology.lock().owners.get_mut(usize::from(slot)) {
            *owner = Some(link);
        }
        self.refresh.notify_one();
    }

    /// The link to a node.
    fn link(&self, node: &Node) -> Arc<Link> {
        let mut topology = self.topology.lock();
        let make = || {
            let monitor = Arc::new(Monitor::new(node.to_string()));
            let watch = Arc::clone(&self.watch);
            Arc::new(Link::new(
                &self.config,
                Target::Node(node.clone()),
                watch,
                monitor,
                &self.runtime,
            ))
        };
        Arc::clone(topology.links.entry(node.clone()).or_insert_with(make))
    }

    /// Takes over a new map.
    fn apply(self: &Arc<Self>, slots: &[(u16, u16, Node)]) {
        let nodes: HashSet<&Node> = slots.iter().map(|(_, _, node)| node).collect();
        let links: HashMap<&Node, Arc<Link>> =
            nodes.iter().map(|node| (*node, self.link(node))).collect();
        let mut owners = vec![None; usize::from(SLOTS)];
        for (first, last, node) in slots {
            for slot in *first..=(*last).min(SLOTS - 1) {
                owners[usize::from(slot)] = links.get(node).cloned();
            }
        }
        let early = {
            let mut topology = self.topology.lock();
            topology.links.retain(|node, _| nodes.contains(node));
            topology.owners = owners;
            std::mem::take(&mut topology.early)
        };
        for Early { commands, completion, .. } in early {
            self.submit(commands, completion);
        }
    }

    /// What waits for the map has waited long enough, or will in vain.
    fn refuse_early(&self, all: bool, reason: &str) {
        let now = Instant::now();
        let refused: Vec<Early> = {
            let mut topology = self.topology.lock();
            let early = std::mem::take(&mut topology.early);
            let (refused, kept) = early.into_iter().partition(|early| all || now >= early.deadline);
            topology.early = kept;
            refused
        };
        for early in refused {
            let server = self.config.shown();
            (early.completion)(Err(Error::Unavailable { server, reason: reason.to_owned() }));
        }
    }

    /// Asks one node after the other for the map.
    async fn ask(&self) -> Result<Vec<(u16, u16, Node)>, String> {
        let mut reasons = Vec::new();
        for link in self.masters().into_iter().filter(|link| link.monitor().state() == State::Ready)
        {
            match link.send(vec![question()]).await {
                Ok(replies) => match parse_slots(replies.first(), None) {
                    Ok(slots) => return Ok(slots),
                    Err(reason) => reasons.push(reason),
                },
                Err(error) => reasons.push(error.to_string()),
            }
        }
        let Servers::Cluster(seeds) = &self.config.servers else {
            return Err("not a cluster".into());
        };
        let known: Vec<Node> = self.topology.lock().links.keys().cloned().collect();
        for node in seeds.iter().chain(known.iter().filter(|node| !seeds.contains(node))) {
            let asking = async {
                let target = Target::Node(node.clone());
                let mut connected = connect(&self.config, &target, "topology", NoPushes).await?;
                let pipeline = {
                    let mut pipeline = redis::pipe();
                    pipeline.add_command(question().into_cmd());
                    pipeline
                };
                let replies = connected.connection.send_packed_commands(&pipeline, 0, 1).await;
                let replies = replies.map_err(|error| error.to_string())?;
                parse_slots(replies.first(), Some(&node.host))
            };
            match timeout(self.config.connect_timeout, asking).await {
                Ok(Ok(slots)) => return Ok(slots),
                Ok(Err(reason)) => reasons.push(format!("{node}: {reason}")),
                Err(_) => reasons.push(format!("{node}: no answer")),
            }
        }
        Err(reasons.join("; "))
    }

    /// The state of the whole: away while any master is.
    fn assess(&self) -> bool {
        let mut ready = None;
        for link in self.masters() {
            let health = link.monitor().health();
            match health.state {
                State::Ready => ready = Some(health),
                State::Connecting => return false,
                State::Away | State::Closed => {
                    let reason = health.reason.unwrap_or_else(|| "closed".into());
                    self.monitor.away(format!("node {}: {reason}", health.server));
                    return false;
                }
            }
        }
        if let Some(Health { version, protocol, eviction, .. }) = ready {
            self.monitor.ready(version, protocol, eviction);
            return true;
        }
        false
    }
}

impl Topology {
    /// The master of a slot; any master for a command without a key.
    fn owner(&self, slot: Option<u16>) -> Option<&Arc<Link>> {
        match slot {
            Some(slot) => self.owners.get(usize::from(slot))?.as_ref(),
            None => self.owners.iter().flatten().next(),
        }
    }
}

/// Keeps the map up to date for as long as somebody holds the cluster.
async fn keep_up(cluster: Weak<Cluster>) {
    let started = Instant::now();
    loop {
        let Some(current) = cluster.upgrade() else { return };
        let known = !current.topology.lock().owners.is_empty();
        let healthy = known && current.assess();
        let last = current.monitor.state();
        // While all is well the map is old at most by REFRESH; a redirection asks for it at once.
        match current.ask().await {
            Ok(slots) => current.apply(&slots),
            Err(reason) => {
                let patient = last == State::Connecting && started.elapsed() < current.config.grace;
                current.monitor.away(reason.clone());
                current.refuse_early(!patient, &reason);
            }
        }
        let healthy = current.assess() && healthy;
        let pause = if healthy { REFRESH } else { REFRESH_AWAY };
        let weak = Arc::downgrade(&current);
        wait(current, pause).await;
        if weak.strong_count() == 0 {
            return;
        }
    }
}

/// Waits until the map is to be asked for again: when `pause` has passed, a redirection was met or a
/// master's state changed. Holds the cluster only now and then, so that it can be dropped.
async fn wait(cluster: Arc<Cluster>, pause: Duration) {
    let weak = Arc::downgrade(&cluster);
    let end = Instant::now() + pause;
    let mut cluster = Some(cluster);
    while let Some(current) = cluster.take() {
        let states = |cluster: &Cluster| -> Vec<State> {
            cluster.masters().iter().map(|link| link.monitor().state()).collect()
        };
        let before = states(&current);
        tokio::select! {
            () = current.refresh.notified() => return,
            () = sleep(REFRESH_AWAY.min(pause)) => {}
        }
        if Instant::now() >= end || states(&current) != before {
            return;
        }
        drop(current);
        cluster = weak.upgrade();
    }
}

#[derive(Clone)]
struct NoPushes;

impl redis::aio::AsyncPushSender for NoPushes {
    fn send(&self, _: PushInfo) -> Result<(), redis::aio::SendError> {
        Ok(())
    }
}

fn question() -> Command {
    Command::new(["CLUSTER", "SLOTS"])
}

/// Reads the reply to `CLUSTER SLOTS`: first slot, last slot, master. A node that does not know its
/// own name is `asked`.
fn parse_slots(
    reply: Option<&Value>,
    asked: Option<&str>,
) -> Result<Vec<(u16, u16, Node)>, String> {
    let rows = match reply {
        Some(Value::Array(rows)) if !rows.is_empty() => rows,
        Some(Value::ServerError(error)) => {
            return Err(error.details().unwrap_or(error.code()).to_owned());
        }
        _ => return Err("it knows of no slots".into()),
    };
    let row = |row: &Value| -> Option<(u16, u16, Node)> {
        let Value::Array(row) = row else { return None };
        let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = row.as_slice() else {
            return None;
        };
        let (host, Value::Int(port)) = (master.first()?, master.get(1)?) else { return None };
        let host = match host {
            Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Value::SimpleString(text) => text.clone(),
            _ => String::new(),
        };
        let host = if host.is_empty() || host == "?" { asked?.to_owned() } else { host };
        let port = u16::try_from(*port).ok()?;
        Some((u16::try_from(*first).ok()?, u16::try_from(*last).ok()?, Node { host, port }))
    };
    rows.iter()
        .map(row)
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| "its map of slots cannot be read".into())
}

fn redirection(reply: &Value) -> Option<Redirection> {
    let Value::ServerError(error) = reply else { return None };
    let place = || {
        let (slot, address) = error.details()?.split_once(' ')?;
        let (host, port) = address.rsplit_once(':')?;
        Some((slot.parse().ok()?, Node { host: host.to_owned(), port: port.parse().ok()? }))
    };
    match error.code() {
        "MOVED" => place().map(|(slot, node)| Redirection::Moved(slot, node)),
        "ASK" => place().map(|(_, node): (u16, Node)| Redirection::Ask(node)),
        "TRYAGAIN" | "CLUSTERDOWN" | "LOADING" | "MASTERDOWN" | "READONLY" => {
            Some(Redirection::Later)
        }
        _ => None,
    }
}

fn finish(results: Vec<Option<Result<Value>>>) -> Vec<Result<Value>> {
    let missing = || Err(Error::Internal("a command has no reply".into()));
    results.into_iter().map(|result| result.unwrap_or_else(missing)).collect()
}
