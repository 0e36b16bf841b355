// A lock that goes from process to process.

import { Child, now, pause } from '../processes.mjs';

const program = new URL('node.mjs', import.meta.url);
let keys = 0;

async function withNodes(label, port, count, work) {
  const nodes = await Promise.all(Array.from({ length: count }, () => Child.start(program, label, port)));
  try {
    return await work(nodes, `key ${++keys}`);
  } finally {
    await Promise.all(nodes.map((node) => node.end()));
  }
}

/**
 * `count` hand-offs between processes, all but the holder waiting: microseconds from the call of the release to
 * the next holder's having it, and Redis commands, those inside scripts counted, for each. The lock is held for
 * 5 ms and up to `period` more, so that a release comes at any time of a waiter's poll; who has released
 * asks again once another has it.
 */
export function handOffs(label, server, processes, count, period) {
  return withNodes(label, server.port, processes, async (nodes, key) => {
    const waiting = new Map();
    const ask = (node) => waiting.set(node, node.ask('take', key).then((at) => ({ node, at })));
    const next = async () => {
      const taken = await Promise.race(waiting.values());
      waiting.delete(taken.node);
      return taken;
    };
    ask(nodes[0]);
    let holder = (await next()).node;
    nodes.slice(1).forEach(ask);
    const times = [];
    await pause(100);
    await server.call('CONFIG', 'RESETSTAT');
    for (let i = 0; i < count; i++) {
      await pause(5 + Math.random() * period);
      const given = holder.ask('give');
      const taken = await next();
      times.push(taken.at - await given);
      ask(holder);
      holder = taken.node;
    }
    return { times, commands: await commandsOf(server) / count };
  });
}

async function commandsOf(server) {
  const lines = (await server.call('INFO', 'commandstats')).matchAll(/cmdstat_([^:]+):calls=(\d+)/g);
  let sum = 0;
  // But for what asks for the number, and the heartbeats of connections.
  for (const [, name, calls] of lines) if (!/^(config|info|ping)/.test(name)) sum += Number(calls);
  return sum;
}

/** How often each of the processes got the lock while all wanted it all the time. */
export function grants(label, server, processes, milliseconds) {
  return withNodes(label, server.port, processes, async (nodes, key) => {
    const begin = now() + 200_000;
    const end = begin + milliseconds * 1000;
    const turns = await Promise.all(nodes.map((node) => node.ask('loop', key, begin, end)));
    // From when all are in the line.
    const from = begin + 100_000;
    return turns.map((list) => list.filter(([taken]) => taken > from && taken < end).length);
  });
}
