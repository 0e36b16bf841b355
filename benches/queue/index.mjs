// The queue in memory: jobs that do nothing, with a backlog; and publishing to the journal.

import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { compare } from '../harness.mjs';

const require = createRequire(import.meta.url);
const { EventQueue } = require('../..');
const folder = mkdtempSync(join(tmpdir(), 'mortise-bench-'));
process.env.STORAGE_PATH = folder;
const quiet = { trace() {}, debug() {}, info() {}, warn() {}, error: console.error };
let names = 0;

const nocobaseFile = fileURLToPath(new URL('../node_modules/@nocobase/server/lib/event-queue.js', import.meta.url));
const nocobase = existsSync(nocobaseFile) ? require(nocobaseFile) : undefined;
if (!nocobase) console.log("NocoBase's memory queue is not installed (npm run peers): left out");

const makers = {
  mortise: () => new EventQueue({ name: `a${names++}`, logger: quiet }),
  ...(nocobase && {
    nocobase: () => {
      const app = { name: `n${names++}`, logger: quiet, on: () => undefined };
      const queue = new nocobase.EventQueue(app);
      queue.setAdapter(new nocobase.MemoryEventQueueAdapter({ appName: app.name, logger: quiet }));
      return queue;
    },
  }),
};

/** Time from the moment the handlers may begin until the last of `backlog` jobs is done. */
const drain = (make, concurrency, backlog) => async () => {
  const queue = make();
  await queue.connect();
  let idle = false;
  let done = 0;
  let finish;
  const finished = new Promise((resolve) => { finish = resolve; });
  queue.subscribe('c', { concurrency, interval: 1, idle: () => idle, process: async () => { if (++done === backlog) finish(); } });
  for (let i = 0; i < backlog; i++) await queue.publish('c', { i });
  const begun = process.hrtime.bigint();
  idle = true;
  await finished;
  const nanoseconds = Number(process.hrtime.bigint() - begun);
  await queue.close();
  return { ops: backlog, nanoseconds };
};

const fastq = require('fastq').promise;
const drainFastq = (concurrency, backlog) => async () => {
  let done = 0;
  let finish;
  const finished = new Promise((resolve) => { finish = resolve; });
  const queue = fastq(async () => { if (++done === backlog) finish(); }, concurrency);
  queue.pause();
  for (let i = 0; i < backlog; i++) void queue.push({ i });
  const begun = process.hrtime.bigint();
  queue.resume();
  await finished;
  return { ops: backlog, nanoseconds: Number(process.hrtime.bigint() - begun) };
};

for (const concurrency of [1, 10, 100]) {
  for (const backlog of [10_000, 100_000]) {
    await compare({
      name: `jobs that do nothing, concurrency ${concurrency}, backlog ${backlog}`,
      target: ['nocobase', 2],
      peers: {
        ...Object.fromEntries(Object.entries(makers).map(([label, make]) => [label, drain(make, concurrency, backlog)])),
        'fastq, no retries': drainFastq(concurrency, backlog),
      },
    });
  }
}

const IN_FLIGHT = 100;
const PUBLISHES = 50_000;
const publishing = (options) => async () => {
  const queue = new EventQueue({ name: `j${names++}`, logger: quiet }, options);
  await queue.connect();
  queue.subscribe('c', { idle: () => false, process: async () => undefined });
  let left = PUBLISHES;
  const message = { id: 1, name: 'x'.repeat(80) };
  const begun = process.hrtime.bigint();
  await Promise.all(Array.from({ length: IN_FLIGHT }, async () => {
    while (left-- > 0) await queue.publish('c', message);
  }));
  const nanoseconds = Number(process.hrtime.bigint() - begun);
  await queue.close();
  return { ops: PUBLISHES, nanoseconds };
};
const { ns } = await compare({
  name: `publish to the journal, ${IN_FLIGHT} in flight (memory beside it)`,
  peers: { mortise: publishing({ journal: true }), 'mortise, memory': publishing({}) },
});
console.log(`  ${Math.round(1e9 / ns.mortise)} publishes a second that are safe on disk; wanted 38000: ${1e9 / ns.mortise >= 38_000 ? 'reached' : 'MISSED'}`);
rmSync(folder, { recursive: true, force: true });
process.exit();
