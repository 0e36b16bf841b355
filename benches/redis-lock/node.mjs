// A process that takes and gives a lock, by one of the clients.

import { now, pause, serve } from '../processes.mjs';
import { CLIENTS } from './clients.mjs';

const [label, port] = process.argv.slice(2);
const acquire = CLIENTS[label](Number(port));
await (await acquire(`warm-up ${process.pid}`))();
let release;

serve({
  /** When the lock was there. */
  async take(key) {
    release = await acquire(key);
    return now();
  },
  /** When the release was called. */
  async give() {
    const at = now();
    await release();
    return at;
  },
  /** Takes the lock, keeps it for a millisecond, gives it, and again at once, until `end`: when it was taken, and given. */
  async loop(key, begin, end) {
    const turns = [];
    await pause((begin - now()) / 1000);
    while (now() < end) {
      const release = await acquire(key);
      const taken = now();
      await pause(1);
      turns.push([taken, now()]);
      await release();
    }
    return turns;
  },
});
