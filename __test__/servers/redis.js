'use strict';
// Redis servers that the tests start, on free ports of 127.0.0.1 with data in temporary folders, and
// stop: single, with TLS, behind sentinels, as a cluster.

const { spawn } = require('node:child_process');
const { mkdtempSync, rmSync, writeFileSync } = require('node:fs');
const net = require('node:net');
const { tmpdir } = require('node:os');
const { join } = require('node:path');
const { Resp } = require('./resp');

const BINARY = process.env.MORTISE_REDIS_SERVER || 'redis-server';
const TLS = join(__dirname, 'tls');
const DEADLINE = 20_000;

/** All that was started and not stopped; the tests' process takes them with it. */
const running = new Set();
// Also after a test that failed halfway.
if (typeof afterAll === 'function') afterAll(() => Promise.all([...running].map((server) => server.stop())));
process.on('exit', () => running.forEach((server) => server.process?.kill('SIGKILL')));

/** A port that was free just now; below those that the system gives to clients. */
async function freePort() {
  for (let i = 0; i < 200; i++) {
    // A cluster's bus has the port 10000 above.
    const port = 10_000 + Math.floor(Math.random() * 20_000);
    if (await isFree(port) && await isFree(port + 10_000)) return port;
  }
  throw new Error('no free port');
}

function isFree(port) {
  return new Promise((resolve) => {
    const server = net.createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}

class RedisServer {
  /** `settings`: lines of its configuration. */
  constructor(settings = [], { sentinel = false, tls = false } = {}) {
    this.settings = settings;
    this.sentinel = sentinel;
    this.tls = tls;
    this.folder = mkdtempSync(join(tmpdir(), 'mortise-redis-'));
  }

  static async start(settings, options) {
    const server = new RedisServer(settings, options);
    // Somebody else may take the port between the look and the use.
    for (let attempt = 0; ; attempt++) {
      server.port = await freePort();
      try {
        await server.up();
        return server;
      } catch (error) {
        if (attempt === 4) throw error;
      }
    }
  }

  get url() {
    return `${this.tls ? 'rediss' : 'redis'}://127.0.0.1:${this.port}`;
  }

  get socketPath() {
    return join(this.folder, 'redis.sock');
  }

  async up() {
    const file = join(this.folder, 'redis.conf');
    const lines = this.tls
      ? ['port 0', `tls-port ${this.port}`, `tls-cert-file ${join(TLS, 'server.pem')}`, `tls-key-file ${join(TLS, 'server.key')}`, `tls-ca-cert-file ${join(TLS, 'ca.pem')}`, 'tls-auth-clients no']
      : [`port ${this.port}`];
    if (!this.sentinel) lines.push('save ""', `unixsocket ${this.socketPath}`);
    writeFileSync(file, [...lines, 'bind 127.0.0.1', `dir ${this.folder}`, 'daemonize no', ...this.settings, ''].join('\n'));
    this.output = '';
    const child = spawn(BINARY, [file, ...(this.sentinel ? ['--sentinel'] : [])], { stdio: ['ignore', 'pipe', 'pipe'] });
    this.process = child;
    running.add(this);
    child.stdout.on('data', (data) => { this.output += data; });
    child.stderr.on('data', (data) => { this.output += data; });
    let ended = null;
    this.ended = new Promise((resolve) => {
      child.on('error', (error) => { ended = error.message; resolve(); });
      child.on('exit', (code, signal) => { ended ??= `it ended with ${code ?? signal}`; running.delete(this); resolve(); });
    });
    const end = Date.now() + DEADLINE;
    while (!this.output.includes(this.sentinel ? 'Sentinel ID is' : 'Ready to accept connections')) {
      if (ended) throw new Error(`${BINARY} did not start: ${ended}\n${this.output.slice(-500)}`);
      if (Date.now() > end) throw new Error(`${BINARY} did not start in time\n${this.output.slice(-500)}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  /** Ends the process; `up` starts it again on the same port, without its data. */
  async kill(signal = 'SIGKILL') {
    this.process.kill('SIGCONT');
    this.process.kill(signal);
    await this.ended;
  }

  /** Stops it as operators do. */
  shutDown() {
    return this.kill('SIGTERM');
  }

  pause() {
    this.process.kill('SIGSTOP');
  }

  resume() {
    this.process.kill('SIGCONT');
  }

  async stop() {
    this.client?.close();
    this.client = undefined;
    await this.kill();
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** The reply to a command, by a client that is none of ours. */
  async call(...words) {
    if (!this.client || this.client.failure) this.client = new Resp(this.tls ? { path: this.socketPath } : this.port);
    return this.client.call(...words);
  }
}

/** A master with a replica and three sentinels, which agree that the master is down within a second. */
async function startSentinels() {
  const master = await RedisServer.start();
  const replica = await RedisServer.start([`replicaof 127.0.0.1 ${master.port}`]);
  await eventually(async () => (await replica.call('INFO', 'replication')).includes('master_link_status:up'));
  const sentinels = [];
  for (let i = 0; i < 3; i++) {
    sentinels.push(await RedisServer.start([
      `sentinel monitor main 127.0.0.1 ${master.port} 2`,
      'sentinel down-after-milliseconds main 500',
      'sentinel failover-timeout main 5000',
    ], { sentinel: true }));
  }
  await eventually(async () => {
    const known = await Promise.all(sentinels.map((sentinel) => sentinel.call('INFO', 'sentinel')));
    return known.every((text) => text.includes('slaves=1,sentinels=3'));
  });
  const hosts = sentinels.map(({ port }) => `127.0.0.1:${port}`).join(',');
  const servers = [...sentinels, replica, master];
  return { master, replica, sentinels, url: `redis+sentinel://${hosts}/main`, stop: () => Promise.all(servers.map((server) => server.stop())) };
}

/** Three masters that share the slots. */
async function startCluster() {
  const nodes = [];
  for (let i = 0; i < 3; i++) nodes.push(await RedisServer.start(['cluster-enabled yes', 'cluster-node-timeout 2000']));
  const third = 16384 / 3;
  for (const [i, node] of nodes.entries()) {
    await node.call('CLUSTER', 'ADDSLOTSRANGE', Math.ceil(i * third), Math.ceil((i + 1) * third) - 1);
    await node.call('CLUSTER', 'SET-CONFIG-EPOCH', i + 1);
    if (i > 0) await node.call('CLUSTER', 'MEET', '127.0.0.1', nodes[0].port);
  }
  await eventually(async () => {
    const infos = await Promise.all(nodes.map((node) => node.call('CLUSTER', 'INFO')));
    return infos.every((info) => info.includes('cluster_state:ok') && info.includes('cluster_known_nodes:3'));
  });
  for (const node of nodes) node.id = await node.call('CLUSTER', 'MYID');
  const hosts = nodes.map(({ port }) => `127.0.0.1:${port}`).join(',');
  return { nodes, url: `redis+cluster://${hosts}`, stop: () => Promise.all(nodes.map((node) => node.stop())) };
}

async function eventually(condition, deadline = 30_000) {
  const end = Date.now() + deadline;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`deadline passed: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

module.exports = { RedisServer, TLS, startCluster, startSentinels };
