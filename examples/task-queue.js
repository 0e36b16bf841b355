'use strict';
// A plugin that queues tasks: two at once, only while it is ready, each tried up to four times.

const assert = require('node:assert/strict');
const { setTimeout: wait } = require('node:timers/promises');
const { tmpdir } = require('node:os');
const { createApp, Plugin } = require('..');

class Thumbnails extends Plugin {
  ready = false;
  running = 0;
  most = 0;
  made = [];

  load() {
    this.app.eventQueue.subscribe('thumbnails', {
      concurrency: 2,
      interval: 20,
      idle: () => this.ready,
      process: (payload, options) => this.make(payload, options),
    });
  }

  async make({ file, flaky }, { retried, signal }) {
    this.most = Math.max(this.most, ++this.running);
    try {
      await wait(5, undefined, { signal });
      if (flaky && retried === 0) throw new Error('try again');
      this.made.push(file);
    } finally {
      this.running--;
    }
  }

  async add(file, flaky = false) {
    await this.app.eventQueue.publish('thumbnails', { file, flaky }, { timeout: 10_000, maxRetries: 3 });
  }
}

(async () => {
  const logger = { debug() {}, info() {}, warn() {}, error: console.error };
  const app = createApp({ name: 'main', logger, eventQueue: { storagePath: `${tmpdir()}/mortise-example-${process.pid}` } });
  const thumbnails = app.plugin(Thumbnails, { name: 'thumbnails' });
  await app.start();
  for (let i = 0; i < 9; i++) await thumbnails.add(`${i}.png`);
  await thumbnails.add('flaky.png', true);
  assert.equal(thumbnails.made.length, 0);
  thumbnails.ready = true;
  while (thumbnails.made.length < 10) await wait(5);
  assert.deepEqual(thumbnails.made.sort(), [...Array.from({ length: 9 }, (_, i) => `${i}.png`), 'flaky.png']);
  assert.equal(thumbnails.most, 2);
  await app.stop();
  console.log('10 tasks done, two at once, one of them at its second attempt');
})();
