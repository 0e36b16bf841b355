// What arrives when the connection is cut for a second under 1 000 messages a second.

import { Child, pause } from '../processes.mjs';
import { Proxy } from '../servers.mjs';

const program = new URL('node.mjs', import.meta.url);
const PER_SECOND = 1000;
const SECONDS = 3;

/** The subscriber's connections are cut, and with `both` the publisher's. */
export async function cutFor(label, server, both) {
  const proxy = await Proxy.to(server.port);
  const [publisher, subscriber] = await Promise.all([
    Child.start(program, label, both ? proxy.port : server.port), Child.start(program, label, proxy.port),
  ]);
  try {
    await subscriber.ask('subscribe', 'c');
    const published = publisher.ask('pace', 'c', PER_SECOND, SECONDS);
    await pause(1000);
    proxy.mode = 'refuse';
    proxy.cut();
    await pause(1000);
    proxy.mode = 'pass';
    const refused = new Set(await published);
    await settled(subscriber);
    const { numbers } = await subscriber.ask('take');
    return judge(numbers, refused);
  } finally {
    await Promise.all([publisher.end(), subscriber.end()]);
    await proxy.close();
  }
}

/** Resolves when nothing has come for one and a half seconds. */
async function settled(subscriber) {
  for (let [count, before] = [0, -1]; count !== before;) {
    [before] = [count, await pause(1500)];
    count = await subscriber.ask('count');
  }
}

function judge(numbers, refused) {
  const heard = new Set(numbers);
  const published = Array.from({ length: PER_SECOND * SECONDS }, (_, n) => n).filter((n) => !refused.has(n));
  let highest = -1;
  let disordered = 0;
  for (const n of numbers) {
    if (n < highest) disordered++;
    highest = Math.max(highest, n);
  }
  return {
    lost: published.filter((n) => !heard.has(n)).length,
    twice: numbers.length - heard.size,
    disordered,
    refused: refused.size,
  };
}
