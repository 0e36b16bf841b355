'use strict';
const { MemoryPubSubAdapter, PubSubManager } = require('..');
const { child, gate, recorder, rejection, temporaryFolder, until } = require('./support');

let bus;
let count = 0;
let logger;
const open = [];
beforeEach(() => {
  bus = `bus ${count++}`;
  logger = recorder();
});
afterEach(() => Promise.all(open.splice(0).map((manager) => manager.close())));

/** A connected manager on the test's bus. */
const make = async (options = {}, name = 'main') => {
  const manager = new PubSubManager({ name, logger }, { adapter: 'memory', bus, ...options });
  open.push(manager);
  await manager.connect();
  return manager;
};

/** Publishes an end mark on the channel and waits until `manager` has heard it: all before it has been delivered by then. */
const settled = async (from, to) => {
  const { promise, resolve } = gate();
  await to.subscribe('end', resolve);
  await from.publish('end', 1, { skipSelf: false });
  await promise;
};

/** An adapter as a plugin author would write one; those with the same wire hear each other. */
const jsAdapter = (wire = new Map()) => {
  let connected = false;
  const calls = [];
  return {
    wire, calls,
    isConnected: async () => connected,
    connect: async () => { calls.push('connect'); connected = true; },
    close: async () => { calls.push('close'); connected = false; wire.clear(); },
    subscribe: async (channel, callback) => {
      calls.push(`subscribe ${channel}`);
      wire.set(channel, [...(wire.get(channel) ?? []), callback]);
    },
    unsubscribe: async (channel, callback) => {
      calls.push(`unsubscribe ${channel}`);
      wire.set(channel, (wire.get(channel) ?? []).filter((other) => other !== callback));
    },
    publish: async (channel, text) => {
      calls.push(`publish ${channel} ${text}`);
      for (const callback of wire.get(channel) ?? []) await callback(text);
    },
  };
};

describe('delivery', () => {
  test('a message reaches all who subscribed, each with an object of its own', async () => {
    const [a, b, c] = [await make(), await make(), await make()];
    const got = [];
    for (const manager of [b, c, c]) await manager.subscribe('ch', (message) => { message.mine = true; got.push(message); });
    await c.subscribe('other', () => got.push('wrong channel'));
    await a.publish('ch', { x: [1, 'ü', '😀', null] });
    await settled(a, b);
    await settled(a, c);
    expect(got).toEqual(Array(3).fill({ x: [1, 'ü', '😀', null], mine: true }));
    expect(new Set(got).size).toBe(3);
  });

  test('10 000 messages arrive in order', async () => {
    const [a, b] = [await make(), await make()];
    const got = [];
    await b.subscribe('ch', (n) => got.push(n));
    for (let n = 0; n < 10_000; n++) {
      const sent = a.publish('ch', n);
      if (n % 3 === 0) await sent;
    }
    await until(() => got.length === 10_000);
    expect(got).toEqual(Array.from({ length: 10_000 }, (_, n) => n));
  });

  test.each([
    [undefined, {}, ['a', 'b']],
    [undefined, { skipSelf: true }, ['b']],
    [true, {}, ['b']],
    [true, { skipSelf: false }, ['a', 'b']],
    [false, { onlySelf: true }, ['a']],
    [true, { onlySelf: true, skipSelf: true }, ['a']],
  ])('manager skipSelf %p, call %j: heard by %j', async (skipSelf, options, expected) => {
    const [a, b] = [await make({ skipSelf }), await make()];
    const got = [];
    await a.subscribe('ch', () => got.push('a'));
    await b.subscribe('ch', () => got.push('b'));
    await a.publish('ch', 1, options);
    await settled(a, a);
    await settled(a, b);
    expect(got.sort()).toEqual(expected);
  });

  test('undefined, null, 0 and an empty string are messages', async () => {
    const [a, b] = [await make(), await make()];
    const got = [];
    await b.subscribe('ch', (message) => got.push(message));
    for (const message of [undefined, null, 0, '', false, '\ud800']) await a.publish('ch', message);
    await until(() => got.length === 6);
    expect(got).toEqual([undefined, null, 0, '', false, '\ud800']);
  });

  test('apps of other names, and other prefixes, do not hear each other', async () => {
    const [a, b, c, d] = [await make(), await make({}, 'other'), await make({ channelPrefix: 'p' }), await make()];
    const got = [];
    for (const [name, manager] of Object.entries({ b, c, d })) await manager.subscribe('ch', () => got.push(name));
    await a.publish('ch', 1);
    for (const manager of [d]) await settled(a, manager);
    expect(got).toEqual(['d']);
    expect(c.getFullChannel('ch')).toBe('main.p.ch');
  });
});

