'use strict';
// A plugin that uses every service, and keeps what it hears.

const { Plugin } = require('@nocobase/server');

class Probe extends Plugin {
  heard = [];
  synced = [];
  processed = [];
  /** Which process an application's workflows and tasks run in, and where they are. */
  static steps = [];
  static held = [];

  async load() {
    const { app } = this;
    this.cache = await app.cacheManager.createCache({ name: 'probe', prefix: 'probe' });
    this.counter = await app.cacheManager.createCounter({ name: 'probe-counter', prefix: 'probe-counter' }, app.lockManager);
    await app.pubSubManager.subscribe('probe', (message) => { this.heard.push(message); });
    app.eventQueue.subscribe('probe', { concurrency: 5, idle: () => true, process: async (message) => { this.processed.push(message); } });
    const workflow = app.pm.get('workflow');
    // Waits until somebody resumes it.
    workflow.registerInstruction('wait', { run: () => ({ status: 0 }), resume: (_, job) => Object.assign(job, { status: 1 }) });
    // Takes as long as the process is told to.
    workflow.registerInstruction('step', { run: (node) => Probe.step(node.config) });
    workflow.registerTrigger('probe', { on() {}, off() {}, validateEvent: () => true });
    this.registerTask();
  }

  static async step(config) {
    Probe.steps.push(config.name);
    process.send?.({ event: 'step', name: config.name });
    if (config.name === process.env.PROBE_HOLD) await new Promise((resolve) => Probe.held.push(resolve));
    return { status: 1, result: process.pid };
  }

  registerTask() {
    const { TaskType, CancelError } = require('@nocobase/plugin-async-task-manager');
    const manager = this.app.container.get('AsyncTaskManager');
    const probe = this;
    manager.registerTaskType(class LongTask extends TaskType {
      static type = 'long';

      async execute() {
        probe.task = this;
        process.send?.({ event: 'task', task: this.record.id });
        const { signal } = this.abortController;
        await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
        process.send?.({ event: 'aborted', task: this.record.id });
        throw new CancelError();
      }
    });
  }

  async handleSyncMessage(message) {
    this.synced.push(message);
  }
}

module.exports = { Probe };
