'use strict';

const { until } = require('../support');

module.exports = function pausing(rules) {
  const { open, held, holding, others } = rules;
  describe('pausing', () => {
    test('a paused channel fetches nothing, what runs goes on, others are not touched; resume goes on', async () => {
      const queue = await open();
      const runs = holding(queue, 'c', { interval: 5 });
      await queue.publish('c', 1);
      await until(() => runs.length === 1);
      await queue.pause('c');
      await queue.pause('c');
      await queue.publish('c', 2);
      runs[0].resolve();
      await others(queue);
      expect(runs.length).toBe(1);
      expect(await queue.counts('c')).toMatchObject({ waiting: 1, paused: true });
      await queue.resume('c');
      await queue.resume('c');
      await until(() => runs.length === 2);
      expect(await queue.counts('c')).toMatchObject({ waiting: 0, paused: false });
    });

    test('a retry and a delayed message wait for resume too', async () => {
      const queue = await open();
      const seen = [];
      const go = held();
      queue.subscribe('c', {
        process: async (message, { retried }) => {
          seen.push([message, retried]);
          if (retried > 0 || message !== 'poor') return;
          await go.promise;
          throw new Error('no');
        },
      });
      await queue.publish('c', 'poor', { maxRetries: 1, backoff: { type: 'fixed', delay: 5 } });
      await until(() => seen.length === 1);
      await queue.pause('c');
      go.resolve();
      await queue.publish('c', 'late', { delay: 5 });
      await until(async () => (await queue.counts('c')).waiting === 2);
      await others(queue);
      expect(seen).toEqual([['poor', 0]]);
      await queue.resume('c');
      await until(() => seen.length === 3);
    });
  });
};
