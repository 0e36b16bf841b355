'use strict';
// What a program leaves behind in memory, in a process of its own.

const { child, temporaryFolder } = require('../../support');

/**
 * Runs a program with the garbage collector at hand: `setUp`, `first`, `second` and `end`, all of them code of one async
 * function. Resolves to what has grown over `second`, in bytes: `heap`, which all that JavaScript holds is on, and `rss`.
 */
async function growth({ setUp, first, second = first, end = '' }, deadline = 110_000) {
  const run = child(`
    require('node:v8').setFlagsFromString('--expose-gc');
    const gc = require('node:vm').runInNewContext('gc');
    const memory = async () => {
      for (let i = 0; i < 5; i++) { gc(); await new Promise((resolve) => setTimeout(resolve, 20)); }
      const { rss, heapUsed, external } = process.memoryUsage();
      return { rss, heap: heapUsed + external };
    };
    (async () => {
      ${setUp}
      ${first}
      const before = await memory();
      ${second}
      const after = await memory();
      console.log(JSON.stringify({ heap: after.heap - before.heap, rss: after.rss - before.rss }));
      ${end}
    })();
  `, { environment: { STORAGE_PATH: temporaryFolder() }, deadline });
  expect(await run.exit).toEqual({ code: 0, signal: null, errors: '' });
  return JSON.parse(run.lines[0]);
}

module.exports = { growth };
