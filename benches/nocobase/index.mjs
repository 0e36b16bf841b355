// Requests to a real NocoBase whose cache is on Redis: as it is, with our plugin, and with ours preloaded. One process
// each on a database of its own, alternating, with the same 20 requests in flight.
import { mkdtempSync, rmSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { compare, quantile, report } from '../harness.mjs';
import { RedisServer } from '../servers.mjs';

const folder = mkdtempSync(join(tmpdir(), 'mortise-bench-'));
process.env.TMPDIR = folder;
const { Node } = createRequire(import.meta.url)('../../__test__/nocobase/nodes.js');

const WIDTH = 20;
const REQUESTS = 800;
/** Not measured: who comes first in a round would pay for the pause before it. */
const WARM = 200;
const ROUNDS = 5;
const sections = process.argv.slice(2);
const asked = (name) => sections.length === 0 || sections.includes(name);

const redis = await RedisServer.start();
const PEERS = {
  'mortise plugin': { how: 'plugin', store: 'redis' },
  'mortise plugin, tiered': { how: 'plugin', store: 'tiered' },
  'mortise register': { how: 'register', store: 'redis' },
  NocoBase: { how: 'stock', store: 'redis' },
  // What a cache on Redis could come to at most, if it took no time.
  'NocoBase, in memory': { how: 'stock', store: 'memory' },
};
const start = ({ how, store }, index) =>
  Node.start({ how, environment: { REDIS_URL: `${redis.url}/${index}`, CACHE_DEFAULT_STORE: store } });

/** One request; resolves to how long it took, in microseconds. */
function get(node, path, agent) {
  return new Promise((resolve, reject) => {
    const begun = process.hrtime.bigint();
    const headers = { authorization: `Bearer ${node.token}`, 'x-authenticator': 'basic' };
    request({ host: '127.0.0.1', port: node.port, path: `/api/${path}`, agent, headers }, (response) => {
      response.resume();
      response.on('end', () => {
        if (response.statusCode === 200) resolve(Number(process.hrtime.bigint() - begun) / 1000);
        else reject(new Error(`${path}: ${response.statusCode}`));
      });
    }).on('error', reject).end();
  });
}

const watch = ({ require }) => {
  globalThis.delay ??= require('node:perf_hooks').monitorEventLoopDelay({ resolution: 1 });
  globalThis.delay.reset();
  globalThis.delay.enable();
  globalThis.used = process.cpuUsage();
};
/** The event loop's delay, and processor time of all threads, in microseconds. */
const watched = () => {
  const { user, system } = process.cpuUsage(globalThis.used);
  globalThis.delay.disable();
  return [globalThis.delay.percentile(99) / 1000, user + system];
};

if (asked('requests')) {
  const nodes = {};
  for (const [index, [label, peer]] of Object.entries(PEERS).entries()) {
    nodes[label] = await start(peer, index);
    await nodes[label].signIn();
  }
  for (const path of ['auth:check', 'users:list']) {
    const processor = Object.fromEntries(Object.keys(nodes).map((label) => [label, []]));
    const latency = Object.fromEntries(Object.keys(nodes).map((label) => [label, []]));
    const delays = Object.fromEntries(Object.keys(nodes).map((label) => [label, []]));
    const work = (label) => async () => {
      const node = nodes[label];
      const agent = new Agent({ keepAlive: true, maxSockets: WIDTH });
      const send = async (count) => {
        const times = [];
        await Promise.all(Array.from({ length: WIDTH }, async () => {
          while (count-- > 0) times.push(await get(node, path, agent));
        }));
        return times;
      };
      await send(WARM);
      await node.call(watch);
      const begun = process.hrtime.bigint();
      const times = await send(REQUESTS);
      const nanoseconds = Number(process.hrtime.bigint() - begun);
      const [delay, used] = await node.call(watched);
      delays[label].push(delay);
      processor[label].push(used / REQUESTS);
      latency[label].push(quantile(times, 0.99));
      agent.destroy();
      return { ops: REQUESTS, nanoseconds };
    };
    const peers = Object.fromEntries(Object.keys(nodes).map((label) => [label, work(label)]));
    await compare({ name: `${path}, ${WIDTH} in flight, a request`, peers, rounds: ROUNDS, ours: 'mortise plugin' });
    // The first round warms up.
    const rounds = (values) => Object.fromEntries(Object.entries(values).map(([label, list]) => [label, list.slice(1)]));
    report({ name: `${path}, processor time of a request`, unit: 'us', values: rounds(processor), ours: 'mortise plugin' });
    report({ name: `${path}, p99 of a request`, unit: 'us', values: rounds(latency), ours: 'mortise plugin' });
    report({ name: `${path}, p99 of the event loop's delay`, unit: 'us', values: rounds(delays), ours: 'mortise plugin' });
  }
  for (const node of Object.values(nodes)) await node.stop();
}

if (asked('start')) {
  const values = Object.fromEntries(Object.keys(PEERS).map((label) => [label, []]));
  for (let round = 0; round <= ROUNDS; round++) {
    for (const [index, [label, peer]] of Object.entries(PEERS).entries()) {
      const begun = process.hrtime.bigint();
      const node = await start(peer, index);
      if (round > 0) values[label].push(Number(process.hrtime.bigint() - begun) / 1e6);
      await node.stop();
    }
  }
  report({ name: 'from the start of the process to a node that serves', unit: 'ms', values, ours: 'mortise plugin' });
}

await redis.stop();
rmSync(folder, { recursive: true, force: true });
