// A licence audit of the packages in node_modules, shared by several nodes.
//
//   npm run demo [-- --nodes N]                N apps in worker threads, 2 unless said otherwise
//   npm run demo -- --nodes N --redis [URL]    N processes that share a Redis server; without a URL one
//                                              that the demo starts, and stops at its end
//   npm run demo -- [--redis] --rabbitmq [URL] the tasks are queued on RabbitMQ
//
// This process is the coordinator. It queues a task a package and fetches none itself; all nodes fetch from
// the one queue. Without a server each node has a queue of its own, and is given its share over pub/sub.
// Each node classifies the licence texts through its cache (on Redis: through that of all nodes), and adds to
// one report under a lock that all of them share. The policy lives in SQLite, is changed in a transaction, and
// reaches the nodes by sync message. A slow task is cancelled while it runs on some node. In the end the
// report is compared with a plain walk of the tree; on Redis it is also told which worker ids the nodes had,
// and who held the lock.

import { randomUUID } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { readArguments } from './arguments.mjs';
import { Broker } from './broker.mjs';
import { News } from './news.mjs';
import { Nodes } from './nodes.mjs';
import { changePolicy, openPolicy } from './policy.mjs';
import { Progress, table } from './progress.mjs';
import { Server } from './server.mjs';

const require = createRequire(import.meta.url);
const { createApp, Plugin } = require('../..');
const { classify, findPackages, readLicence } = require('./packages.cjs');
const { appOptions, sharesQueue } = require('./settings.cjs');

const DEADLINE = 120_000;

const say = (text) => console.log(text);
const folder = mkdtempSync(join(tmpdir(), 'mortise-demo-'));
const report = join(folder, 'report.json');
/** On a server that others use too, keys and channels of this run alone. */
const name = `audit-${randomUUID()}`;
let server;
let broker;
let running;

/** Queues what all nodes fetch; the coordinator's own `idle` says no, so it publishes only. */
function publishOnly(queue) {
  for (const channel of ['packages', 'slow']) queue.subscribe(channel, { idle: () => false, process: () => undefined });
}

async function cancelSlowTask(app, news, shared) {
  const id = 'slow-1';
  if (shared) await app.eventQueue.publish('slow', id, { id, timeout: 60_000 });
  else await app.pubSubManager.publish('slow', { node: 0, id });
  await news.when('slow', 1);
  if (shared) await app.eventQueue.cancel('slow', id);
  else await app.pubSubManager.publish('cancel', { id });
  const [{ cancelled, node }] = await news.when('cancelled', 1);
  say(`  a task of a minute on node ${node} was ${cancelled ? `cancelled over ${shared ? 'the queue' : 'pub/sub'}` : 'NOT cancelled'}`);
  return cancelled;
}

/** Gives the packages to the nodes. */
async function distribute(app, folders, nodes, shared) {
  if (shared) {
    await Promise.all(folders.map((folder) => app.eventQueue.publish('packages', folder, { maxRetries: 1 })));
    return;
  }
  for (let node = 0; node < nodes; node++) {
    await app.pubSubManager.publish('share', { node, folders: folders.filter((_, index) => index % nodes === node) });
  }
}

/** The report beside what a plain walk finds; whether they are equal. */
function compare(folders, allowed) {
  const walked = {};
  for (const path of folders) {
    const licence = classify(readLicence(path));
    walked[licence] = (walked[licence] ?? 0) + 1;
  }
  const reported = JSON.parse(readFileSync(report, 'utf8'));
  const licences = Object.keys({ ...walked, ...reported }).sort((a, b) => (walked[b] ?? 0) - (walked[a] ?? 0));
  const rows = licences.map((licence) => [licence, reported[licence] ?? 0, walked[licence] ?? 0, allowed.includes(licence) ? 'yes' : 'NO']);
  say(`\n${table([['licence', 'audited', 'plain walk', 'allowed'], ...rows])}`);
  const equal = licences.every((licence) => reported[licence] === walked[licence]);
  say(`\n  the counts ${equal ? 'equal' : 'DIFFER from'} those of a plain walk`);
  return equal;
}

