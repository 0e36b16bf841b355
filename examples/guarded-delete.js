'use strict';
// A plugin that guards a deletion: however many ask for it at once, on whatever node, it happens once.

const assert = require('node:assert/strict');
const { setImmediate: turn } = require('node:timers/promises');
const { createApp, Plugin } = require('..');

/** Stands for a table, with a check and a deletion that others could come between. */
const table = new Map([[1, { id: 1, children: [2, 3] }], [2, { id: 2 }], [3, { id: 3 }]]);
let deletions = 0;

class Records extends Plugin {
  remove(id) {
    return this.app.lockManager.runExclusive(`records:${id}`, async ({ signal }) => {
      const record = table.get(id);
      await turn();
      if (!record) return false;
      for (const child of record.children ?? []) {
        signal.throwIfAborted();
        table.delete(child);
        await turn();
      }
      table.delete(id);
      deletions++;
      return true;
    }, 5000);
  }
}

(async () => {
  const nodes = [0, 1].map(() => createApp({ name: 'main' }));
  const plugins = nodes.map((app) => app.plugin(Records, { name: 'records' }));
  await Promise.all(nodes.map((app) => app.start()));
  const results = await Promise.all(Array.from({ length: 20 }, (_, n) => plugins[n % 2].remove(1)));
  assert.equal(results.filter(Boolean).length, 1);
  assert.equal(deletions, 1);
  assert.equal(table.size, 0);
  await Promise.all(nodes.map((app) => app.stop()));
  console.log('20 asked for the deletion on two nodes, it happened once');
})();