describe('subscriptions', () => {
  test('the same callback again leaves one subscription, the newer', async () => {
    const [a, b] = [await make(), await make()];
    const callback = jest.fn();
    await b.subscribe('ch', callback, { debounce: 60_000 });
    await b.subscribe('ch', callback);
    await a.publish('ch', 1);
    await settled(a, b);
    expect(callback).toHaveBeenCalledTimes(1);
  });

  test('after unsubscribe nothing arrives, and others still hear', async () => {
    const [a, b] = [await make(), await make()];
    const [gone, stays] = [jest.fn(), jest.fn()];
    await b.subscribe('ch', gone);
    await b.subscribe('ch', stays);
    await b.unsubscribe('ch', gone);
    await b.unsubscribe('ch', gone);
    await b.unsubscribe('never', gone);
    await a.publish('ch', 1);
    await settled(a, b);
    expect([gone.mock.calls.length, stays.mock.calls.length]).toEqual([0, 1]);
  });

  test('a subscriber that throws or rejects is logged with its channel, and harms nobody', async () => {
    const [a, b] = [await make(), await make()];
    const heard = [];
    for (const debounce of [0, 10]) {
      await b.subscribe('ch', () => { throw new Error(`thrown ${debounce}`); }, { debounce });
      await b.subscribe('ch', async () => { throw new Error(`rejected ${debounce}`); }, { debounce });
      await b.subscribe('ch', () => heard.push(debounce), { debounce });
    }
    await a.publish('ch', 1);
    await until(() => heard.length === 2 && logger.lines.length === 4);
    expect(logger.lines.every(({ level, message }) => level === 'error' && message.includes('main.ch'))).toBe(true);
    expect(logger.lines.map(({ details }) => details.message).sort()).toEqual(['rejected 0', 'rejected 10', 'thrown 0', 'thrown 10']);
  });

  test('connecting many times leaves one subscription; what was subscribed before is heard', async () => {
    const a = await make();
    const b = new PubSubManager({ name: 'main', logger }, { adapter: 'memory', bus });
    open.push(b);
    const callback = jest.fn();
    await b.subscribe('ch', callback);
    await Promise.all([b.connect(), b.connect()]);
    await b.connect();
    await a.publish('ch', 1);
    await settled(a, b);
    expect(callback).toHaveBeenCalledTimes(1);
    await b.close();
    await b.connect();
    await a.publish('ch', 2);
    await settled(a, b);
    expect(callback).toHaveBeenCalledTimes(2);
  });
});

