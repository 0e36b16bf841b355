'use strict';
// Processes that are killed at any moment: what the journal accepted runs, whoever is killed.

const { EventQueue } = require('../../..');
const { child, temporaryFolder, until } = require('../../support');

test('20 kills at random moments lose no accepted message', async () => {
  const folder = temporaryFolder();
  const accepted = new Set();
  const done = new Set();
  for (let round = 0; round < 20; round++) {
    const run = child(`
      const { writeSync } = require('node:fs');
      const say = (text) => writeSync(1, text + '\\n');
      const queue = new mortise.EventQueue({ name: 'main' }, { storagePath: ${JSON.stringify(folder)}, journal: true });
      (async () => {
        queue.subscribe('c', {
          concurrency: 3,
          process: async (id, { retried }) => { await new Promise(setImmediate); if (retried === 0 && id.endsWith('7')) throw new Error('again'); say('done ' + id); },
        });
        await queue.connect();
        for (let n = 0; ; n++) await Promise.all(Array.from({ length: 5 }, async (_, i) => {
          const id = '${round}-' + (n * 5 + i);
          await queue.publish('c', id, { maxRetries: 1 });
          say('accepted ' + id);
        }));
      })();
    `);
    await until(() => run.lines.length > 50 + round * 13);
    run.handle.kill('SIGKILL');
    await run.exit;
    for (const line of run.lines) {
      const [what, id] = line.split(' ');
      (what === 'done' ? done : accepted).add(id);
    }
  }
  const queue = new EventQueue({ name: 'main' }, { storagePath: folder, journal: true });
  await queue.connect();
  queue.subscribe('c', { concurrency: 10, process: async (id) => { done.add(id); } });
  await until(() => [...accepted].every((id) => done.has(id)));
  await queue.close();
  expect(accepted.size).toBeGreaterThan(400);
});
