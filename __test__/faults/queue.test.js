'use strict';
// Event queues on servers under everything at once: processes that are killed and stopped, connections that are cut and
// half-open, a server that is restarted. What happened is written down, and checked.

const { fork } = require('node:child_process');
const { mkdtempSync, readFileSync, writeFileSync } = require('node:fs');
const { join } = require('node:path');
const { EventQueue } = require('../..');
const brokers = require('../servers/brokers');
const { Proxy } = require('../servers/proxy');
const { child, temporaryFolder, until } = require('../support');
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
    const history = { name, file, stops: [], cuts: [] };
    this.histories.push(history);
    const environment = { HISTORY: file, NAME: name, ROLE: node.role, BROKER: this.name, PORT: node.proxy.port, LEASE };
    const process_ = fork(join(__dirname, 'queue-node.js'), { env: { ...process.env, ...environment }, stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
    Object.assign(node, { child: process_, history, ready: false, quiet: false });
    process_.on('error', () => {});
    process_.on('message', (message) => Object.assign(node, message));
    process_.on('exit', (code, signal) => {
      if (signal === 'SIGKILL') history.killed ??= now();
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
    // What it does before it dies is done in time.
    process_.once('exit', () => { history.killed ??= now(); });
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

  test('handlers that block the event loop for 45 s, with a lease of 10 s: no job runs twice', async () => {
    const server = await broker.start();
    const options = JSON.stringify({ adapter: broker.adapter, url: broker.url(server.port), ...broker.lease(10_000) });
    const program = (subscription) => child(`
      const say = (line) => require('node:fs').writeSync(1, line + '\\n');
      const queue = new mortise.EventQueue({ name: 'main', logger: { debug() {}, info() {}, warn: say, error: say } }, ${options});
      let idle = true;
      queue.subscribe('c', { ${subscription} });
      process.stdin.on('data', () => { idle = true; });
      queue.connect().then(() => say('ready'));
    `, { stdin: 'pipe', deadline: 110_000 });
    const blocked = program(`concurrency: 3, process: async (n) => {
      say('begun ' + n);
      if (n === 0) for (const end = Date.now() + 45_000; Date.now() < end;);
      else await new Promise((resolve) => setTimeout(resolve, 100));
      say('done ' + n);
    }`);
    await until(() => blocked.lines.includes('ready'));
    const other = program(`concurrency: 3, idle: () => idle, process: async (n) => { say('begun ' + n); say('done ' + n); }`);
    await until(() => other.lines.includes('ready'));
    const queue = new EventQueue({ name: 'main' }, JSON.parse(options));
    await queue.connect();
    queue.subscribe('c', { idle: () => false, process: () => undefined });
    for (let n = 0; n < 6; n++) await queue.publish('c', n, { timeout: Infinity });
    const said = (word) => [...blocked.lines, ...other.lines].filter((line) => line.startsWith(`${word} `)).map((line) => Number(line.slice(word.length)));
    await until(() => said('done').length >= 6, 80_000);
    await until(async () => (await queue.counts('c')).running === 0);
    expect(said('begun').sort()).toEqual([0, 1, 2, 3, 4, 5]);
    expect([...blocked.lines, ...other.lines].filter((line) => /lease|maxStall|is away|AMQP/.test(line))).toEqual([]);
    for (const { handle } of [blocked, other]) handle.kill();
    await queue.close();
    await server.stop();
  });

  test('half a million jobs leave nothing behind, here and on the server', async () => {
    const server = await broker.start();
    const run = child(`
      require('node:v8').setFlagsFromString('--expose-gc');
      const gc = require('node:vm').runInNewContext('gc');
      const memory = async () => {
        for (let i = 0; i < 5; i++) { gc(); await new Promise((resolve) => setTimeout(resolve, 20)); }
        const { rss, heapUsed, external } = process.memoryUsage();
        return { rss, heap: heapUsed + external };
      };
      (async () => {
        const queue = new mortise.EventQueue({ name: 'main' }, ${JSON.stringify({ adapter: broker.adapter, url: broker.url(server.port) })});
        await queue.connect();
        let [seen, sent, more] = [0, 0, () => {}];
        // What is kept back on a server need not keep Node alive.
        const alive = setInterval(() => {}, 1000);
        queue.subscribe('c', { concurrency: 50, process: async (i, { signal, retried }) => {
          if (i % 1000 === 1) signal.aborted;
          if (i % 1000 === 2 && retried === 0) throw new Error('again');
          if (++seen === sent) more();
        } });
        const work = async (count) => {
          for (let i = 0; i < count; i += 1000) {
            sent += 1000;
            await Promise.all(Array.from({ length: 1000 }, (_, k) => queue.publish('c', k, { maxRetries: 1, backoff: { type: 'fixed', delay: 0 }, ...(k % 10 === 3 ? { id: 'i' + (i + k) } : {}), ...(k % 100 === 4 ? { delay: 5 } : {}) })));
            if (seen < sent) await new Promise((resolve) => { more = resolve; });
          }
        };
        await work(250_000);
        const before = await memory();
        await work(250_000);
        const after = await memory();
        console.log(JSON.stringify({ heap: after.heap - before.heap, rss: after.rss - before.rss }));
        clearInterval(alive);
        await queue.close();
      })();
    `, { deadline: 200_000 });
    expect(await run.exit).toMatchObject({ code: 0, errors: '' });
    const { heap, rss } = JSON.parse(run.lines[0]);
    // 250 000 jobs: a leak of 16 bytes each would show.
    expect(heap).toBeLessThan(4e6);
    expect(rss).toBeLessThan(48e6);
    await until(async () => (await broker.left(server)).length === 0);
    await server.stop();
  }, 220_000);
});
