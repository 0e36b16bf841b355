'use strict';

const { until } = require('../support');

module.exports = function retries(rules) {
  const { can, testIf, open, held, others } = rules;
  describe('retries', () => {
    test('a failure is tried again up to maxRetries times, 500 ms later each, and is a dead letter then', async () => {
      const queue = await open();
      const attempts = [];
      queue.subscribe('c', {
        concurrency: 0,
        process: (message, { retried }) => {
          attempts.push([message, retried, Date.now()]);
          if (message === 'throws') throw new Error('at once');
          return Promise.reject(new Error('later'));
        },
      });
      await queue.publish('c', 'throws', { maxRetries: 2 });
      await queue.publish('c', 'rejects', { maxRetries: 1 });
      await until(async () => (await queue.deadLetters('c').count()) === 2);
      const of = (kind) => attempts.filter(([message]) => message === kind);
      expect(of('throws').map(([, retried]) => retried)).toEqual([0, 1, 2]);
      expect(of('rejects').map(([, retried]) => retried)).toEqual([0, 1]);
      const times = of('throws').map(([, , time]) => time);
      // A millisecond for the rounding of clocks.
      expect(times[1] - times[0]).toBeGreaterThanOrEqual(499);
      expect(times[2] - times[1]).toBeGreaterThanOrEqual(499);
      expect(rules.logger.lines.filter(({ level }) => level === 'error')).toHaveLength(2);
    });

    test('a message that succeeds when it is tried again is no dead letter; options and headers come back each time', async () => {
      const queue = await open();
      const seen = [];
      queue.subscribe('c', {
        process: async (message, { id, retried, queueOptions }) => {
          seen.push([message, id, retried, queueOptions.headers, queueOptions.own]);
          if (retried < 2) throw new Error('not yet');
        },
      });
      const headers = { traceparent: '00-1', deep: { a: 1 } };
      const id = await queue.publish('c', { n: 1 }, { maxRetries: 3, backoff: { type: 'fixed', delay: 5 }, headers, own: 5 });
      await until(() => seen.length === 3);
      expect(seen).toEqual([0, 1, 2].map((retried) => [{ n: 1 }, id, retried, headers, 5]));
      await others(queue);
      expect(await queue.deadLetters('c').count()).toBe(0);
    });

    testIf(can.retriesStandBehind)('one that is tried again stands behind those that wait then', async () => {
      const queue = await open();
      const order = [];
      const go = held();
      queue.subscribe('c', {
        process: async (message, { retried }) => {
          order.push([message, retried]);
          if (message === 'poor' && retried === 0) throw new Error('no');
          // Long enough that the first is due while the third waits.
          if (message === 1) await go.promise;
        },
      });
      const kept = async () => (await queue.counts('c')).waiting;
      await queue.publish('c', 'poor', { maxRetries: 1, backoff: { type: 'fixed', delay: 10 } });
      await queue.publish('c', 1);
      await queue.publish('c', 2);
      await until(async () => order.length === 2 && (await kept()) === 2);
      go.resolve();
      await until(() => order.length === 4);
      expect(order).toEqual([['poor', 0], [1, 0], [2, 0], ['poor', 1]]);
    });

    test('a fixed backoff pauses as long each time', async () => {
      const queue = await open();
      const times = [];
      queue.subscribe('c', { process: async () => { times.push(Date.now()); throw new Error('no'); } });
      await queue.publish('c', 1, { maxRetries: 2, backoff: { type: 'fixed', delay: 60 } });
      await until(() => times.length === 3);
      expect(Math.min(times[1] - times[0], times[2] - times[1])).toBeGreaterThanOrEqual(59);
    });

    test('an exponential backoff doubles its pauses', async () => {
      const queue = await open();
      const times = [];
      queue.subscribe('c', { process: async () => { times.push(Date.now()); throw new Error('no'); } });
      await queue.publish('c', 1, { maxRetries: 3, backoff: { type: 'exponential', delay: 40 } });
      await until(() => times.length === 4);
      const pauses = [1, 2, 3].map((n) => times[n] - times[n - 1]);
      pauses.forEach((pause, n) => expect(pause).toBeGreaterThanOrEqual(40 * 2 ** n - 1));
    });

    test('max bounds the pauses, and jitter shortens them by its share at most', async () => {
      const queue = await open();
      const times = new Map();
      queue.subscribe('c', {
        concurrency: 0,
        process: async (message, { retried }) => { times.set(`${message} ${retried}`, Date.now()); throw new Error('no'); },
      });
      await queue.publish('c', 'max', { maxRetries: 3, backoff: { type: 'exponential', delay: 3_600_000, max: 20 } });
      await queue.publish('c', 'jitter', { maxRetries: 1, backoff: { type: 'fixed', delay: 200, jitter: 0.5 } });
      await until(() => times.has('max 3') && times.has('jitter 1'));
      expect(times.get('max 3') - times.get('max 0')).toBeGreaterThanOrEqual(57);
      expect(times.get('jitter 1') - times.get('jitter 0')).toBeGreaterThanOrEqual(99);
    });
  });
};
