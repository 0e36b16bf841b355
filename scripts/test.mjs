// Runs the tests: `node scripts/test.mjs` the whole suite, `node scripts/test.mjs faults` the long
// fault suites, `node scripts/test.mjs nocobase` those inside a NocoBase. Arguments after that go to jest, and
// say which of the suites.

import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

process.chdir(fileURLToPath(new URL('..', import.meta.url)));

function run(title, command, args, environment = {}) {
  console.log(`\nmortise: ${title}`);
  const { status, error } = spawnSync(command, args, {
    stdio: ['ignore', 'inherit', 'inherit'],
    env: { ...process.env, ...environment },
  });
  if (error) console.error(`mortise: ${command} cannot be started: ${error.message}`);
  if (status !== 0) process.exit(status ?? 1);
}

const node = (script, ...args) => [process.execPath, [`node_modules/${script}`, ...args]];
const [suite, ...rest] = process.argv.slice(2);

if (suite === 'faults') {
  const jest = (title, ...args) => run(title, process.execPath, ['--expose-gc', 'node_modules/jest/bin/jest.js', ...args], { MORTISE_FAULTS: '1' });
  if (rest.length > 0) {
    jest('fault suites', '--runInBand', ...rest);
  } else {
    // Those that keep both cores busy, and check when what happened, run one at a time.
    jest('the fault suites', '__test__/faults', '--runInBand', '--testPathIgnorePatterns=/endurance/');
    jest('the endurance suites', '__test__/faults/endurance');
  }
} else if (suite === 'nocobase') {
  run('inside NocoBase', ...node('jest/bin/jest.js', '-c', '__test__/nocobase/jest.config.js', ...rest));
} else {
  run('the core, without Node', 'cargo', ['test', '--no-default-features', '--quiet']);
  run('the typings, as a user sees them', ...node('typescript/bin/tsc', '-p', '__test__/types'));
  run('the addon, as a plugin sees it', ...node('jest/bin/jest.js', ...(suite ? [suite, ...rest] : [])));
}
