'use strict';
// A plugin that cancels tasks wherever they run, over pub/sub. Two apps stand for two nodes.

const assert = require('node:assert/strict');
const { setTimeout: wait } = require('node:timers/promises');
const { createApp, Plugin } = require('..');

class Tasks extends Plugin {
  running = new Map();

  async load() {
    await this.app.pubSubManager.subscribe('tasks.cancel', ({ id }) => this.running.get(id)?.abort());
  }

  async run(id) {
    const controller = new AbortController();
    this.running.set(id, controller);
    try {
      await wait(60_000, undefined, { signal: controller.signal });
      return 'done';
    } catch {
      return 'cancelled';
    } finally {
      this.running.delete(id);
    }
  }

  async cancel(id) {
    if (this.running.has(id)) this.running.get(id).abort();
    else await this.app.pubSubManager.publish('tasks.cancel', { id });
  }
}

(async () => {
  const nodes = [0, 1].map(() => createApp({ name: 'main' }));
  const [here, there] = nodes.map((app) => app.plugin(Tasks, { name: 'tasks' }));
  await Promise.all(nodes.map((app) => app.start()));
  const result = there.run('task 1');
  await here.cancel('task 1');
  assert.equal(await result, 'cancelled');
  await Promise.all(nodes.map((app) => app.stop()));
  console.log('a task of a minute was cancelled from the other node');
})();
