'use strict';
// Event queues on servers under everything at once: processes that are killed and stopped, connections that are cut and
// half-open, a server that is restarted. What happened is written down, and checked.

const { fork } = require('node:child_process');
const { mkdtempSync, readFileSync, writeFileSync } = require('node:fs');
const { join } = require('node:path');
const { EventQueue } = require('../..');
const brokers = require('../servers/brokers');
const { Proxy } = require('../servers/proxy');
const { temporaryFolder, until } = require('../support');
const { check, readHistory } = require('./queue-history');
const { LEASE, RULES } = require('./queue-reasons');

const DURATION = Number(process.env.MORTISE_FAULT_SECONDS ?? 180) * 1000;
const ROLES = ['worker', 'worker', 'worker', 'worker', 'publisher', 'publisher'];

const now = () => Number(process.hrtime.bigint() / 1000n) / 1000;
const random = (below) => Math.floor(Math.random() * below);
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Where histories are written; with the variable set they are kept. */
const historyFolder = () => {
  const { MORTISE_FAULT_FOLDER: kept } = process.env;
  return kept ? mkdtempSync(join(kept, 'queue-')) : temporaryFolder();
};

/** The processes and their proxies. */
class Nodes {
  constructor(name, server) {
    Object.assign(this, { name, broker: brokers[name], server, folder: historyFolder(), over: false, starts: 0, histories: [], wrong: [], all: [] });
  }

  async start() {
    for (const role of ROLES) {
      const node = { role, proxy: await Proxy.to(this.server.port) };
      this.all.push(node);
      this.begin(node);
    }
  }

