'use strict';

const { rejection, until } = require('../support');

module.exports = function processing(rules) {
  const { make, open, collect, holding, others, logged, numbers } = rules;
  describe('processing', () => {
    test('messages begin in the order in which they were published', async () => {
      const queue = await open();
      const got = collect(queue, 'c');
      await Promise.all(numbers(500).map((n) => queue.publish('c', n)));
      await until(() => got.length === 500);
      expect(got).toEqual(numbers(500));
    });

    test('a handler is told the id, the retries, the signal and the options', async () => {
      const queue = await open();
      const runs = holding(queue, 'c');
      const id = await queue.publish('c', 'hello', { headers: { trace: { a: [1] } }, own: 'mine' });
      await until(() => runs.length === 1);
      const [{ message, context }] = runs;
      expect([message, context.id, context.retried, context.signal.aborted]).toEqual(['hello', id, 0, false]);
      expect(context.queueOptions).toMatchObject({ headers: { trace: { a: [1] } }, own: 'mine', timeout: 15_000, maxRetries: 0 });
      expect(Math.abs(Date.now() - context.queueOptions.timestamp)).toBeLessThan(60_000);
    });

    test.each([[1, 1], [3, 3], [0, 20], [-1, 20]])('with concurrency %i as many run at once as may', async (concurrency, most) => {
      const queue = await open();
      const runs = holding(queue, 'c', { concurrency });
      await Promise.all(numbers(20).map((n) => queue.publish('c', n)));
      await until(() => runs.length === most);
      for (let i = 0; i < 20; i++) {
        await until(() => runs.length > i);
        expect(runs.length - i).toBeLessThanOrEqual(most);
        runs[i].resolve();
      }
      expect(runs.map(({ message }) => message)).toEqual(numbers(20));
    });

    test('the next begins when a slot is free and a message when it comes, without waiting for the interval', async () => {
      const queue = await open();
      const got = collect(queue, 'c', { interval: 1e9, idle: () => true });
      await Promise.all([queue.publish('c', 0), queue.publish('c', 1)]);
      await until(() => got.length === 2);
      await queue.publish('c', 2);
      await until(() => got.length === 3);
    });

    test('while idle says no nothing is fetched, and it is asked again', async () => {
      const queue = await open();
      let idle = false;
      let asked = 0;
      const got = collect(queue, 'c', { interval: 5, idle: () => { asked++; return idle; } });
      await queue.publish('c', 1);
      const before = asked;
      await until(() => asked > before + 3);
      expect(got).toEqual([]);
      idle = true;
      await until(() => got.length === 1);
    });

    test('an idle that throws counts as no, and is logged', async () => {
      const queue = await open();
      let broken = true;
      const got = collect(queue, 'c', { interval: 5, idle: () => { if (broken) throw new Error('idle broke'); return true; } });
      await queue.publish('c', 1);
      await until(() => rules.logger.lines.some(({ details }) => details?.message === 'idle broke'));
      expect(got).toEqual([]);
      broken = false;
      await until(() => got.length === 1);
    });

    test('the second subscription of a channel is ignored with a warning', async () => {
      const queue = await open();
      const first = collect(queue, 'c');
      const second = collect(queue, 'c');
      expect(logged('warn', '"c"')).toBe(true);
      for (const n of numbers(10)) await queue.publish('c', n);
      await until(() => first.length === 10);
      expect(second).toEqual([]);
    });

    test.each([[false], [true]])('unsubscribe stops fetching, and what waits is kept for the next subscription (shared: %p)', async (shared) => {
      const queue = await open();
      const channel = `${rules.app} c`;
      const runs = holding(queue, channel, { shared });
      await queue.publish(channel, 1);
      await queue.publish(channel, 2);
      await until(() => runs.length === 1);
      queue.unsubscribe(channel);
      queue.unsubscribe(channel);
      expect((await rejection(queue.publish(channel, 3))).code).toBe('E_NOT_SUBSCRIBED');
      runs[0].resolve();
      await others(queue);
      expect(runs.length).toBe(1);
      const got = collect(queue, channel, { shared });
      await until(() => got.length === 1);
      expect(got).toEqual([2]);
    });

    test('what still runs of a subscription that was ended ends for itself, not for what runs of the next', async () => {
      const queue = await open();
      const old = holding(queue, 'c', { concurrency: 2 });
      await queue.publish('c', 'old');
      await until(() => old.length === 1);
      queue.unsubscribe('c');
      const runs = holding(queue, 'c', { concurrency: 2 });
      await queue.publish('c', 'new', { maxRetries: 1, backoff: { type: 'fixed', delay: 1 } });
      await until(() => runs.length === 1);
      old[0].resolve();
      await others(queue);
      runs[0].reject(new Error('no'));
      await until(() => runs.length === 2);
      expect([runs[1].message, runs[1].context.retried]).toEqual(['new', 1]);
      runs[1].resolve();
      await queue.close();
      const again = await open();
      const got = collect(again, 'c');
      await again.publish('c', 'end');
      await until(() => got.includes('end'));
      expect(got).toEqual(['end']);
    });

    test('connecting several times leaves one consumer', async () => {
      const queue = await make();
      const runs = holding(queue, 'c');
      await Promise.all([queue.connect(), queue.connect()]);
      await queue.connect();
      await queue.publish('c', 1);
      await queue.publish('c', 2);
      await until(() => runs.length === 1);
      await others(queue);
      expect(runs.length).toBe(1);
      runs[0].resolve();
      await until(() => runs.length === 2);
      runs[1].resolve();
      await until(async () => (await queue.counts('c')).waiting === 0);
      expect(runs.map(({ message }) => message)).toEqual([1, 2]);
    });
  });
};
