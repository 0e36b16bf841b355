// The queues, by what the benchmarks ask of them: publishing a message, and handlers for what comes.

import { Queue, Worker } from 'bullmq';
import { mortise } from '../servers.mjs';

const quiet = { trace() {}, debug() {}, info() {}, warn() {}, error: console.error };

/** `open(port, name)`: a queue of that name, `{ publish(message), consume(concurrency, handler), close() }`. */
export const CLIENTS = {
  mortise: async (port, name) => {
    const queue = new mortise.EventQueue({ name: 'bench', logger: quiet }, { adapter: 'redis', url: `redis://127.0.0.1:${port}` });
    await queue.connect();
    let handler;
    let consuming = false;
    const subscribe = (concurrency) => queue.subscribe(name, { concurrency, interval: 1, idle: () => consuming, process: async (message) => handler(message) });
    return {
      // A queue is published to by who is subscribed.
      prepare: (concurrency) => subscribe(concurrency),
      publish: (message) => queue.publish(name, message),
      consume: (_, handle) => { handler = handle; consuming = true; },
      close: () => queue.close(),
    };
  },
  bullmq: async (port, name) => {
    const connection = { host: '127.0.0.1', port, maxRetriesPerRequest: null };
    const queue = new Queue(name, { connection, defaultJobOptions: { removeOnComplete: true } });
    await queue.waitUntilReady();
    let worker;
    return {
      prepare: () => undefined,
      publish: (message) => queue.add('job', message),
      consume: async (concurrency, handle) => {
        worker = new Worker(name, async (job) => handle(job.data), { connection, concurrency });
        worker.on('error', console.error);
        await worker.waitUntilReady();
      },
      close: async () => {
        await worker?.close();
        await queue.close();
      },
    };
  },
};
