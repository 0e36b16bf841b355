'use strict';
// Locks on Redis under everything at once: processes that are killed and stopped, connections that are cut and
// half-open, a server that is restarted with and without its data. What happened is written down, and checked.

const { fork } = require('node:child_process');
const { existsSync, readFileSync, rmSync, writeFileSync } = require('node:fs');
const { join } = require('node:path');
const { Proxy } = require('../servers/proxy');
const { RedisServer } = require('../servers/redis');
const { ROOT, temporaryFolder } = require('../support');

const DURATION = Number(process.env.MORTISE_FAULT_SECONDS ?? 120) * 1000;
const PROCESSES = 5;
const KEYS = 20;
/** No longer than the grace period: who cannot put its lease back in time has lost it by then. */
const TTL = 500;
const GRACE = 2000;

/** A clock that all processes of the machine share, in milliseconds. */
const NOW = 'Number(process.hrtime.bigint() / 1000n) / 1000';
const now = () => Number(process.hrtime.bigint() / 1000n) / 1000;
const random = (below) => Math.floor(Math.random() * below);
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** One process: it takes locks, and writes down at once what it holds, so that a kill loses nothing of it. */
const PROGRAM = `
const fs = require('node:fs');
const mortise = require(${JSON.stringify(ROOT)});
const now = () => ${NOW};
const file = fs.openSync(process.env.HISTORY, 'a');
const write = (entry) => fs.writeSync(file, JSON.stringify(entry) + '\\n');
const quiet = { debug() {}, info() {}, warn() {}, error() {} };
const locks = new mortise.LockManager({
  defaultAdapter: 'redis', logger: quiet, gracePeriod: ${GRACE},
  url: { port: Number(process.env.PORT), heartbeat: 300, heartbeatTimeout: 700, reconnectGrace: 200, connectTimeout: 1000 },
});
let stopped = false, asked = 0;
const acks = new Map();
process.on('message', (message) => { if (message === 'stop') stopped = true; else if (message === 'tell') write({ event: 'pending', all: [...pending.values()] }); else { acks.get(message.ack)?.(); acks.delete(message.ack); } });
/** The register refuses a token smaller than it has seen. */
const register = (key, token) => new Promise((resolve) => {
  const id = asked++;
  acks.set(id, resolve);
  process.send({ id, key, token });
});
const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
// On a busy machine the loop stands still at times. Then nothing of this process runs, nor can it be told anything:
// what it hears afterwards is dated back to when it last ran.
let ran = now();
setInterval(() => { ran = now(); }, 2).unref();
const heard = () => Math.min(now(), ran + 4);
const pending = new Map();
async function once(key) {
  const id = asked++;
  pending.set(id, key);
  try { await attempt(key, (what) => pending.set(id, key + ' ' + what)); } finally { pending.delete(id); }
}
async function attempt(key, note) {
  const ask = now();
  const kind = Math.random();
  const held = async ({ signal, fencingToken: token }) => {
    const hold = { key, token, ask, got: now() };
    write({ ...hold, event: 'got' });
    signal.addEventListener('abort', () => write({ key, token, event: 'lost', at: heard() }));
    note('registering ' + token);
    await register(key, token);
    note('holding ' + token);
    await sleep(Math.random() < 0.05 ? 700 : Math.random() * 20);
    write({ key, token, event: 'end', at: heard() });
    note('releasing ' + token);
  };
  if (kind < 0.8) return locks.runExclusive(key, held, ${TTL});
  const lock = await locks.tryAcquire(key, kind < 0.9 ? 0 : 300);
  await lock.runExclusive(held, ${TTL});
}
async function worker() {
  while (!stopped) {
    await once('k' + Math.floor(Math.random() * ${KEYS})).catch((error) => {
      if (!error.code?.startsWith('E_')) write({ event: 'wrong', message: String(error.stack) });
      return sleep(20);
    });
  }
}
Promise.all(Array.from({ length: 6 }, worker)).then(async () => {
  write({ event: 'idle' });
  await locks.close();
  process.disconnect();
});
`;