  begin(node) {
    const name = `${node.role[0]}${this.starts++}`;
    const file = join(this.folder, `${name}.jsonl`);
    // One that is killed early writes nothing.
    writeFileSync(file, '');
    const history = { name, file, stops: [], cuts: [], killed: undefined };
    this.histories.push(history);
    const environment = { HISTORY: file, NAME: name, ROLE: node.role, BROKER: this.name, PORT: node.proxy.port, LEASE };
    const process_ = fork(join(__dirname, 'queue-node.js'), { env: { ...process.env, ...environment }, stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
    Object.assign(node, { child: process_, history, ready: false, quiet: false });
    process_.on('error', () => {});
    process_.on('message', (message) => Object.assign(node, message));
    process_.on('exit', (code, signal) => {
      if (signal === 'SIGKILL') history.killed = { at: now(), ...history.killed, until: now() };
      else if (code !== 0) this.wrong.push(`${name} ended with ${code ?? signal}`);
      if (code === 0 && !this.over) this.wrong.push(`${name} ended by itself`);
      if (!this.over) this.begin(node);
    });
  }

  order(order) {
    for (const { child: process_ } of this.all) if (process_.connected) process_.send(order, () => {});
  }

  /** Also after a test that failed halfway. */
  kill() {
    this.over = true;
    for (const { child: process_ } of this.all) process_.kill('SIGKILL');
  }

  async until(what, condition, deadline = 60_000) {
    await until(() => this.all.every(condition), deadline).catch(() => {
      throw new Error(`not ${what}: ${JSON.stringify(this.all.map(({ history: { name }, ready, quiet }) => ({ name, ready, quiet })))}`);
    });
  }

  /** Everybody comes to an end, and nothing is left. */
  async end(queue) {
    await this.until('ready', ({ ready }) => ready);
    this.order('quiet');
    await this.until('quiet', ({ quiet }) => quiet);
    const counted = async () => {
      const counts = await Promise.all(['a', 'b', 'c'].map((channel) => queue.counts(channel)));
      return counts.reduce((sum, { waiting, delayed = 0, running }) => sum + waiting + delayed + running, 0);
    };
    // What is kept back and is not counted has come meanwhile.
    const left = async () => await counted() || (this.broker.countsDelayed ? 0 : (await this.broker.left(this.server)).length || counted());
    await until(async () => await left() === 0, 90_000).catch(async () => this.wrong.push(`${await left()} messages are left`));
    const dead = await Promise.all(['a', 'b', 'c'].map((channel) => queue.deadLetters(channel).count()));
    if (dead.some((count) => count > 0)) this.wrong.push(`dead letters: ${dead}`);
    this.order('finish');
    await this.until('at its end', ({ child: { exitCode, signalCode } }) => exitCode !== null || signalCode !== null);
  }
}

/** Between two moments something was away. */
async function during(spans, action, more = {}) {
  const span = { at: now(), until: Infinity, ...more };
  spans.push(span);
  await action();
  span.until = now();
}

/** What goes wrong with a process. */
const ofProcesses = {
  async kill({ child: process_, history }) {
    // It dies some time after that, and its end is seen some time after others have its messages.
    history.killed ??= { at: now(), until: Infinity };
    process_.kill('SIGKILL');
  },
  stop: ({ child: process_, history }) => during(history.stops, async () => {
    process_.kill('SIGSTOP');
    await pause(300 + random(LEASE * 2));
    process_.kill('SIGCONT');
  }),
};
/** What goes wrong with the ways to the server. */
const ofWays = {
  cut: ({ proxy, history }) => during(history.cuts, async () => proxy.cut()),
  half: ({ proxy, history }) => during(history.cuts, async () => {
    proxy.mode = random(2) ? 'half' : 'blackhole';
    await pause(300 + random(LEASE * 1.5));
    proxy.mode = 'pass';
    proxy.cut();
  }),
  refuse: ({ proxy, history }) => during(history.cuts, async () => {
    proxy.mode = 'refuse';
    proxy.cut();
    await pause(random(LEASE * 1.5));
    proxy.mode = 'pass';
  }),
};

/** One fault after the other, each of a random node. */
async function afflict(faults, names, nodes, counts) {
  const end = Date.now() + DURATION;
  while (Date.now() < end) {
    const name = names[random(names.length)];
    counts[name] = (counts[name] ?? 0) + 1;
    await faults[name](nodes.all[random(ROLES.length)]);
    await pause(300 + random(1500));
  }
}

const all = [['Redis', 'redis'], ['RabbitMQ', 'rabbitmq']];

describe.each(all)('a queue on %s', (_, name) => {
  const broker = brokers[name];
  let nodes;
  afterEach(() => nodes?.kill());

  test('nothing that was accepted is lost, and nothing runs twice without a crash or a lapse', async () => {
    const server = await broker.start();
    nodes = new Nodes(name, server);
    await nodes.start();
    // What a broker has made just now it may not have any more when it is killed.
    await nodes.until('ready', ({ ready }) => ready);
    await pause(4000);
    const [counts, outages] = [{}, []];
    const ofServer = {
      restart: () => during(outages, async () => {
        await (random(4) ? server.kill() : server.shutDown());
        await pause(random(LEASE));
        await server.up();
      }, { restart: true }),
      freeze: () => during(outages, async () => {
        server.pause();
        await pause(random(LEASE));
        server.resume();
      }),
      quiet: () => pause(3000 + random(4000)),
    };
    await Promise.all([
      afflict(ofProcesses, ['kill', 'stop', 'stop'], nodes, counts),
      afflict(ofWays, ['cut', 'cut', 'half', 'refuse'], nodes, counts),
      afflict(ofServer, ['restart', 'freeze', 'quiet'], nodes, counts),
    ]);
    nodes.over = true;
    const queue = new EventQueue({ name: 'main' }, { adapter: broker.adapter, url: broker.url(server.port) });
    await queue.connect();
    await nodes.end(queue);
    await queue.close();

    const histories = nodes.histories.map((history) => readHistory({ ...history, text: readFileSync(history.file, 'utf8') }));
    const sum = (of) => histories.reduce((total, history) => total + of(history), 0);
    const published = sum((history) => history.published.size);
    const accepted = sum((history) => [...history.published.values()].filter(({ ok }) => ok).length);
    const [runs, processed] = [sum((history) => history.runs.length), sum((history) => history.runs.filter(({ how }) => how === 'done').length)];
    const { problems, reasons } = check(histories, { ...RULES[name], outages });
    console.log(`${published} published, ${accepted} accepted, ${runs} runs, ${processed} processed, ${histories.length} processes; ran again: ${JSON.stringify(reasons)}; faults: ${JSON.stringify(counts)}`);
    writeFileSync(join(nodes.folder, 'faults.json'), JSON.stringify({ outages, nodes: nodes.histories, problems }, null, 1));
    if (problems.length > 0) console.log(problems.length, 'problems in', nodes.folder);
    expect(nodes.wrong).toEqual([]);
    expect(problems.slice(0, 3)).toEqual([]);
    expect(accepted).toBeGreaterThan(DURATION / 50);
    await Promise.all(nodes.all.map(({ proxy }) => proxy.close()));
    await server.stop();
  }, DURATION + 240_000);
});
