'use strict';

const { until } = require('../support');

module.exports = function delays(rules) {
  const { open, collect, holding } = rules;
  describe('delay', () => {
    test('a message is kept back for as long, and holds nobody up', async () => {
      const queue = await open();
      const got = [];
      queue.subscribe('c', { process: async (message) => { got.push([message, Date.now()]); } });
      const published = Date.now();
      await queue.publish('c', 'late', { delay: 300 });
      await queue.publish('c', 'now');
      await until(() => got.length === 2);
      expect(got.map(([message]) => message)).toEqual(['now', 'late']);
      expect(got[1][1] - published).toBeGreaterThanOrEqual(299);
    });

    test('then it stands at the end of the channel', async () => {
      const queue = await open();
      const runs = holding(queue, 'c');
      await queue.publish('c', 'late', { delay: 1000 });
      await queue.publish('c', 1);
      await queue.publish('c', 2);
      await until(async () => runs.length === 1 && (await queue.counts('c')).waiting === 2);
      runs[0].resolve();
      await until(() => runs.length === 2);
      runs[1].resolve();
      await until(() => runs.length === 3);
      expect(runs.map(({ message }) => message)).toEqual([1, 2, 'late']);
    });

    test('those that are kept back come in the order of their times', async () => {
      const queue = await open();
      const got = collect(queue, 'c');
      await Promise.all([600, 300, 1].map((delay) => queue.publish('c', delay, { delay })));
      await until(() => got.length === 3);
      expect(got).toEqual([1, 300, 600]);
    });

    test('a message that is kept back survives close, comes then, and not early', async () => {
      const queue = await open();
      collect(queue, 'c');
      const published = Date.now();
      await queue.publish('c', 'late', { delay: 700 });
      await queue.publish('c', 'now', { delay: 1 });
      await queue.close();
      const again = await open();
      const got = [];
      again.subscribe('c', { process: async (message) => { got.push([message, Date.now() - published]); } });
      await until(() => got.some(([message]) => message === 'late'));
      expect(got[got.length - 1][1]).toBeGreaterThanOrEqual(699);
    });
  });
};
