'use strict';

const { rejection, until } = require('../support');

module.exports = function publishing(rules) {
  const { can, testIf, make, open, collect } = rules;
  describe('publishing', () => {
    test('rejects while it is not connected, and on channels without a subscription', async () => {
      const queue = await make();
      const got = collect(queue, 'c');
      const early = await rejection(queue.publish('c', 1));
      expect([early.message, early.code]).toEqual(['event queue not connected, cannot publish', 'E_CLOSED']);
      await queue.connect();
      const foreign = await rejection(queue.publish('x', 1));
      expect([foreign.message, foreign.code]).toEqual(['event queue not subscribed on channel "x", cannot publish', 'E_NOT_SUBSCRIBED']);
      await queue.publish('c', 2);
      await until(() => got.length === 1);
      await queue.close();
      expect((await rejection(queue.publish('c', 3))).code).toBe('E_CLOSED');
      expect(got).toEqual([2]);
    });

    test('resolves to the message\'s id, which the handler is told', async () => {
      const queue = await open();
      const ids = [];
      queue.subscribe('c', { process: async (_, { id }) => { ids.push(id); } });
      const published = [await queue.publish('c', 1), await queue.publish('c', 2), await queue.publish('c', 3, { id: 'mine: {1}' })];
      expect(new Set(published).size).toBe(3);
      expect(published.every((id) => typeof id === 'string' && id !== '')).toBe(true);
      expect(published[2]).toBe('mine: {1}');
      await until(() => ids.length === 3);
      expect(ids).toEqual(published);
    });

    test('any content arrives as it was sent', async () => {
      const queue = await open();
      const got = collect(queue, 'c');
      const contents = [undefined, null, 0, -1.5, '', false, 'text', '😀 \u0000 "\\', [], {}, [null, [1]], { a: { b: [{ c: null }] }, ü: 1 }];
      for (const content of contents) await queue.publish('c', content);
      await until(() => got.length === contents.length);
      expect(got).toEqual(contents);
    });

    test('a megabyte arrives whole', async () => {
      const queue = await open();
      const got = collect(queue, 'c');
      const text = 'ä'.repeat(2 ** 19);
      await queue.publish('c', { text });
      await until(() => got.length === 1);
      expect(got[0].text === text).toBe(true);
    });

    testIf(can.serializes)('what JSON cannot hold is rejected, naming the channel, and the next goes through', async () => {
      const queue = await open();
      const got = collect(queue, 'ch');
      const cyclic = {};
      cyclic.self = cyclic;
      for (const message of [cyclic, 1n, { deep: [1n] }]) {
        const error = await rejection(queue.publish('ch', message));
        expect(error.code).toBe('E_NOT_SERIALIZABLE');
        expect(error.message).toContain('ch');
      }
      await queue.publish('ch', 'fine');
      await until(() => got.length === 1);
      expect(got).toEqual(['fine']);
    });

    testIf(can.passesObjects)('the message object itself is passed on', async () => {
      const queue = await open();
      const got = collect(queue, 'c');
      const message = { date: new Date() };
      await queue.publish('c', message);
      await until(() => got.length === 1);
      expect(got[0]).toBe(message);
    });

    test.each([['spaces', ' a  b '], ['a colon', 'a:b::c'], ['an at', '@a@b'], ['braces', '{a}{}b}'], ['per cents', '%a%20%%'],
      ['dots and stars', 'a.*.#.>'], ['emoji', '😀📮'], ['300 characters', 'x'.repeat(299) + 'é'], ['300 emoji', '🦀'.repeat(300)]])(
      'a channel name with %s works, and is not mixed up with another', async (_, channel) => {
        const queue = await open();
        const got = collect(queue, channel);
        const gotOther = collect(queue, `${channel}!`);
        await queue.publish(channel, 1);
        await queue.publish(`${channel}!`, 2);
        await until(() => got.length === 1 && gotOther.length === 1);
        expect([got, gotOther]).toEqual([[1], [2]]);
        expect(await queue.cancel(channel, 'nobody')).toBe(false);
        expect((await queue.counts(channel)).waiting).toBe(0);
      });

    test.each([['timeout', NaN], ['timeout', -1], ['maxRetries', '1'], ['delay', -1], ['delay', Infinity], ['id', ''], ['id', 5],
      ['headers', 'x'], ['backoff', {}], ['backoff', { type: 'fixed', delay: -1 }], ['backoff', { type: 'fixed', delay: 1, jitter: 2 }]])(
      '%s of %p rejects with a TypeError', async (option, value) => {
        const queue = await open();
        collect(queue, 'c');
        const error = await rejection(queue.publish('c', 1, { [option]: value }));
        expect([error.name, error.code]).toEqual(['TypeError', 'E_INVALID_ARGUMENT']);
      });
  });
};
