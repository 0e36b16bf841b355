'use strict';
// Pub/sub and sync messages on Redis under everything at once: processes that are killed and stopped, connections
// that are cut and half-open, a server that is restarted with and without its data, a failover. What happened is
// written down, and checked.

const { fork } = require('node:child_process');
const { cpSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } = require('node:fs');
const { join } = require('node:path');
const { PubSubManager } = require('../..');
const { Proxy } = require('../servers/proxy');
const { RedisServer, startSentinels } = require('../servers/redis');
const { child, recorder, temporaryFolder, until } = require('../support');
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
const data = (server) => join(server.folder, 'appendonlydir');
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
    rmSync(data(server), { recursive: true, force: true });
    await pause(random(700));
    await server.up();
  },
  /** It comes back with what it had some time ago, as from a replica that was behind. */
  async old(_, server) {
    const copy = `${data(server)}-old`;
    cpSync(data(server), copy, { recursive: true });
    await pause(random(1500));
    await server.kill();
    rmSync(data(server), { recursive: true, force: true });
    renameSync(copy, data(server));
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
    afflict(ofServer, ['cut', 'cut', 'half', 'half', 'refuse', 'restart', 'empty', 'old'], nodes, server, counts),
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

test('the checker finds what is lost, what comes twice, what is out of order, and what comes after the end', () => {
  const history = (name, ...lines) => readHistory({ name, text: `${lines.map((line, at) => JSON.stringify([line[0], at, ...line.slice(1)])).join('\n')}\n["torn` });
  const publishing = ['p', 1, 2, 3, 4].flatMap((n) => (n === 'p' ? [] : [['publishing', n, 'c'], ['published', n]]));
  const publisher = (...more) => history('p', ['wait'], ...publishing, ...more);
  const got = (...numbers) => numbers.map((n) => ['got', 0, 'p', n]);
  const problems = (...lines) => problemsOf([publisher(), history('s', ['subscribed', 0, 'c', 'app'], ...lines)]).map((problem) => Object.keys(problem).filter((key) => key !== 'node' && key !== 'ear')[0]);
  const complete = ['complete'];
  expect(problems(...got(1, 2, 3, 4), complete)).toEqual([]);
  expect(problems(...got(1, 2, 4), complete)).toEqual(['lost']);
  expect(problems(...got(1, 2, 3), complete)).toEqual(['lost']);
  expect(problems(...got(1, 2, 2, 3, 4), complete)).toEqual(['twice']);
  expect(problems(...got(1, 3, 2, 4), complete)).toEqual(['outOfOrder']);
  expect(problems(...got(1, 2, 3, 4, 5), complete)).toEqual(['neverPublishedOn']);
  expect(problems(...got(1, 2, 3), ['unsubscribed', 0], ...got(4), complete)).toEqual(['heardAfterTheEnd']);
  // Told of in time, and too early: when the message had not been published yet.
  expect(problems(...got(1, 2, 4), ['gap', 0, 'trimmed'], ...got().concat(Array.from({ length: 9 }, () => ['wait'])), complete)).toEqual(['lost']);
  expect(problems(...got(1, 2, 4), ...Array.from({ length: 9 }, () => ['wait']), ['gap', 0, 'trimmed'], complete)).toEqual([]);
  expect(problems(['wrong', 'something'], ...got(1, 2, 3, 4), complete)).toEqual(['wrong']);
});

describe('a failover behind sentinels', () => {
  let over;
  beforeEach(() => { over = false; });
  // Also of a test that failed halfway.
  afterEach(() => { over = true; });

  const CLOCK = { heartbeatTimeout: 500, reconnectGrace: 200, connectTimeout: 5000, commandTimeout: 15_000 };

  /** Who is promoted closes its connections. */
  const hasRole = (server, role) => server.call('ROLE').then(([is]) => is === role, () => false);

  /** The replica hears nothing more of its master, which dies: what it acknowledged meanwhile is lost. */
  const crash = async ({ master, replica }, other, during) => {
    replica.pause();
    other.kill('SIGSTOP');
    try {
      // More than the connection between them holds, so that what comes after it stays with the master.
      await master.call('SET', 'large', 'x'.repeat(64 << 20));
      await during();
      await master.kill();
    } finally {
      replica.resume();
      other.kill('SIGCONT');
    }
  };
  /** For some seconds there are two masters, until the sentinels make the old one a replica. */
  const order = async ({ master, sentinels }, _, during) => {
    await during();
    await sentinels[0].call('SENTINEL', 'FAILOVER', 'main');
    await until(() => hasRole(master, 'slave'), 60_000);
  };

  /** A process that hears `ch`. */
  const listener = (url) => {
    const process = child(`
      const now = () => Number(process.hrtime.bigint() / 1000n) / 1000;
      const manager = new mortise.PubSubManager({ name: 'main' }, { adapter: 'redis', url: ${JSON.stringify({ url, ...CLOCK, heartbeat: 190 })} });
      (async () => {
        await manager.connect();
        await manager.subscribe('ch', ([name, n]) => console.log(JSON.stringify({ name, n })), { onGap: () => console.log(JSON.stringify({ gap: now() })) });
        console.log('{}');
        process.stdin.once('data', async () => { process.stdin.unref(); await manager.close(); });
      })();
    `, { stdin: 'pipe', deadline: 170_000 });
    const heard = () => process.lines.map((line) => JSON.parse(line));
    return { process, get got() { return heard().filter(({ name }) => name); }, get gaps() { return heard().flatMap(({ gap }) => gap ?? []); } };
  };

  test.each([['after a crash that loses what was acknowledged', crash, true], ['on order', order, false]])('%s: messages go on, none twice, none lost without a gap', async (_, failover, loses) => {
    const group = await startSentinels();
    const logger = recorder();
    const made = [];
    const make = async () => {
      // Options that differ share nothing, as those of different processes.
      const url = { url: group.url, ...CLOCK, heartbeat: 200 + made.length };
      const manager = new PubSubManager({ name: 'main', logger }, { adapter: 'redis', url });
      made.push(manager);
      await manager.connect();
      return manager;
    };
    const [here, other] = [{ got: [], gaps: [] }, listener(group.url)];
    await (await make()).subscribe('ch', ([name, n]) => here.got.push({ name, n }), { onGap: () => here.gaps.push(now()) });
    await until(() => other.process.lines.length > 0);
    const publishers = await Promise.all(['a', 'b'].map(async (name) => ({ name, manager: await make(), all: [], rejected: [] })));
    const work = publishers.map(async ({ name, manager, all, rejected }) => {
      while (!over) {
        const message = { n: all.length, called: now() };
        all.push(message);
        message.done = manager.publish('ch', [name, message.n]).then(() => { message.at = now(); }, (error) => rejected.push(error.code));
        await pause(2);
      }
      await Promise.all(all.map(({ done }) => done));
    });
    const acknowledged = () => publishers.map(({ all }) => all.filter(({ at }) => at).length);
    const grown = async (by) => {
      const before = acknowledged();
      await until(() => acknowledged().every((count, i) => count >= before[i] + by), 60_000);
    };
    await grown(200);
    await failover(group, other.process.handle, () => grown(200));
    await until(() => hasRole(group.replica, 'master'), 60_000);
    await grown(200);
    over = true;
    await Promise.all(work);
    const last = publishers.map(({ name, all }) => ({ name, n: all.findLast(({ at }) => at).n }));
    let lost = 0;
    for (const heard of [here, other]) {
      await until(() => { const { got } = heard; return last.every(({ name, n }) => got.some((message) => message.name === name && message.n === n)); }, 20_000);
      for (const { name, all } of publishers) {
        const mine = heard.got.filter((message) => message.name === name).map(({ n }) => n);
        expect(mine.filter((n, i) => i > 0 && n <= mine[i - 1])).toEqual([]);
        const missed = all.filter(({ at, n }) => at && !mine.includes(n));
        lost += missed.length;
        // A gap of what somebody else has noticed is told within a look at the log.
        await until(() => missed.every(({ called }) => heard.gaps.some((gap) => gap > called)), 10_000);
      }
    }
    expect(publishers.flatMap(({ rejected }) => rejected).filter((code) => code !== 'E_UNAVAILABLE' && code !== 'E_TIMEOUT')).toEqual([]);
    console.log(`${acknowledged().join(' and ')} acknowledged, ${lost} not heard, ${here.gaps.length} and ${other.gaps.length} gaps told`);
    if (loses) expect(Math.min(lost, here.gaps.length, other.gaps.length)).toBeGreaterThan(0);
    other.process.handle.stdin.write('end\n');
    expect(await other.process.exit).toMatchObject({ code: 0, errors: '' });
    await Promise.all(made.map((manager) => manager.close()));
    await group.stop();
  }, 180_000);
});