describe('debounce', () => {
  test('equal messages become one call at the window\'s end, different ones do not affect each other', async () => {
    const [a, b] = [await make(), await make()];
    const got = [];
    const second = [];
    await b.subscribe('ch', (message) => got.push(message), { debounce: 500 });
    await b.subscribe('ch', (message) => second.push(message), { debounce: 500 });
    for (const message of [{ x: 1, y: 2 }, { y: 2, x: 1 }, { x: 2 }, { x: 1, y: 2 }]) await a.publish('ch', message);
    await settled(a, b);
    expect(b.handlerManager.uniqueMessageHandlers.size).toBe(4);
    expect(got).toEqual([]);
    await until(() => second.length === 2 && got.length === 2);
    expect(got).toEqual([{ x: 1, y: 2 }, { x: 2 }]);
    expect(b.handlerManager.uniqueMessageHandlers.size).toBe(0);
    await a.publish('ch', { x: 2 });
    await until(() => got.length === 3);
  });

  test('leading: the first at once, and another at the end only if more came', async () => {
    const [a, b] = [await make(), await make()];
    const got = [];
    await b.subscribe('ch', (message) => got.push(message.n), { debounce: 500, leading: true });
    await a.publish('ch', { n: 1 });
    await a.publish('ch', { n: 2 });
    await a.publish('ch', { n: 2 });
    await settled(a, b);
    expect(got).toEqual([1, 2]);
    await until(() => b.handlerManager.uniqueMessageHandlers.size === 0);
    await settled(a, b);
    expect(got).toEqual([1, 2, 2]);
  });

  test('unsubscribe and close cancel open windows', async () => {
    const [a, b] = [await make(), await make()];
    const [first, second, third] = [jest.fn(), jest.fn(), jest.fn()];
    await b.subscribe('ch', first, { debounce: 400 });
    await b.subscribe('ch', second, { debounce: 400 });
    await a.publish('ch', 1);
    await until(() => b.handlerManager.uniqueMessageHandlers.size === 2);
    await b.unsubscribe('ch', first);
    expect(b.handlerManager.uniqueMessageHandlers.size).toBe(1);
    await until(() => second.mock.calls.length === 1);
    expect(first).not.toHaveBeenCalled();
    await b.subscribe('ch', third, { debounce: 400 });
    await a.publish('ch', 2);
    await until(() => b.handlerManager.uniqueMessageHandlers.size === 2);
    const closing = b.close();
    expect(b.handlerManager.uniqueMessageHandlers.size).toBe(0);
    await closing;
    await b.close();
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect([second.mock.calls.length, third.mock.calls.length]).toEqual([1, 0]);
  });
});

describe('close and errors', () => {
  test('nothing is delivered from the call of close on', async () => {
    const [a, b] = [await make(), await make()];
    const got = [];
    await b.subscribe('ch', (n) => got.push(n));
    for (let n = 0; n < 100; n++) void a.publish('ch', n);
    await new Promise(setImmediate);
    const closing = b.close();
    const before = got.length;
    await closing;
    await settled(a, a);
    await new Promise(setImmediate);
    expect(got.length).toBe(before);
  });

  test('not connected, publish warns and resolves', async () => {
    for (const adapter of ['memory', undefined, jsAdapter()]) {
      logger.lines.length = 0;
      const manager = new PubSubManager({ name: 'main', logger }, { adapter });
      await manager.publish('ch', 1);
      expect(logger.lines).toEqual([expect.objectContaining({ level: 'warn', message: expect.stringContaining('main.ch') })]);
      expect(await manager.isConnected()).toBe(false);
      await manager.close();
    }
    const none = new PubSubManager({ name: 'main', logger });
    await none.connect();
    expect(await none.isConnected()).toBe(false);
  });

  test('what JSON cannot hold rejects, naming the channel', async () => {
    const a = await make();
    const cyclic = {};
    cyclic.self = cyclic;
    for (const message of [cyclic, 1n, { toJSON() { throw new Error('mine'); } }]) {
      const error = await rejection(a.publish('ch', message));
      expect([error.code, error.message.includes('ch'), error.cause !== undefined]).toEqual(['E_NOT_SERIALIZABLE', true, true]);
    }
  });

  test('bad channels, callbacks, windows and adapters are TypeErrors', async () => {
    const a = await make();
    for (const bad of [undefined, null, 5, '', {}]) {
      for (const call of [() => a.publish(bad, 1), () => a.subscribe(bad, () => 1), () => a.unsubscribe(bad, () => 1)]) {
        expect((await rejection(call())).name).toBe('TypeError');
      }
    }
    expect((await rejection(a.subscribe('ch', 5))).name).toBe('TypeError');
    for (const debounce of [NaN, -1, '5']) expect((await rejection(a.subscribe('ch', () => 1, { debounce }))).name).toBe('TypeError');
    await a.subscribe('ch', () => 1, { debounce: Infinity });
    expect(() => a.setAdapter({})).toThrow(expect.objectContaining({ name: 'TypeError' }));
    expect(() => new PubSubManager({ name: 'main' }, { adapter: 'nats' })).toThrow(expect.objectContaining({ code: 'E_ADAPTER_UNAVAILABLE' }));
  });
});

