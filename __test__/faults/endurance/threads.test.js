'use strict';
// Worker threads that come and go, also in the middle of work.

const { child, temporaryFolder, ROOT } = require('../../support');

const PROGRAM = `
  const mortise = require(${JSON.stringify(ROOT)});
  const { parentPort, threadId } = require('node:worker_threads');
  (async () => {
    const app = mortise.createApp({ name: 'main', eventQueue: { storagePath: process.env.STORAGE_PATH + '/' + threadId } });
    await app.start();
    await app.pubSubManager.subscribe('c', () => {});
    app.eventQueue.subscribe('q', { concurrency: 5, process: async (n) => { await app.cache.wrap('k' + n % 50, async () => n, 5); } });
    let n = 0;
    const loop = async () => {
      for (;;) {
        n++;
        await app.lockManager.runExclusive('shared', async () => { await null; }, 1000);
        await app.eventQueue.publish('q', n);
        await app.pubSubManager.publish('c', { n });
        await app.cache.set('k' + n % 100, { n }, 20);
        if (n % 50 === 0) { parentPort.postMessage(n); await new Promise(setImmediate); }
      }
    };
    for (let i = 0; i < 3; i++) loop();
  })();
`;

test('50 worker threads that are terminated under load leave the process alive and the lock free', async () => {
  const run = child(`
    const { Worker } = require('node:worker_threads');
    const app = mortise.createApp({ name: 'main' });
    (async () => {
      await app.start();
      let heard = 0;
      await app.pubSubManager.subscribe('c', () => { heard++; });
      const one = async () => {
        const worker = new Worker(${JSON.stringify(PROGRAM)}, { eval: true });
        await new Promise((resolve, reject) => { worker.on('message', resolve); worker.on('error', reject); });
        await worker.terminate();
      };
      for (let i = 0; i < 25; i++) await Promise.all([one(), one()]);
      // Whoever held the lock when it was terminated holds it no more: waiting for a lease would take 10 minutes.
      await app.lockManager.runExclusive('shared', async () => undefined);
      console.log(heard > 0);
      await app.stop();
    })();
  `, { environment: { STORAGE_PATH: temporaryFolder() }, deadline: 110_000 });
  expect(await run.exit).toEqual({ code: 0, signal: null, errors: '' });
  expect(run.lines).toEqual(['true']);
});
