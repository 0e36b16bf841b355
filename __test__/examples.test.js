'use strict';
const { execFile } = require('node:child_process');
const { readdirSync } = require('node:fs');
const { join } = require('node:path');
const { promisify } = require('node:util');
const { ROOT, temporaryFolder } = require('./support');

const run = (file, ...args) => promisify(execFile)(process.execPath, [join(ROOT, 'examples', file), ...args], {
  timeout: 60_000,
  env: { ...process.env, STORAGE_PATH: temporaryFolder() },
});

test.each(readdirSync(join(ROOT, 'examples')).filter((name) => name.endsWith('.js')).map((name) => [name]))(
  '%s does what it says, and ends by itself', async (file) => {
    const { stdout, stderr } = await run(file);
    expect(stderr).toBe('');
    expect(stdout.trim().split('\n')).toHaveLength(1);
  });

test.each([['1'], ['3']])('the demo with %s nodes finds what a plain walk finds', async (nodes) => {
  const { stdout, stderr } = await run('demo/main.mjs', '--nodes', nodes);
  expect(stderr).toBe('');
  expect(stdout).toContain('the counts equal those of a plain walk');
  expect(stdout).toContain('E_TRANSACTION_ROLLED_BACK');
  expect(stdout).toContain('cancelled over pub/sub');
}, 60_000);
