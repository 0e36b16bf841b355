'use strict';

const { gate, rejection, until } = require('../support');

module.exports = function closing(rules) {
  const { open, held, collect, holding, others, numbers } = rules;
  describe('closing', () => {
    test('waits for the running and keeps the rest, for a later connect and for another queue', async () => {
      const queue = await open();
      const runs = holding(queue, 'c');
      for (const n of numbers(4)) await queue.publish('c', n);
      await until(() => runs.length === 1);
      const order = [];
      const closing = queue.close().then(() => order.push('closed'));
      // Long enough for a close that does not wait to be over first.
      setTimeout(() => { order.push('handled'); runs[0].resolve(); }, 100);
      await closing;
      expect(order).toEqual(['handled', 'closed']);
      await queue.close();
      expect(runs.length).toBe(1);
      expect(queue.isConnected()).toBe(false);
      await queue.connect();
      await until(() => runs.length === 2);
      const closingAgain = queue.close();
      runs[1].resolve();
      await closingAgain;
      const again = await open();
      const got = collect(again, 'c');
      await until(() => got.length === 2);
      expect([...runs.map(({ message }) => message), ...got]).toEqual([0, 1, 2, 3]);
    });

    test('what waits survives, in order, with its ids and its retries', async () => {
      const queue = await open();
      let idle = true;
      const failed = gate();
      queue.subscribe('c', { interval: 5, idle: () => idle, process: async () => { idle = false; failed.resolve(); throw new Error('no'); } });
      const ids = [await queue.publish('c', 0, { maxRetries: 5 })];
      await failed.promise;
      for (const n of [1, 2, 3, 4]) ids.push(await queue.publish('c', n, { headers: { n } }));
      await queue.close();
      const again = await open();
      const got = [];
      again.subscribe('c', { process: async (n, { id, retried, queueOptions }) => { got.push([n, id, retried, queueOptions.headers]); } });
      await until(() => got.length === 5);
      expect(got.find(([n]) => n === 0)).toEqual([0, ids[0], 1, undefined]);
      expect(got.filter(([n]) => n > 0)).toEqual([1, 2, 3, 4].map((n) => [n, ids[n], 0, { n }]));
    });

    test('messages without a timeout and with retries without end survive it', async () => {
      const queue = await open();
      collect(queue, 'c', { idle: () => false });
      await queue.publish('c', 1, { timeout: Infinity, maxRetries: Infinity, backoff: { type: 'fixed', delay: 0 } });
      await queue.close();
      const again = await open();
      const seen = [];
      again.subscribe('c', { process: async (_, { retried, signal }) => { seen.push([retried, signal.aborted]); if (retried < 3) throw new Error('no'); } });
      await until(() => seen.length === 4);
      expect(seen).toEqual([0, 1, 2, 3].map((retried) => [retried, false]));
    });

    test('a handler that never settles does not hold it for ever, and its message is processed again', async () => {
      const queue = await open({ closeTimeout: 100 });
      const runs = holding(queue, 'c');
      await queue.publish('c', 'first');
      await queue.publish('c', 'second');
      await until(() => runs.length === 1);
      await queue.close();
      const again = await open();
      const got = collect(again, 'c');
      await until(() => got.length === 2);
      expect([...got].sort()).toEqual(['first', 'second']);
      runs[0].resolve();
      await others(again);
      expect(got.length).toBe(2);
    });

    test('publish during it rejects or is kept, and nothing accepted is lost', async () => {
      const queue = await open();
      const begun = gate();
      const go = held();
      const got = [];
      queue.subscribe('c', { process: async (n) => { begun.resolve(); await go.promise; got.push(n); } });
      await queue.publish('c', 0);
      await begun.promise;
      const closing = queue.close();
      const results = await Promise.allSettled([1, 2].map((n) => queue.publish('c', n)));
      go.resolve();
      await closing;
      const accepted = [0, ...results.flatMap(({ status }, n) => (status === 'fulfilled' ? [n + 1] : []))];
      const again = await open();
      again.subscribe('c', { process: async (n) => { got.push(n); } });
      await until(() => accepted.every((n) => got.includes(n)));
    });

    test('connecting and closing wait for each other, and the last call counts', async () => {
      const queue = await open();
      const got = collect(queue, 'c');
      await Promise.all([queue.close(), queue.connect()]);
      expect([queue.isConnected(), queue.health().state]).toEqual([true, 'ready']);
      await Promise.all([queue.connect(), queue.close(), queue.connect(), queue.close()]);
      expect([queue.isConnected(), queue.health().state]).toEqual([false, 'closed']);
      await queue.connect();
      await queue.publish('c', 1);
      await until(() => got.length === 1);
    });

    test('a closed queue cannot be asked to cancel, pause, resume or count', async () => {
      const queue = await open();
      collect(queue, 'c');
      await queue.close();
      for (const call of [() => queue.cancel('c', 'x'), () => queue.pause('c'), () => queue.resume('c'), () => queue.counts('c')]) {
        expect((await rejection(call())).code).toBe('E_CLOSED');
      }
    });
  });
};
