'use strict';
// One node of the demo: an app in a worker thread or in a process of its own, whose plugin audits packages:
// those that it fetches from the queue of all nodes, or, with a queue of its own, those that it is given.

const { basename, dirname } = require('node:path');
const { setTimeout: sleep } = require('node:timers/promises');
const { readFileSync, writeFileSync } = require('node:fs');
const { workerData } = require('node:worker_threads');
const { createApp, Plugin } = require('../..');
const { classify, keyOf, readLicence } = require('./packages.cjs');
const { appOptions, sharesQueue } = require('./settings.cjs');

const settings = workerData ?? JSON.parse(process.env.MORTISE_DEMO_NODE);

class Audit extends Plugin {
  classified = 0;

  async load() {
    const { pubSubManager, eventQueue, cacheManager } = this.app;
    // On Redis a text is classified by one node, while the others that need it wait.
    const sharing = settings.redis ? { singleFlight: 'cluster' } : { max: 10_000 };
    this.licences = await cacheManager.createCache({ name: 'licences', prefix: 'licences', ...sharing });
    eventQueue.subscribe('packages', { concurrency: 4, process: (folder) => this.audit(folder) });
    eventQueue.subscribe('slow', { process: (id, { signal }) => this.slow(id, signal) });
    await pubSubManager.subscribe('end', end);
    if (sharesQueue(settings)) return;
    await pubSubManager.subscribe('share', ({ node, folders }) => node === settings.node && this.take(folders));
    await pubSubManager.subscribe('slow', ({ node, id }) => node === settings.node && eventQueue.publish('slow', id, { id, timeout: 60_000 }));
    await pubSubManager.subscribe('cancel', ({ id }) => eventQueue.cancel('slow', id));
  }

  async take(folders) {
    for (const folder of folders) await this.app.eventQueue.publish('packages', folder, { maxRetries: 1 });
  }

  async audit(folder) {
    const licence = readLicence(folder);
    const found = await this.licences.wrap(keyOf(licence), async () => {
      this.classified++;
      return classify(licence);
    });
    const lock = await this.report(found);
    const name = basename(dirname(folder)).startsWith('@') ? `${basename(dirname(folder))}/${basename(folder)}` : basename(folder);
    await this.tell('done', { name, classified: this.classified, ...lock });
  }

  /** Every node changes the same file: read, add, write, and nobody in between. */
  report(licence) {
    return this.app.lockManager.runExclusive('report', ({ fencingToken: token }) => {
      const begun = performance.now();
      const report = JSON.parse(readFileSync(settings.report, 'utf8'));
      report[licence] = (report[licence] ?? 0) + 1;
      writeFileSync(settings.report, JSON.stringify(report));
      return { token, held: performance.now() - begun };
    }, 5000);
  }

  /** A task that would take a minute, unless it is cancelled. */
  async slow(id, signal) {
    // Slept from now on: the word that cancels may come before the news of the task is out.
    const slept = sleep(60_000, undefined, { signal }).catch(() => undefined);
    await this.tell('slow', { id });
    await slept;
    await this.tell('cancelled', { id, cancelled: signal.reason?.name === 'AbortError' });
  }

  /** The policy has changed on another node. */
  async handleSyncMessage({ allowed }) {
    await this.app.cache.set('policy', allowed);
    await this.tell('policy', { allowed });
  }

  tell(kind, message) {
    return this.app.pubSubManager.publish('news', { kind, node: settings.node, ...message });
  }
}

// Subscriptions do not keep a thread or a process alive; in an application its server would.
const alive = setInterval(() => undefined, 60_000);
const app = createApp(appOptions(settings, `${settings.storage}/${settings.node}`));
const audit = app.plugin(Audit, { name: 'audit' });

async function start() {
  await app.start();
  await audit.tell('ready', { pid: process.pid, workerId: await app.workerIdAllocator.getWorkerId() });
}

async function end() {
  await app.stop();
  clearInterval(alive);
  if (workerData) return;
  process.off('disconnect', orphaned);
  process.disconnect();
}

/** The coordinator of a process was killed, and cannot stop its own server any more. */
function orphaned() {
  if (settings.serverProcess) process.kill(settings.serverProcess);
  process.exit(1);
}

if (!workerData) process.on('disconnect', orphaned);
start().catch((error) => {
  console.error(`node ${settings.node}: ${error.message}`);
  process.exit(1);
});
