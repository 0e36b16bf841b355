// A licence audit of the packages in node_modules, shared by several nodes.
//
//   npm run demo [-- --nodes N]        N apps in worker threads, 2 unless said otherwise
//
// This process is the coordinator. It gives each node its share over pub/sub (a queue in memory
// belongs to one app; on a server all nodes would fetch from one). Each node queues a task a
// package, classifies the licence texts through its cache, and adds to one report under a lock
// that all of them share. The policy lives in SQLite, is changed in a transaction, and reaches the
// nodes by sync message. A slow task is cancelled over pub/sub. In the end the report is compared
// with a plain walk of the tree.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { DataTypes, Sequelize } from 'sequelize';
import { Progress, table } from './progress.mjs';

const require = createRequire(import.meta.url);
const { createApp, Plugin } = require('../..');
const { classify, findPackages, readLicence } = require('./packages.cjs');

const ALLOWED = ['MIT', 'ISC', 'Apache-2.0', 'BSD-2-Clause', 'BSD-3-Clause', '0BSD'];
const ADDED = ['BlueOak-1.0.0', 'CC0-1.0', 'Python-2.0'];
const DEADLINE = 120_000;

const say = (text) => console.log(text);
const folder = mkdtempSync(join(tmpdir(), 'mortise-demo-'));
const report = join(folder, 'report.json');

function nodesWanted() {
  const at = process.argv.indexOf('--nodes');
  const wanted = at < 0 ? 2 : Number(process.argv[at + 1]);
  if (Number.isInteger(wanted) && wanted >= 1 && wanted <= 32) return wanted;
  console.error('--nodes takes a number from 1 to 32');
  process.exit(2);
}

/** What the nodes tell, as promises of what is waited for. */
class News {
  #all = [];
  #waiting = [];

  add(message) {
    this.#all.push(message);
    this.#waiting = this.#waiting.filter(({ kind, count, resolve }) => {
      const found = this.of(kind);
      if (found.length >= count) resolve(found);
      return found.length < count;
    });
  }

  of(kind) {
    return this.#all.filter((message) => message.kind === kind);
  }

  when(kind, count) {
    const found = this.of(kind);
    if (found.length >= count) return Promise.resolve(found);
    return new Promise((resolve) => this.#waiting.push({ kind, count, resolve }));
  }
}

async function openPolicy() {
  const database = new Sequelize({
    dialect: 'sqlite', dialectModule: require('./sqlite.cjs'), storage: join(folder, 'policy.db'), logging: false,
  });
  const Policy = database.define('policy', { licence: { type: DataTypes.STRING, primaryKey: true } }, { timestamps: false });
  await database.sync();
  await Policy.bulkCreate(ALLOWED.map((licence) => ({ licence })));
  const read = async (transaction) => (await Policy.findAll({ transaction, order: ['licence'] })).map(({ licence }) => licence);
  return { database, Policy, read };
}

/** Changes the policy in transactions: one that commits, and one that is rolled back. */
async function changePolicy(plugin, { database, Policy, read }, news, nodes) {
  await database.transaction(async (transaction) => {
    await Policy.bulkCreate(ADDED.map((licence) => ({ licence })), { transaction });
    void plugin.sendSyncMessage({ allowed: await read(transaction) }, { transaction });
  });
  await news.when('policy', nodes);
  let told;
  await database.transaction(async (transaction) => {
    await Policy.destroy({ where: {}, transaction });
    told = plugin.app.syncMessageManager.publish('audit', { allowed: [] }, { transaction });
    told.catch(() => undefined);
    throw new Error('changed our mind');
  }).catch(() => undefined);
  const code = await told.then(() => 'published', (error) => error.code);
  say(`  policy: ${ADDED.length} licences added in a transaction, heard by ${nodes} nodes; a change that was rolled back: ${code}`);
}

async function cancelSlowTask(app, news) {
  await app.pubSubManager.publish('slow', { node: 0, id: 'slow-1' });
  await news.when('slow', 1);
  await app.pubSubManager.publish('cancel', { id: 'slow-1' });
  const [{ cancelled, node }] = await news.when('cancelled', 1);
  say(`  a task of a minute on node ${node} was ${cancelled ? 'cancelled over pub/sub' : 'NOT cancelled'}`);
  return cancelled;
}

/** The report beside what a plain walk finds; whether they are equal. */
function compare(folders, allowed, news, seconds) {
  const walked = {};
  for (const path of folders) {
    const licence = classify(readLicence(path));
    walked[licence] = (walked[licence] ?? 0) + 1;
  }
  const reported = JSON.parse(readFileSync(report, 'utf8'));
  const licences = Object.keys({ ...walked, ...reported }).sort((a, b) => (walked[b] ?? 0) - (walked[a] ?? 0));
  const rows = licences.map((licence) => [licence, reported[licence] ?? 0, walked[licence] ?? 0, allowed.includes(licence) ? 'yes' : 'NO']);
  say(`\n${table([['licence', 'audited', 'plain walk', 'allowed'], ...rows])}`);
  const classified = Math.max(0, ...news.of('done').map((message) => message.classified));
  say(`\n  ${folders.length} packages in ${seconds.toFixed(1)} s; no node classified more than ${classified} texts, the others were in its cache`);
  return licences.every((licence) => reported[licence] === walked[licence]);
}

async function main() {
  const nodes = nodesWanted();
  const news = new News();
  const folders = findPackages(fileURLToPath(new URL('../../node_modules', import.meta.url)));
  const progress = new Progress(folders.length);
  let ended = false;
  writeFileSync(report, '{}');

  const app = createApp({ name: 'audit', eventQueue: { storagePath: join(folder, 'coordinator') } });
  const plugin = app.plugin(Plugin, { name: 'audit' });
  await app.start();
  await app.pubSubManager.subscribe('news', (message) => {
    news.add(message);
    if (message.kind === 'done') progress.show(news.of('done').length);
  });

  say(`mortise: a licence audit of ${folders.length} packages by ${nodes} nodes in worker threads`);
  const exits = Array.from({ length: nodes }, (_, node) => new Promise((resolve, reject) => {
    const worker = new Worker(new URL('node.cjs', import.meta.url), { workerData: { node, report, storage: folder } });
    worker.on('exit', resolve).on('error', reject);
  }));
  const early = Promise.race(exits).then(() => {
    if (!ended) throw new Error('a node has ended before its time');
  });
  early.catch(() => undefined);
  await Promise.race([news.when('ready', nodes), early]);

  const policy = await openPolicy();
  await changePolicy(plugin, policy, news, nodes);
  const cancelled = await cancelSlowTask(app, news);

  const begun = performance.now();
  for (let node = 0; node < nodes; node++) {
    await app.pubSubManager.publish('share', { node, folders: folders.filter((_, index) => index % nodes === node) });
  }
  await Promise.race([news.when('done', folders.length), early]);
  const equal = compare(folders, await policy.read(), news, (performance.now() - begun) / 1000);
  say(equal ? '  the counts equal those of a plain walk' : '  THE COUNTS DIFFER from those of a plain walk');

  ended = true;
  await app.pubSubManager.publish('end', {});
  await Promise.all(exits);
  await policy.database.close();
  await app.stop();
  return equal && cancelled;
}

const guard = setTimeout(() => {
  console.error(`the demo did not end within ${DEADLINE / 1000} s`);
  process.exit(1);
}, DEADLINE);

try {
  process.exitCode = (await main()) ? 0 : 1;
} finally {
  clearTimeout(guard);
  rmSync(folder, { recursive: true, force: true });
}
