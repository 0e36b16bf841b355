'use strict';

const { until } = require('../support');

module.exports = function deadLetters(rules) {
  const { can, testIf, open, collect, holding, fail } = rules;
  describe('dead letters', () => {
    test('are listed, the oldest first, with what the last attempt failed with', async () => {
      const queue = await open();
      queue.subscribe('c', {
        process: async (message, { retried }) => {
          if (message === 'text') throw 'a text'; // eslint-disable-line no-throw-literal
          throw new Error(`attempt ${retried} of ${message}`);
        },
      });
      const ids = [];
      ids.push(await queue.publish('c', 'a', { maxRetries: 1, backoff: { type: 'fixed', delay: 1 }, headers: { h: 1 } }));
      await until(async () => (await queue.deadLetters('c').count()) === 1);
      ids.push(await queue.publish('c', 'text', { id: 'mine' }));
      await until(async () => (await queue.deadLetters('c').count()) === 2);
      const letters = await queue.deadLetters('c').list();
      expect(letters.map(({ id, content, error }) => [id, content, error])).toEqual([[ids[0], 'a', 'attempt 1 of a'], ['mine', 'text', 'a text']]);
      expect(letters[0].options).toMatchObject({ maxRetries: 1, headers: { h: 1 } });
    });

    test('are replayed, one or all, under their ids and with their retries before them', async () => {
      const queue = await open();
      let broken = true;
      const seen = [];
      queue.subscribe('c', {
        process: async (message, { id, retried, queueOptions }) => {
          seen.push([message, id, retried, queueOptions.headers]);
          if (broken || retried === 0) throw new Error('no');
        },
      });
      const options = (id) => ({ id, maxRetries: 1, backoff: { type: 'fixed', delay: 1 }, headers: { of: id } });
      for (const id of ['a', 'b', 'c']) {
        await queue.publish('c', `message ${id}`, options(id));
        await until(async () => (await queue.deadLetters('c').list()).some((letter) => letter.id === id));
      }
      broken = false;
      seen.length = 0;
      const letters = queue.deadLetters('c');
      expect(await letters.replay('nobody')).toBe(0);
      expect(await letters.replay('b')).toBe(1);
      await until(() => seen.length === 2);
      expect(seen).toEqual([0, 1].map((retried) => ['message b', 'b', retried, { of: 'b' }]));
      expect((await letters.list()).map(({ id }) => id)).toEqual(['a', 'c']);
      expect(await letters.replay()).toBe(2);
      await until(() => seen.length === 6);
      expect(seen.map(([, id]) => id).sort()).toEqual(['a', 'a', 'b', 'b', 'c', 'c']);
      expect(await letters.count()).toBe(0);
    });

    test('are not kept back again when they are replayed', async () => {
      const queue = await open();
      const times = [];
      queue.subscribe('c', { process: async () => { times.push(Date.now()); if (times.length === 1) throw new Error('no'); } });
      const id = await queue.publish('c', 1, { delay: 50 });
      await until(async () => (await queue.deadLetters('c').count()) === 1);
      await queue.publish('c', 2, { delay: 3_600_000 });
      await queue.deadLetters('c').replay(id);
      await until(() => times.length === 2);
    });

    test('are dropped, one or all', async () => {
      const queue = await open();
      queue.subscribe('c', { process: fail() });
      for (const id of ['a', 'b', 'c']) await queue.publish('c', id, { id });
      const letters = queue.deadLetters('c');
      await until(async () => (await letters.count()) === 3);
      expect(await letters.drop('nobody')).toBe(0);
      expect(await letters.drop('b')).toBe(1);
      expect((await letters.list()).map(({ id }) => id)).toEqual(['a', 'c']);
      expect(await letters.drop()).toBe(2);
      expect([await letters.count(), await letters.replay(), await letters.drop()]).toEqual([0, 0, 0]);
    });

    testIf(can.keepsDeadLetters)('survive close, with their errors, and are replayed after it', async () => {
      const queue = await open();
      queue.subscribe('c', { process: fail('poor thing') });
      const id = await queue.publish('c', 'poor');
      await until(async () => (await queue.deadLetters('c').count()) === 1);
      await queue.close();
      const again = await open();
      const runs = holding(again, 'c');
      expect((await again.deadLetters('c').list()).map((letter) => [letter.id, letter.content, letter.error])).toEqual([[id, 'poor', 'poor thing']]);
      expect(await again.deadLetters('c').replay()).toBe(1);
      await until(() => runs.length === 1);
      expect([runs[0].message, runs[0].context.id]).toEqual(['poor', id]);
      runs[0].resolve();
      await again.close();
      const third = await open();
      collect(third, 'c');
      expect(await third.deadLetters('c').count()).toBe(0);
    });
  });
};
