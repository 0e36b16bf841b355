'use strict';

const { gate, until } = require('../support');

module.exports = function timeouts(rules) {
  const { open, held, logged } = rules;
  describe('the timeout', () => {
    test('aborts the signal; the handler keeps its slot and its outcome counts', async () => {
      const queue = await open();
      const go = held();
      const events = [];
      queue.subscribe('c', {
        process: async (message, { signal }) => {
          events.push(`begin ${message}`);
          if (message !== 'slow') return;
          await new Promise((aborted) => signal.addEventListener('abort', aborted));
          events.push(signal.reason.name);
          await go.promise;
          events.push('end slow');
        },
      });
      await queue.publish('c', 'slow', { timeout: 20, maxRetries: 3 });
      await queue.publish('c', 'next');
      await until(() => events.includes('TimeoutError'));
      expect(events).toEqual(['begin slow', 'TimeoutError']);
      await until(() => logged('warn', 'timeout'));
      go.resolve();
      await until(() => events.includes('begin next'));
      expect(events).toEqual(['begin slow', 'TimeoutError', 'end slow', 'begin next']);
      expect(await queue.deadLetters('c').count()).toBe(0);
    });

    test('a handler that fails after it is tried again, with a new signal', async () => {
      const queue = await open();
      const states = [];
      queue.subscribe('c', {
        process: async (_, { signal, retried }) => {
          states.push([retried, signal.aborted]);
          if (retried > 0) return;
          await new Promise((aborted) => signal.addEventListener('abort', aborted));
          throw signal.reason;
        },
      });
      await queue.publish('c', 1, { timeout: 20, maxRetries: 1, backoff: { type: 'fixed', delay: 1 } });
      await until(() => states.length === 2);
      expect(states).toEqual([[0, false], [1, false]]);
    });

    test('a signal that is asked for after the timeout has aborted', async () => {
      const queue = await open();
      const { promise, resolve } = gate();
      queue.subscribe('c', {
        process: async (_, context) => {
          await until(() => logged('warn', 'timeout'));
          resolve(context.signal.reason?.name);
        },
      });
      await queue.publish('c', 1, { timeout: 1 });
      expect(await promise).toBe('TimeoutError');
    });

    test('enormous timeouts and retries work', async () => {
      const queue = await open();
      const signals = [];
      queue.subscribe('c', { process: async (_, { signal, retried }) => { signals.push(signal.aborted); if (retried === 0) throw new Error('once'); } });
      const backoff = { type: 'fixed', delay: 0 };
      await queue.publish('c', 1, { timeout: Number.MAX_VALUE, maxRetries: Infinity, backoff });
      await queue.publish('c', 1, { timeout: Infinity, maxRetries: 1e300, backoff });
      await until(() => signals.length === 4);
      expect(signals).toEqual([false, false, false, false]);
    });
  });
};
