'use strict';
// Pub/sub and sync messages on Redis under everything at once: processes that are killed and stopped, connections
// that are cut and half-open, a server that is restarted with and without its data, a failover. What happened is
// written down, and checked.

const { fork } = require('node:child_process');
const { mkdtempSync, readFileSync, rmSync, writeFileSync } = require('node:fs');
const { join } = require('node:path');
const { PubSubManager } = require('../..');
const { Proxy } = require('../servers/proxy');
const { RedisServer, startSentinels } = require('../servers/redis');
const { recorder, temporaryFolder, until } = require('../support');
const { problemsOf, readHistory } = require('./pub-sub-history');

const DURATION = Number(process.env.MORTISE_FAULT_SECONDS ?? 120) * 1000;
const PROCESSES = 5;
const KEYS = 20;
/** Of the log: short enough that who was stopped for long has missed some. */
const MAX_LENGTH = 300;
/** The longest that publishing may take, in milliseconds: the command timeout, and time for a busy machine. */
const LONGEST = 3000 + 4000;

const now = () => Number(process.hrtime.bigint() / 1000n) / 1000;
const random = (below) => Math.floor(Math.random() * below);
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Where histories are written; with the variable set they are kept. */
const historyFolder = () => {
  const { MORTISE_FAULT_FOLDER: kept } = process.env;
  return kept ? mkdtempSync(join(kept, 'pub-sub-')) : temporaryFolder();
};

/** The processes, their proxies, and what is true of the keys. */
class Nodes {
  constructor(server) {
    Object.assign(this, { server, folder: historyFolder(), over: false, starts: 0, version: 0, truth: {}, histories: [], wrong: [], all: [] });
  }

  async start() {
    for (let i = 0; i < PROCESSES; i++) {
      const node = { proxy: await Proxy.to(this.server.port), untold: new Map(), waiting: new Map() };
      this.all.push(node);
      this.begin(node);
    }
  }