/** What the processes did, one by one; whether each had a worker id, and each grant a token, of its own. */
function describeNodes(news) {
  const done = news.of('done');
  const nodes = news.of('ready').sort((a, b) => a.node - b.node).map(({ node, pid, workerId }) => {
    const mine = done.filter((message) => message.node === node);
    return { node, pid, workerId, grants: mine.length, held: mine.reduce((sum, { held }) => sum + held, 0) };
  });
  const rows = nodes.map(({ node, pid, workerId, grants, held }) => [node, pid, workerId, grants, Math.round(held)]);
  say(`\n${table([['node', 'process', 'worker id', 'held the lock, times', 'milliseconds'], ...rows])}`);
  const ids = new Set(nodes.map(({ workerId }) => workerId)).size;
  const tokens = new Set(done.map(({ token }) => token)).size;
  const longest = nodes.reduce((a, b) => (b.held > a.held ? b : a));
  say(`\n  ${nodes.length} nodes had ${ids === nodes.length ? 'different worker ids' : `ONLY ${ids} worker ids`}`);
  say(`  the report's lock was granted ${done.length} times, with ${tokens} fencing tokens; node ${longest.node} held it most`);
  return ids === nodes.length && tokens === done.length;
}

function describeTime(news, packages, seconds) {
  const each = new Map();
  for (const { node, classified } of news.of('done')) each.set(node, Math.max(classified, each.get(node) ?? 0));
  const all = [...each.values()];
  const told = server
    ? `the nodes classified ${all.reduce((a, b) => a + b, 0)} texts, the others were in the cache that they share`
    : `no node classified more than ${Math.max(0, ...all)} texts, the others were in its cache`;
  say(`\n  ${packages} packages in ${seconds.toFixed(1)} s; ${told}`);
}

async function main(failed) {
  const { nodes, redis, rabbitmq } = readArguments(process.argv.slice(2));
  if (redis !== undefined) {
    server = redis === '' ? await Server.own(folder) : Server.at(redis);
    await server.watch(failed);
  }
  if (rabbitmq !== undefined) broker = rabbitmq === '' ? await Broker.own(say) : new Broker(rabbitmq);
  const settings = {
    name, report, storage: folder, redis: server?.url, rabbitmq: broker?.url,
    serverProcess: server?.process?.pid,
    // Nobody can have held a lock on the demo's own server before.
    gracePeriod: server?.process && 100,
  };
  const news = new News();
  const folders = findPackages(fileURLToPath(new URL('../../node_modules', import.meta.url)));
  const progress = new Progress(folders.length);
  writeFileSync(report, '{}');

  const app = createApp(appOptions(settings, join(folder, 'coordinator')));
  const plugin = app.plugin(Plugin, { name: 'audit' });
  const shared = sharesQueue(settings);
  if (shared) publishOnly(app.eventQueue);
  await app.start();
  await app.pubSubManager.subscribe('news', (message) => {
    news.add(message);
    if (message.kind === 'done') progress.show(news.of('done').length);
  });

  say(`mortise: a licence audit of ${folders.length} packages by ${nodes} nodes in ${server ? `processes on ${server.name}` : 'worker threads'}${broker ? `, queued on ${broker.name}` : ''}`);
  running = new Nodes(nodes, settings, failed);
  const ready = await news.when('ready', nodes);
  if (server) say(`  worker ids: ${ready.map(({ node, workerId }) => `node ${node} has ${workerId}`).sort().join(', ')}`);

  const policy = await openPolicy(join(folder, 'policy.db'));
  say(`  ${await changePolicy(plugin, policy, news, nodes)}`);
  const cancelled = await cancelSlowTask(app, news, shared);

  const begun = performance.now();
  await distribute(app, folders, nodes, shared);
  await news.when('done', folders.length);
  const seconds = (performance.now() - begun) / 1000;
  const equal = compare(folders, await policy.read());
  const apart = !server || describeNodes(news);
  describeTime(news, folders.length, seconds);

  await running.end(() => app.pubSubManager.publish('end', {}));
  await policy.database.close();
  await app.stop();
  return equal && cancelled && apart;
}

/** Runs the demo; rejects as well when it has to end before its work is done. */
function run() {
  return new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error(`it did not end within ${DEADLINE / 1000} s`)), DEADLINE);
    for (const signal of ['SIGHUP', 'SIGINT', 'SIGTERM']) {
      // Also when it comes twice, as from a terminal and from npm.
      process.on(signal, () => reject(Object.assign(new Error(`interrupted by ${signal}`), { exitCode: 128 + constants.signals[signal] })));
    }
    main(reject).then(resolve, reject);
  });
}

process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
try {
  process.exitCode = (await run()) ? 0 : 1;
} catch (error) {
  console.error(error.exitCode === 2 ? error.message : `the demo failed: ${error.message}`);
  process.exitCode = error.exitCode ?? 1;
}
running?.kill();
await server?.close(name);
await broker?.close();
process.exit();