describe('an adapter written in JavaScript', () => {
  test('carries the reference\'s text, and two managers on it understand each other', async () => {
    const wire = new Map();
    const adapters = [jsAdapter(wire), jsAdapter(wire)];
    const [a, b] = await Promise.all(adapters.map((adapter) => make({ adapter })));
    const got = [];
    await b.subscribe('ch', (message) => got.push(['b', message]));
    await b.subscribe('ch', (message) => got.push(['b again', message]));
    await a.subscribe('ch', (message) => got.push(['a', message]));
    await a.publish('ch', { x: 1 }, { skipSelf: true });
    await until(() => got.length === 2);
    expect(got).toEqual([['b', { x: 1 }], ['b again', { x: 1 }]]);
    expect(adapters[0].calls.at(-1)).toBe(`publish main.ch {"publisherId":"${a.publisherId}","skipSelf":true,"message":{"x":1}}`);
    // As another implementation may write it.
    for (const callback of wire.get('main.ch')) callback('{"message":[5],"publisherId":"theirs"}');
    await until(() => got.length === 5);
  });

  test('is subscribed once a channel, and unsubscribed with the last subscriber', async () => {
    const adapter = jsAdapter();
    const a = await make({ adapter });
    const [one, two] = [() => 1, () => 2];
    await a.subscribe('ch', one);
    await a.subscribe('ch', two);
    await a.connect();
    await a.unsubscribe('ch', one);
    await a.unsubscribe('ch', two);
    expect(adapter.calls).toEqual(['connect', 'subscribe main.ch', 'unsubscribe main.ch']);
    await a.subscribe('ch', one);
    await a.close();
    await a.connect();
    expect(adapter.calls.slice(3)).toEqual(['subscribe main.ch', 'close', 'connect', 'subscribe main.ch']);
  });

  test('a text that is no message is logged and dropped', async () => {
    const adapter = jsAdapter();
    const a = await make({ adapter });
    const callback = jest.fn();
    await a.subscribe('ch', callback);
    for (const text of ['no json', '[]', '5']) for (const hear of adapter.wire.get('main.ch')) hear(text);
    await until(() => logger.lines.length === 3);
    expect(logger.lines.every(({ level, message }) => level === 'warn' && message.includes('main.ch'))).toBe(true);
    expect(callback).not.toHaveBeenCalled();
  });

  test('its failures reject', async () => {
    const a = await make({ adapter: { ...jsAdapter(), isConnected: () => true, publish: async () => { throw new Error('away'); } } });
    expect((await rejection(a.publish('ch', 1))).message).toBe('away');
  });
});

test('the memory adapter can be used by itself', async () => {
  const [a, b] = [new MemoryPubSubAdapter({ bus }), new MemoryPubSubAdapter({ bus })];
  expect((await rejection(a.publish('ch', 'x'))).code).toBe('E_CLOSED');
  await Promise.all([a.connect(), b.connect()]);
  const got = [];
  const callback = (text) => got.push(text);
  await b.subscribe('ch', callback);
  await a.publish('ch', 'one');
  await until(() => got.length === 1);
  await b.unsubscribe('ch', callback);
  const passed = gate();
  await a.subscribe('ch', passed.resolve);
  await a.publish('ch', 'two');
  await passed.promise;
  await b.subscribe('ch', callback);
  await a.publish('ch', 'three');
  await until(() => got.length === 2);
  expect(got).toEqual(['one', 'three']);
  await Promise.all([a.close(), b.close()]);
});

test('a process delivers what is on its way, and exits by itself with subscriptions and windows open', async () => {
  const run = child(`
    const make = () => new mortise.PubSubManager({ name: 'main' }, { adapter: 'memory' });
    (async () => {
      const [a, b] = [make(), make()];
      await a.connect();
      await b.connect();
      await b.subscribe('ch', (n) => console.log(n));
      await b.subscribe('ch', () => console.log('never'), { debounce: 60000 });
      await a.publish('ch', 1);
    })();
  `, { environment: { STORAGE_PATH: temporaryFolder() } });
  expect(await run.exit).toEqual({ code: 0, signal: null, errors: '' });
  expect(run.lines).toEqual(['1']);
});