  begin(node) {
    const name = `p${this.starts++}`;
    const file = join(this.folder, `${name}.jsonl`);
    // One that is killed early writes nothing.
    writeFileSync(file, '');
    const history = { name, file, stops: [] };
    this.histories.push(history);
    const environment = { HISTORY: file, NAME: name, PORT: node.proxy.port, KEYS, MAX_LENGTH, STORAGE_PATH: join(this.folder, name) };
    const child = fork(join(__dirname, 'pub-sub-node.js'), { env: { ...process.env, ...environment }, stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
    Object.assign(node, { child, history, ready: false });
    child.on('error', () => {});
    child.on('message', (message) => this.hear(node, child, message));
    node.exit = new Promise((resolve) => child.on('exit', (code, signal) => {
      if (code !== 0 && signal !== 'SIGKILL') this.wrong.push(`${name} ended with ${code ?? signal}`);
      if (code === 0 && !this.over) this.wrong.push(`${name} ended by itself`);
      resolve();
      if (!this.over) this.begin(node);
    }));
  }

  hear(node, child, { ask, what, value, told, ...message }) {
    if (told !== undefined) node.untold.delete(told);
    if (ask !== undefined) this.send(child, { answer: ask, value: this.answer(node, what, value) });
    Object.assign(node, message);
  }

  answer(node, what, key) {
    if (what === 'truth') return this.truth;
    if (what === 'untold') return [...node.untold];
    this.truth[key] = ++this.version;
    node.untold.set(this.version, key);
    return this.version;
  }

  send(child, message) {
    if (child.connected) child.send(message, () => {});
  }

  order(order, value) {
    for (const { child } of this.all) this.send(child, { order, value });
  }

  /** Waits for all processes; says what each has last told when one does not come to it. */
  async until(what, condition, deadline = 40_000) {
    const reached = await until(() => this.all.every(condition), deadline).then(() => true, () => false);
    if (reached) return;
    this.order('tell', what);
    await until(() => this.all.every(({ reply }) => reply === what), 2000).catch(() => {});
    const told = this.all.map(({ history: { name }, ready, mark, complete, state, last }) => ({ name, ready, mark, complete, last, state: JSON.stringify(state) }));
    throw new Error(`not ${what}: ${JSON.stringify({ told, truth: this.truth }, null, 1)}`);
  }

  /** Everybody comes to an end, has heard all that there is, and knows what is true. */
  async end() {
    await this.until('ready', ({ ready }) => ready);
    this.order('quiet');
    await this.until('quiet', ({ mark }) => mark);
    this.order('expect', this.all.map(({ mark }) => mark));
    await this.until('complete', ({ complete }) => complete);
    await this.until('told', ({ untold }) => untold.size === 0);
    const truth = JSON.stringify(sorted(this.truth));
    let round = 0;
    const tell = setInterval(() => this.order('tell', ++round), 50);
    await this.until('converged', ({ state }) => JSON.stringify(sorted(state ?? {})) === truth, 10_000).finally(() => clearInterval(tell));
    this.order('finish');
    await this.until('at its end', ({ child }) => child.exitCode !== null || child.signalCode !== null, 20_000);
  }
}

const sorted = (object) => Object.entries(object).sort(([a], [b]) => (a < b ? -1 : 1));

/** What goes wrong with a process. */
const ofProcesses = {
  async kill({ child }) { child.kill('SIGKILL'); },
  async stop({ child, history }) {
    const at = now();
    child.kill('SIGSTOP');
    await pause(500 + random(3500));
    history.stops.push({ at, until: now() });
    child.kill('SIGCONT');
  },
};
/** What goes wrong with the server and the ways to it. */
const ofServer = {
  async cut({ proxy }) { proxy.cut(); },
  async half({ proxy }) {
    proxy.mode = random(2) ? 'half' : 'blackhole';
    await pause(300 + random(2500));
    proxy.mode = 'pass';
  },
  async refuse({ proxy }) {
    proxy.mode = 'refuse';
    proxy.cut();
    await pause(random(4500));
    proxy.mode = 'pass';
  },
  async restart(_, server) {
    await server.kill();
    await pause(random(700));
    await server.up();
  },
  async empty(_, server) {
    await server.kill();
    rmSync(join(server.folder, 'appendonlydir'), { recursive: true, force: true });
    await pause(random(700));
    await server.up();
  },
};

/** One fault after the other, each of a random node. */
async function afflict(faults, names, nodes, server, counts) {
  const end = Date.now() + DURATION;
  while (Date.now() < end) {
    const name = names[random(names.length)];
    counts[name] = (counts[name] ?? 0) + 1;
    await faults[name](nodes.all[random(PROCESSES)], server);
    await pause(300 + random(2000));
  }
}

test('nothing twice, nothing out of order, nothing lost without a gap, and all nodes converge', async () => {
  const server = await RedisServer.start(['appendonly yes']);
  const nodes = new Nodes(server);
  await nodes.start();
  const counts = {};
  await Promise.all([
    afflict(ofProcesses, ['kill', 'stop', 'stop'], nodes, server, counts),
    afflict(ofServer, ['cut', 'cut', 'half', 'half', 'refuse', 'restart', 'empty'], nodes, server, counts),
  ]);
  nodes.over = true;
  await nodes.end();

  const histories = nodes.histories.map((history) => readHistory({ ...history, text: readFileSync(history.file, 'utf8') }));
  const sum = (of) => histories.reduce((total, history) => total + of(history), 0);
  const published = sum((history) => history.published.size);
  const acknowledged = sum((history) => [...history.published.values()].filter(({ ok }) => ok).length);
  const [heard, gaps] = [sum(({ order }) => order.length), sum(({ ears }) => ears.reduce((total, ear) => total + ear.gaps.length, 0))];
  const longest = Math.max(...histories.map((history) => history.longest));
  console.log(`${published} published, ${acknowledged} acknowledged, ${heard} heard, ${gaps} gaps, ${nodes.version} versions, ${histories.length} processes; longest ${Math.round(longest)} ms; ${JSON.stringify(counts)}`);
  const problems = problemsOf(histories);
  if (problems.length > 0) console.log(problems.length, 'problems in', nodes.folder);
  expect(nodes.wrong).toEqual([]);
  expect(problems.slice(0, 3)).toEqual([]);
  expect(longest).toBeLessThan(LONGEST);
  expect(acknowledged).toBeGreaterThan(DURATION / 20);
  expect(heard).toBeGreaterThan(acknowledged);
  await Promise.all(nodes.all.map(({ proxy }) => proxy.close()));
  await server.stop();
}, DURATION + 150_000);
