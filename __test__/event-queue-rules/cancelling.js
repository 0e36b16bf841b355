'use strict';

const { rejection, until } = require('../support');

module.exports = function cancelling(rules) {
  const { can, testIf, open, collect, holding, others, logged } = rules;
  describe('cancelling', () => {
    testIf(can.cancelsWaiting)('a message that waits or is kept back never runs', async () => {
      const queue = await open();
      const runs = holding(queue, 'c');
      await queue.publish('c', 'runs');
      await until(() => runs.length === 1);
      const waiting = await queue.publish('c', 'waits');
      const delayed = await queue.publish('c', 'delayed', { delay: 50 });
      await queue.publish('c', 'last');
      expect([await queue.cancel('c', waiting), await queue.cancel('c', delayed)]).toEqual([true, true]);
      expect([await queue.cancel('c', waiting), await queue.cancel('c', delayed)]).toEqual([false, false]);
      runs[0].resolve();
      await until(() => runs.length === 2);
      runs[1].resolve();
      await queue.publish('c', 'end', { delay: 100 });
      await until(() => runs.length === 3);
      expect(runs.map(({ message }) => message)).toEqual(['runs', 'last', 'end']);
      expect(await queue.deadLetters('c').count()).toBe(0);
    });

    testIf(can.cancelsWaiting)('it is gone after close and connect too', async () => {
      const queue = await open();
      collect(queue, 'c', { idle: () => false });
      const id = await queue.publish('c', 'cancelled');
      await queue.publish('c', 'kept');
      expect(await queue.cancel('c', id)).toBe(true);
      await queue.close();
      const again = await open();
      const got = collect(again, 'c');
      await until(() => got.includes('kept'));
      await others(again);
      expect(got).toEqual(['kept']);
    });

    testIf(can.cancelsWaiting)('one that waits for its next attempt is not tried again', async () => {
      const queue = await open();
      const seen = [];
      queue.subscribe('c', { process: async (message) => { seen.push(message); if (message === 'poor') throw new Error('no'); } });
      const id = await queue.publish('c', 'poor', { maxRetries: 5, backoff: { type: 'fixed', delay: 300 } });
      // Until it has failed its signal would abort instead, which ends it as well.
      await until(() => seen.length === 1);
      expect(await queue.cancel('c', id)).toBe(true);
      await queue.publish('c', 'end', { delay: 600 });
      await until(() => seen.includes('end'));
      expect(seen).toEqual(['poor', 'end']);
      expect(await queue.deadLetters('c').count()).toBe(0);
    });

    test('the signal of one that runs aborts; when it fails then it is not tried again and is no dead letter', async () => {
      const queue = await open();
      const seen = [];
      queue.subscribe('c', {
        process: async (message, { signal }) => {
          seen.push(message);
          if (message !== 'cancelled') return;
          await new Promise((aborted) => signal.addEventListener('abort', aborted));
          seen.push(signal.reason.name);
          throw signal.reason;
        },
      });
      const id = await queue.publish('c', 'cancelled', { maxRetries: 3, backoff: { type: 'fixed', delay: 1 } });
      await until(() => seen.length === 1);
      expect(await queue.cancel('c', id)).toBe(true);
      await until(() => seen.length === 2);
      await queue.publish('c', 'end', { delay: 100 });
      await until(() => seen.includes('end'));
      expect(seen).toEqual(['cancelled', 'AbortError', 'end']);
      expect(await queue.deadLetters('c').count()).toBe(0);
      await until(() => logged('info', id));
      expect(rules.logger.lines.filter(({ level }) => level === 'error')).toEqual([]);
      expect(await queue.cancel('c', id)).toBe(false);
    });

    test('one that runs on and resolves counts as processed', async () => {
      const queue = await open();
      const runs = holding(queue, 'c');
      const id = await queue.publish('c', 1, { maxRetries: 3 });
      await until(() => runs.length === 1);
      expect(await queue.cancel('c', id)).toBe(true);
      // Asked for after the cancelling.
      await until(() => runs[0].context.signal.aborted);
      expect(runs[0].context.signal.reason.name).toBe('AbortError');
      await queue.publish('c', 2);
      await others(queue);
      expect(runs.length).toBe(1);
      runs[0].resolve();
      await until(() => runs.length === 2);
      expect(runs[1].message).toBe(2);
      expect(await queue.deadLetters('c').count()).toBe(0);
    });

    test('an unknown message is not there', async () => {
      const queue = await open();
      const got = collect(queue, 'c');
      expect(await queue.cancel('c', 'nobody')).toBe(false);
      const id = await queue.publish('c', 1);
      await until(() => got.length === 1);
      await until(async () => !(await queue.cancel('c', id)));
      expect((await rejection(queue.cancel('c', ''))).name).toBe('TypeError');
    });
  });
};
