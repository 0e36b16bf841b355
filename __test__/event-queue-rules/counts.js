'use strict';

const { until } = require('../support');

module.exports = function counts(rules) {
  const { can, testIf, open, held, collect, fail, numbers } = rules;
  describe('counts', () => {
    test('of a channel without messages are zero', async () => {
      const queue = await open();
      collect(queue, 'c');
      const counts = await queue.counts('c');
      expect(counts).toMatchObject({ waiting: 0, dead: 0, paused: false });
      if (can.countsRunning) expect(counts.running).toBe(0);
      expect(counts.delayed).toBe(can.countsDelayed ? 0 : undefined);
      expect(counts.oldestAge).toBe(can.oldestAge ? 0 : undefined);
    });

    test('tell how many wait, are kept back, run and have died', async () => {
      const queue = await open();
      const go = held();
      let running = 0;
      queue.subscribe('c', { concurrency: 2, process: async (message) => { if (message === 'dies') throw new Error('no'); running++; await go.promise; } });
      await queue.publish('c', 'dies');
      await until(async () => (await queue.counts('c')).dead === 1);
      for (const n of numbers(5)) await queue.publish('c', n);
      for (const n of numbers(4)) await queue.publish('c', n, { delay: 3_600_000 });
      await until(() => running === 2);
      await until(async () => (await queue.counts('c')).waiting === 3);
      const counts = await queue.counts('c');
      expect(counts).toMatchObject({ waiting: 3, dead: 1, paused: false });
      if (can.countsRunning) expect(counts.running).toBe(2);
      if (can.countsDelayed) expect(counts.delayed).toBe(4);
      go.resolve();
      await until(async () => { const now = await queue.counts('c'); return now.waiting === 0 && (!can.countsRunning || now.running === 0); });
    });

    testIf(can.countsDelayed)('a message that waits for its next attempt is kept back', async () => {
      const queue = await open();
      queue.subscribe('c', { process: fail() });
      await queue.publish('c', 1, { maxRetries: 1, backoff: { type: 'fixed', delay: 3_600_000 } });
      await until(async () => (await queue.counts('c')).delayed === 1);
      expect(await queue.counts('c')).toMatchObject({ waiting: 0, dead: 0, oldestAge: can.oldestAge ? 0 : undefined });
    });

    testIf(can.oldestAge)('tell how long the oldest has waited', async () => {
      const queue = await open();
      let idle = false;
      const got = collect(queue, 'c', { interval: 5, idle: () => idle });
      const before = Date.now();
      await queue.publish('c', 1);
      await until(async () => (await queue.counts('c')).oldestAge >= 50);
      await queue.publish('c', 2);
      const { oldestAge } = await queue.counts('c');
      expect(oldestAge).toBeGreaterThanOrEqual(50);
      expect(oldestAge).toBeLessThanOrEqual(Date.now() - before + 1);
      idle = true;
      await until(() => got.length === 2);
      await until(async () => (await queue.counts('c')).oldestAge === 0);
    });
  });
};
