'use strict';
// One node of the demo: an app in a worker thread, whose plugin audits the packages that it is given.

const { basename, dirname } = require('node:path');
const { readFileSync, writeFileSync } = require('node:fs');
const { workerData } = require('node:worker_threads');
const { createApp, Plugin } = require('../..');
const { classify, keyOf, readLicence } = require('./packages.cjs');

class Audit extends Plugin {
  classified = 0;
  running = new Map();

  async load() {
    const { pubSubManager, eventQueue, cacheManager } = this.app;
    this.licences = await cacheManager.createCache({ name: 'licences', prefix: 'licences', max: 10_000 });
    eventQueue.subscribe('packages', { concurrency: 4, process: (folder) => this.audit(folder) });
    eventQueue.subscribe('slow', { process: (id, { signal }) => this.slow(id, signal) });
    await pubSubManager.subscribe('share', ({ node, folders }) => node === workerData.node && this.take(folders));
    await pubSubManager.subscribe('slow', ({ node, id }) => node === workerData.node && eventQueue.publish('slow', id, { timeout: 60_000 }));
    await pubSubManager.subscribe('cancel', ({ id }) => this.running.get(id)?.abort());
    await pubSubManager.subscribe('end', () => this.app.stop());
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
    // Every node changes the same file: read, add, write, and nobody in between.
    await this.app.lockManager.runExclusive('report', async () => {
      const report = JSON.parse(readFileSync(workerData.report, 'utf8'));
      report[found] = (report[found] ?? 0) + 1;
      writeFileSync(workerData.report, JSON.stringify(report));
    });
    const name = basename(dirname(folder)).startsWith('@') ? `${basename(dirname(folder))}/${basename(folder)}` : basename(folder);
    await this.tell('done', { name, classified: this.classified });
  }

  /** A task that would take a minute, unless it is cancelled. */
  async slow(id, signal) {
    const controller = new AbortController();
    this.running.set(id, controller);
    await this.tell('slow', { id });
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, 60_000);
      AbortSignal.any([signal, controller.signal]).addEventListener('abort', () => {
        clearTimeout(timer);
        resolve();
      });
    });
    this.running.delete(id);
    await this.tell('cancelled', { id, cancelled: controller.signal.aborted });
  }

  /** The policy has changed on another node. */
  async handleSyncMessage({ allowed }) {
    await this.app.cache.set('policy', allowed);
    await this.tell('policy', { allowed });
  }

  tell(kind, message) {
    return this.app.pubSubManager.publish('news', { kind, node: workerData.node, ...message });
  }
}

// Subscriptions do not keep a thread alive; in an application its server would.
const alive = setInterval(() => undefined, 60_000);

const app = createApp({ name: 'audit', syncMessageManager: { debounce: 50 }, eventQueue: { storagePath: `${workerData.storage}/${workerData.node}` } });
const audit = app.plugin(Audit, { name: 'audit' });
app.on('afterStop', () => clearInterval(alive));
app.start().then(() => audit.tell('ready', {}));
