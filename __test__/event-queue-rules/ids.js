'use strict';

const { until } = require('../support');

module.exports = function ids(rules) {
  const { can, describeIf, open, collect, holding, others, numbers } = rules;
  describeIf(can.dedupes)('ids', () => {
    test('while one with the id waits, is kept back or runs, another is not queued; publish resolves to the id', async () => {
      const queue = await open();
      const runs = holding(queue, 'c');
      const publish = (message, options) => queue.publish('c', message, { id: 'x', ...options });
      expect(await publish('delayed', { delay: 200 })).toBe('x');
      expect(await publish('second')).toBe('x');
      await until(() => runs.length === 1);
      expect(await publish('third')).toBe('x');
      await queue.publish('c', 'waits', { id: 'y' });
      expect(await queue.publish('c', 'another', { id: 'y' })).toBe('y');
      runs[0].resolve();
      await until(() => runs.length === 2);
      runs[1].resolve();
      await others(queue);
      expect(runs.map(({ message }) => message)).toEqual(['delayed', 'waits']);
    });

    test('many with one id at once are one', async () => {
      const queue = await open();
      const runs = holding(queue, 'c', { concurrency: 0 });
      expect(await Promise.all(numbers(20).map((n) => queue.publish('c', n, { id: 'x' })))).toEqual(numbers(20).map(() => 'x'));
      await until(() => runs.length === 1);
      await others(queue);
      expect(runs.map(({ message }) => message)).toEqual([0]);
    });

    test('it is taken while the message waits for its next attempt', async () => {
      const queue = await open();
      const seen = [];
      queue.subscribe('c', { process: async (message, { retried }) => { seen.push([message, retried]); if (retried === 0) throw new Error('no'); } });
      await queue.publish('c', 'first', { id: 'x', maxRetries: 1, backoff: { type: 'fixed', delay: 300 } });
      await until(() => rules.logger.lines.length > 0 && seen.length === 1);
      await queue.publish('c', 'second', { id: 'x' });
      await until(() => seen.length === 2);
      await others(queue);
      expect(seen).toEqual([['first', 0], ['first', 1]]);
    });

    test('it is free again when the message was processed, has died, or was cancelled', async () => {
      const queue = await open();
      const ends = [];
      queue.subscribe('c', { process: async (message) => { ends.push(message); if (message === 'dies') throw new Error('no'); } });
      const free = async () => { const { waiting, running, delayed } = await queue.counts('c'); return !waiting && !running && !delayed; };
      const publish = (message, options) => queue.publish('c', message, { id: 'x', ...options });
      await publish('processed');
      await until(async () => ends.length === 1 && (await free()));
      await publish('dies');
      await until(async () => (await queue.deadLetters('c').count()) === 1 && (await free()));
      await publish('cancelled', { delay: 3_600_000 });
      expect(await queue.cancel('c', 'x')).toBe(true);
      await publish('last');
      await until(() => ends.length === 3);
      expect(ends).toEqual(['processed', 'dies', 'last']);
    });

    test('it counts within its channel', async () => {
      const queue = await open();
      const got = [collect(queue, 'a', { idle: () => false }), collect(queue, 'b')];
      await queue.publish('a', 1, { id: 'x' });
      await queue.publish('b', 2, { id: 'x' });
      await until(() => got[1].length === 1);
    });

    test('it is still taken after close and connect', async () => {
      const queue = await open();
      collect(queue, 'c', { idle: () => false });
      await queue.publish('c', 'waits', { id: 'x' });
      await queue.publish('c', 'delayed', { id: 'y', delay: 500 });
      await queue.close();
      const again = await open();
      const runs = holding(again, 'c', { concurrency: 0 });
      await again.publish('c', 'another', { id: 'x' });
      await again.publish('c', 'another', { id: 'y' });
      await until(() => runs.length === 2);
      await others(again);
      expect(runs.map(({ message, context }) => [message, context.id])).toEqual([['waits', 'x'], ['delayed', 'y']]);
    });
  });
};
