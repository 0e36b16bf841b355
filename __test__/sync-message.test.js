'use strict';
const { createApp, Plugin } = require('..');
const { DataTypes, Sequelize } = require('sequelize');
const { gate, recorder, rejection, temporaryFolder, until } = require('./support');

const apps = [];
beforeEach(() => { process.env.STORAGE_PATH = temporaryFolder(); });
afterEach(async () => {
  jest.useRealTimers();
  await Promise.all(apps.splice(0).map((app) => app.stop()));
  delete process.env.STORAGE_PATH;
});

/** Two started apps with a plugin on each; what the plugin heard is in `heard`. */
const makePair = async (options = { syncMessageManager: { debounce: 20 } }) => {
  const bus = `sync ${Math.random()}`;
  class Listening extends Plugin {
    heard = [];
    async handleSyncMessage(message) { this.heard.push(message); }
  }
  const pair = [0, 1].map(() => {
    const app = createApp({ name: 'main', logger: recorder(), pubSubManager: { bus }, ...options });
    apps.push(app);
    return app.plugin(Listening, { name: 'p' });
  });
  for (const { app } of pair) await app.start();
  return pair;
};

/** A transaction as an ORM other than Sequelize may have it. */
const makeTransaction = () => {
  const hooks = [];
  return { afterCommit: (hook) => hooks.push(hook), commit: async () => { for (const hook of hooks) await hook(); } };
};

test('a plugin hears what it sent on other nodes, and not its own', async () => {
  const [a, b] = await makePair();
  await a.sendSyncMessage({ x: 1 });
  await until(() => b.heard.length === 1);
  await b.sendSyncMessage({ y: 1 });
  await until(() => a.heard.length === 1);
  expect([a.heard, b.heard]).toEqual([[{ y: 1 }], [{ x: 1 }]]);
});

test('equal messages within the debounce time are heard once', async () => {
  const [a, b] = await makePair({ syncMessageManager: { debounce: 500 } });
  await Promise.all([a.sendSyncMessage(1), a.sendSyncMessage(1), a.sendSyncMessage(2), a.sendSyncMessage(1)]);
  await until(() => b.heard.length === 2);
  await until(() => b.app.pubSubManager.handlerManager.uniqueMessageHandlers.size === 0);
  expect(b.heard).toEqual([1, 2]);
});

test('publish, subscribe and unsubscribe work by themselves', async () => {
  const [a, b] = await makePair();
  const got = [];
  const callback = (message) => got.push(message);
  await b.app.syncMessageManager.subscribe('ch', callback);
  await a.app.syncMessageManager.publish('ch', 1);
  await until(() => got.length === 1);
  await b.app.syncMessageManager.unsubscribe('ch', callback);
  const marked = gate();
  await b.app.syncMessageManager.subscribe('mark', marked.resolve);
  await a.app.syncMessageManager.publish('ch', 2);
  await a.app.syncMessageManager.publish('mark', 1);
  await marked.promise;
  expect(got).toEqual([1]);
  expect((await rejection(a.app.syncMessageManager.publish('', 1))).name).toBe('TypeError');
  expect((await rejection(a.app.syncMessageManager.publish('ch', 1, { transaction: {} }))).name).toBe('TypeError');
});

test('nothing is handled once the app has stopped, or its database is closed', async () => {
  const [a, b] = await makePair({ syncMessageManager: { debounce: 300 } });
  let asked = false;
  b.app.db = { closed: () => (asked = true) };
  await a.sendSyncMessage('while closed');
  await until(() => asked);
  b.app.db = { closed: () => false };
  await a.sendSyncMessage('after');
  await until(() => b.heard.length > 0);
  expect(b.heard).toEqual(['after']);
});

describe('in a transaction', () => {
  test('a message is published after the commit, and the promise resolves then', async () => {
    const [a, b] = await makePair();
    const transaction = makeTransaction();
    let sent = false;
    const sending = a.app.syncMessageManager.publish('p', 1, { transaction }).then(() => { sent = true; });
    await new Promise((resolve) => setTimeout(resolve, 40));
    expect([sent, b.heard]).toEqual([false, []]);
    await transaction.commit();
    await sending;
    await until(() => b.heard.length === 1);
  });

  test('a transaction that never ends is given up after 50 s', async () => {
    const [a] = await makePair();
    jest.useFakeTimers({ doNotFake: ['setImmediate', 'queueMicrotask', 'nextTick', 'performance', 'Date'] });
    const sending = rejection(a.app.syncMessageManager.publish('ch', { x: 1 }, { transaction: makeTransaction() }));
    jest.advanceTimersByTime(50_000);
    const error = await sending;
    expect(error.message).toBe('Publish message to ch timeout, channel: ch, message: {"x":1}');
    expect(error.code).toBe('E_TRANSACTION_TIMEOUT');
  });

  test('one that was rolled back before is told at once', async () => {
    const [a] = await makePair();
    const transaction = { ...makeTransaction(), finished: 'rollback' };
    expect((await rejection(a.app.syncMessageManager.publish('ch', 1, { transaction }))).code).toBe('E_TRANSACTION_ROLLED_BACK');
  });

  describe('of Sequelize', () => {
    let sequelize;
    let Item;
    beforeEach(async () => {
      sequelize = new Sequelize({
        dialect: 'sqlite', dialectModule: require('../examples/demo/sqlite.cjs'), storage: `${temporaryFolder()}/db`, logging: false,
      });
      Item = sequelize.define('item', { name: DataTypes.STRING });
      await sequelize.sync();
    });
    afterEach(() => sequelize.close());

    test('managed: heard after the commit, never after a rollback', async () => {
      const [a, b] = await makePair();
      let rolledBack;
      await rejection(sequelize.transaction(async (transaction) => {
        await Item.create({ name: 'x' }, { transaction });
        rolledBack = rejection(a.app.syncMessageManager.publish('p', 'rolled back', { transaction }));
        throw new Error('no');
      }));
      expect((await rolledBack).code).toBe('E_TRANSACTION_ROLLED_BACK');
      await sequelize.transaction(async (transaction) => {
        await Item.create({ name: 'y' }, { transaction });
        void a.sendSyncMessage('committed', { transaction });
        void a.sendSyncMessage('committed too', { transaction });
      });
      await until(() => b.heard.length === 2);
      expect(b.heard).toEqual(['committed', 'committed too']);
    });

    test('unmanaged: commit publishes, rollback rejects; sendSyncMessage logs it', async () => {
      const [a, b] = await makePair();
      const first = await sequelize.transaction();
      const sending = a.sendSyncMessage('first', { transaction: first });
      await first.commit();
      await sending;
      const second = await sequelize.transaction();
      const failing = [a.sendSyncMessage('second', { transaction: second }), a.sendSyncMessage('third', { transaction: second })];
      await second.rollback();
      await Promise.all(failing);
      expect(a.app.logger.lines.filter(({ details }) => details?.code === 'E_TRANSACTION_ROLLED_BACK')).toHaveLength(2);
      await until(() => b.heard.length === 1);
      expect(b.heard).toEqual(['first']);
    });
  });
});
