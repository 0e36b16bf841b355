'use strict';

const { until } = require('../support');

module.exports = function nodes(rules) {
  const { can, testIf, describeIf, open, collect, holding, others, numbers } = rules;
  describeIf(can.sharedStore)('several nodes', () => {
    test('each message is processed once among them', async () => {
      const nodes = [await open(), await open(), await open()];
      const got = nodes.map((node) => collect(node, 'c', { concurrency: 3 }));
      await Promise.all(numbers(300).map((n) => nodes[n % 3].publish('c', n)));
      await until(() => got.flat().length >= 300);
      await others(nodes[0]);
      expect(got.flat().sort((a, b) => a - b)).toEqual(numbers(300));
    });

    test('a node whose idle says no publishes, and the other processes', async () => {
      const [publisher, worker] = [await open(), await open()];
      const none = collect(publisher, 'c', { interval: 5, idle: () => false });
      const got = collect(worker, 'c');
      await Promise.all(numbers(50).map((n) => publisher.publish('c', n)));
      await until(() => got.length === 50);
      expect([got, none]).toEqual([numbers(50), []]);
    });

    test('cancel reaches the node that runs the message', async () => {
      const [worker, other] = [await open(), await open()];
      const seen = [];
      worker.subscribe('c', {
        process: async (message, { signal }) => {
          seen.push(message);
          await new Promise((aborted) => signal.addEventListener('abort', aborted));
          seen.push(signal.reason.name);
          throw signal.reason;
        },
      });
      collect(other, 'c', { idle: () => false });
      const id = await other.publish('c', 'long', { maxRetries: 2, timeout: 60_000 });
      await until(() => seen.length === 1);
      expect(await other.cancel('c', id)).toBe(true);
      await until(() => seen.length === 2);
      expect(seen).toEqual(['long', 'AbortError']);
      await until(async () => !(await other.cancel('c', id)));
      expect(await other.deadLetters('c').count()).toBe(0);
    });

    testIf(can.cancelsWaiting)('what one has published another cancels while it waits', async () => {
      const [first, second] = [await open(), await open()];
      let idle = false;
      const got = collect(first, 'c', { interval: 5, idle: () => idle });
      collect(second, 'c', { idle: () => false });
      const id = await first.publish('c', 'cancelled');
      await first.publish('c', 'kept');
      expect(await second.cancel('c', id)).toBe(true);
      idle = true;
      await until(() => got.length === 1);
      expect(got).toEqual(['kept']);
    });

    testIf(can.dedupes)('an id is taken on all of them', async () => {
      const [first, second] = [await open(), await open()];
      const runs = holding(first, 'c');
      collect(second, 'c', { idle: () => false });
      await first.publish('c', 1, { id: 'x' });
      expect(await second.publish('c', 2, { id: 'x' })).toBe('x');
      await until(() => runs.length === 1);
      expect(await second.publish('c', 3, { id: 'x' })).toBe('x');
      runs[0].resolve();
      await until(async () => { const { running, waiting } = await second.counts('c'); return !running && !waiting; });
      expect(runs.map(({ message }) => message)).toEqual([1]);
    });

    test('a closed node hands back what it has not begun and what it could not finish', async () => {
      const [leaving, staying] = [await open({ closeTimeout: 100 }), await open()];
      const runs = holding(leaving, 'c', { concurrency: 2 });
      let idle = false;
      const got = collect(staying, 'c', { interval: 5, idle: () => idle });
      for (const n of numbers(6)) await staying.publish('c', n);
      await until(() => runs.length === 2);
      const closing = leaving.close();
      runs[0].resolve();
      await closing;
      idle = true;
      const finished = runs[0].message;
      const rest = numbers(6).filter((n) => n !== finished);
      await until(() => rest.every((n) => got.includes(n)));
      expect([...got].sort()).toEqual(rest);
    });

    test('a pause holds on all of them, and on one that connects later', async () => {
      const [first, second] = [await open(), await open()];
      const got = [collect(first, 'c', { interval: 5 }), collect(second, 'c', { interval: 5 })];
      await first.pause('c');
      await until(async () => (await second.counts('c')).paused);
      const third = await open();
      got.push(collect(third, 'c', { interval: 5 }));
      await second.publish('c', 1);
      for (const node of [first, second, third]) await others(node);
      expect(got.flat()).toEqual([]);
      expect((await third.counts('c')).paused).toBe(true);
      await third.resume('c');
      await until(() => got.flat().length === 1);
    });

    test('dead letters of one are listed and replayed by another', async () => {
      const [worker, other] = [await open(), await open()];
      let broken = true;
      const got = [];
      worker.subscribe('c', { process: async (message) => { if (broken) throw new Error('broken'); got.push(message); } });
      collect(other, 'c', { idle: () => false });
      const id = await worker.publish('c', 1);
      const letters = other.deadLetters('c');
      await until(async () => (await letters.count()) === 1);
      expect((await letters.list()).map((letter) => [letter.id, letter.error])).toEqual([[id, 'broken']]);
      broken = false;
      expect(await letters.replay(id)).toBe(1);
      await until(() => got.length === 1);
      expect(await worker.deadLetters('c').count()).toBe(0);
    });

    test('counts are those of all nodes', async () => {
      const [first, second] = [await open(), await open()];
      const runs = [holding(first, 'c'), holding(second, 'c')];
      for (const n of numbers(5)) await first.publish('c', n);
      await until(() => runs.flat().length === 2);
      for (const node of [first, second]) {
        await until(async () => {
          const { waiting, running } = await node.counts('c');
          return waiting === 3 && (!can.countsRunning || running === 2);
        });
      }
    });

    test('apps do not see each other\'s channels, except shared ones', async () => {
      const [one, two] = [await open(), await open({ name: `${rules.app}-two` })];
      const own = [collect(one, 'c'), collect(two, 'c')];
      const channel = `shared of ${rules.app}`;
      const shared = [collect(one, channel, { shared: true, idle: () => false }), collect(two, channel, { shared: true })];
      for (const n of numbers(10)) {
        await one.publish('c', n);
        await one.publish(channel, n);
      }
      await until(() => own[0].length === 10 && shared[1].length === 10);
      expect([own[1], shared[0]]).toEqual([[], []]);
    });

    test('a message that waits when a node connects is processed by it', async () => {
      const publisher = await open();
      collect(publisher, 'c', { idle: () => false });
      await publisher.publish('c', 1);
      await publisher.publish('c', 2, { delay: 100 });
      const worker = await open();
      const got = collect(worker, 'c');
      await until(() => got.length === 2);
    });
  });
};