test('no two holders at once, tokens that only grow, no waiter forgotten, a register that never goes back', async () => {
  const folder = temporaryFolder();
  const server = await RedisServer.start(['appendonly yes']);
  const program = join(folder, 'node.js');
  writeFileSync(program, PROGRAM);
  const registers = new Map();
  const accepted = [];
  let refused = 0;
  const files = [];
  const stops = [];
  const wrong = [];
  let over = false;

  const nodes = await Promise.all(Array.from({ length: PROCESSES }, async () => ({ proxy: await Proxy.to(server.port) })));
  const start = (node) => {
    node.file = join(folder, `history-${files.length}.jsonl`);
    files.push(node.file);
    const child = fork(program, { env: { ...process.env, HISTORY: node.file, PORT: String(node.proxy.port) }, stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
    node.child = child;
    child.on('message', ({ id, key, token }) => {
      if (token >= (registers.get(key) ?? 0)) {
        registers.set(key, token);
        accepted.push([key, token]);
      } else refused++;
      if (child.connected) child.send({ ack: id }, () => {});
    });
    child.on('error', () => {});
    node.exit = new Promise((resolve) => child.on('exit', (code, signal) => {
      if (code !== 0 && signal !== 'SIGKILL') wrong.push(`a node ended with ${code ?? signal}`);
      resolve();
      if (!over) start(node);
    }));
  };
  nodes.forEach(start);

  const counts = {};
  const faults = {
    async kill(node) { node.child.kill('SIGKILL'); },
    async stop(node) {
      const { child, file } = node;
      const at = now();
      child.kill('SIGSTOP');
      await pause(600 + random(1500));
      stops.push({ file, at, until: now() });
      child.kill('SIGCONT');
    },
    async cut({ proxy }) { proxy.cut(); },
    async half({ proxy }) {
      proxy.mode = random(2) ? 'half' : 'blackhole';
      await pause(300 + random(2500));
      proxy.mode = 'pass';
    },
    async refuse({ proxy }) {
      proxy.mode = 'refuse';
      proxy.cut();
      await pause(random(1500));
      proxy.mode = 'pass';
    },
    async restart() {
      await server.kill();
      if (random(2)) rmSync(join(server.folder, 'appendonlydir'), { recursive: true, force: true });
      await pause(random(700));
      await server.up();
    },
  };
  const names = ['kill', 'stop', 'stop', 'cut', 'half', 'half', 'refuse', 'restart'];
  const end = Date.now() + DURATION;
  while (Date.now() < end) {
    const name = names[random(names.length)];
    counts[name] = (counts[name] ?? 0) + 1;
    await faults[name](nodes[random(PROCESSES)]);
    await pause(300 + random(1500));
  }

  // Healed: everybody comes to an end, whatever it was waiting for.
  over = true;
  nodes.forEach(({ child }) => child.send('stop', () => {}));
  let deadline;
  await Promise.race([
    Promise.all(nodes.map(({ exit }) => exit)),
    new Promise((resolve) => { deadline = setTimeout(resolve, 40_000); }).then(async () => {
      nodes.forEach(({ child }) => child.connected && child.send('tell', () => {}));
      await pause(1000);
      const told = nodes.map(({ file }) => readFileSync(file, 'utf8').split('\n').filter((line) => line.includes('"pending"')));
      const keys = await server.call('KEYS', '*');
      const values = await Promise.all(keys.map(async (key) => [key, await server.call('TYPE', key).then((type) => (type === 'list' ? server.call('LRANGE', key, 0, -1) : server.call('GET', key)))]));
      throw new Error(`a waiter was forgotten: ${JSON.stringify({ told, values }, null, 1)}`);
    }),
  ]);

  clearTimeout(deadline);

  const grants = [];
  let idle = 0;
  for (const file of files.filter((it) => existsSync(it))) {
    const open = new Map();
    const killed = Infinity;
    for (const line of readFileSync(file, 'utf8').split('\n').filter(Boolean)) {
      const entry = JSON.parse(line);
      const id = `${entry.key} ${entry.token}`;
      if (entry.event === 'got') {
        const grant = { ...entry, file, end: killed };
        open.set(id, grant);
        grants.push(grant);
      } else if (entry.event === 'wrong') wrong.push(entry.message);
      else if (entry.event === 'idle') idle++;
      else {
        const grant = open.get(id);
        grant.end = Math.min(grant.end, entry.at);
      }
    }
    // What a killed process held is known up to its last word.
    const last = Math.max(0, ...[...open.values()].flatMap(({ got, end: at }) => (at === Infinity ? [got] : [got, at])));
    for (const grant of open.values()) if (grant.end === Infinity) grant.end = Math.max(grant.got, last);
  }
  // While a process is stopped its leases lapse, and it can neither know nor tell.
  for (const grant of grants) {
    for (const { file, at, until: back } of stops) {
      if (file === grant.file && at < grant.end && back > grant.got) grant.end = Math.max(grant.got, Math.min(grant.end, at));
    }
  }
  const problems = [];
  for (let k = 0; k < KEYS; k++) {
    const of = grants.filter(({ key }) => key === `k${k}`).sort((a, b) => a.got - b.got);
    for (let i = 0; i < of.length; i++) {
      for (let j = i + 1; j < of.length && of[j].got < of[i].end; j++) {
        if (!stops.some(({ file, at, until: back }) => file === of[j].file && of[j].got >= at && of[j].got <= back + 100)) problems.push({ overlap: [of[i], of[j]] });
      }
    }
    const tokens = of.map(({ token }) => token);
    if (new Set(tokens).size !== tokens.length) problems.push({ key: k, sameToken: tokens.find((token, i) => tokens.indexOf(token) !== i) });
    // Whoever asked after another had got the key has a greater token.
    let greatest = { token: 0, got: 0 };
    const byAsk = [...of].sort((a, b) => a.ask - b.ask);
    let next = 0;
    for (const grant of byAsk) {
      while (next < of.length && of[next].got < grant.ask) {
        if (of[next].token > greatest.token) greatest = of[next];
        next++;
      }
      if (grant.token < greatest.token) problems.push({ backwards: [greatest, grant] });
    }
  }
  const seen = new Map();
  for (const [key, token] of accepted) {
    if (token < (seen.get(key) ?? 0)) problems.push({ register: key, token });
    seen.set(key, token);
  }
  console.log(`${grants.length} grants, ${refused} late writes refused; ${JSON.stringify(counts)}`);
  expect(wrong).toEqual([]);
  expect(problems.slice(0, 3)).toEqual([]);
  expect(idle).toBeGreaterThanOrEqual(PROCESSES);
  expect(grants.length).toBeGreaterThan(DURATION / 100);
  await Promise.all(nodes.map(({ proxy }) => proxy.close()));
  await server.stop();
}, DURATION + 90_000);
