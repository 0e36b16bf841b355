'use strict';
// A plugin that keeps its picture of a schema in step on all nodes. Two apps stand for two nodes.

const assert = require('node:assert/strict');
const { once } = require('node:events');
const { createApp, Plugin } = require('..');

class Schema extends Plugin {
  collections = new Map();

  async define(name, fields) {
    this.collections.set(name, fields);
    await this.sendSyncMessage({ type: 'define', name, fields });
  }

  handleSyncMessage({ type, name, fields }) {
    if (type === 'define') this.collections.set(name, fields);
    this.app.emit('schema changed', name);
  }
}

(async () => {
  const nodes = [0, 1].map(() => createApp({ name: 'main', syncMessageManager: { debounce: 10 } }));
  const [here, there] = nodes.map((app) => app.plugin(Schema, { name: 'schema' }));
  await Promise.all(nodes.map((app) => app.start()));

  // Something must keep a program alive that only waits to hear; in a server its sockets do.
  const alive = setInterval(() => undefined, 1000);
  const changed = once(nodes[1], 'schema changed');
  await here.define('posts', ['id', 'title']);
  await changed;
  clearInterval(alive);

  assert.deepEqual(there.collections.get('posts'), ['id', 'title']);
  await Promise.all(nodes.map((app) => app.stop()));
  console.log('a collection defined on one node is known on the other');
})();
