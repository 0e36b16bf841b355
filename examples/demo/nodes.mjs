// Starts the nodes: processes when there is a server that they can share, else worker threads.

import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';

const PROGRAM = new URL('node.cjs', import.meta.url);

export class Nodes {
  #processes = [];
  #ends;

  /** `settings` are what all nodes have in common; a node that ends before `end` was called is a failure. */
  constructor(count, settings, failed) {
    const start = settings.redis ? this.#process : this.#thread;
    this.#ends = Array.from({ length: count }, (_, node) => start.call(this, { ...settings, node }));
    for (const [node, end] of this.#ends.entries()) {
      end.then(() => this.ending || failed(new Error(`node ${node} has ended before its time`)), failed);
    }
    process.on('exit', () => this.kill());
  }

  /** Resolves when all nodes have ended after `tell` told them to. */
  async end(tell) {
    this.ending = true;
    await tell();
    await Promise.all(this.#ends);
  }

  kill() {
    this.ending = true;
    for (const child of this.#processes) child.kill('SIGKILL');
  }

  #process(settings) {
    // Not as an argument, which everybody on the machine can read: the URL may have a password.
    const child = fork(fileURLToPath(PROGRAM), { env: { ...process.env, MORTISE_DEMO_NODE: JSON.stringify(settings) } });
    this.#processes.push(child);
    return ended(child);
  }

  #thread(settings) {
    return ended(new Worker(PROGRAM, { workerData: settings }));
  }
}

const ended = (node) => new Promise((resolve, reject) => node.on('exit', resolve).on('error', reject));
