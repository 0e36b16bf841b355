'use strict';
// A plugin that creates a cache when it loads, and wraps a query with it.

const assert = require('node:assert/strict');
const { createApp, Plugin } = require('..');

/** Stands for a database. */
const database = {
  queries: 0,
  async findUser(id) {
    this.queries++;
    return { id, name: `user ${id}` };
  },
};

class Users extends Plugin {
  async load() {
    this.cache = await this.app.cacheManager.createCache({ name: 'users', prefix: 'users', ttl: 60_000, max: 1000 });
  }

  find(id) {
    return this.cache.wrap(String(id), () => database.findUser(id));
  }

  async rename(id) {
    await this.cache.del(String(id));
  }
}

(async () => {
  const app = createApp({ name: 'main' });
  const users = app.plugin(Users, { name: 'users' });
  await app.start();
  const found = await Promise.all(Array.from({ length: 100 }, () => users.find(1)));
  assert.deepEqual(found[99], { id: 1, name: 'user 1' });
  assert.equal(database.queries, 1);
  await users.rename(1);
  await users.find(1);
  assert.equal(database.queries, 2);
  await app.stop();
  console.log('100 callers, 1 query; after the change another');
})();
