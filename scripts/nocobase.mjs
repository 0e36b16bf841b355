// Puts a NocoBase into the node_modules of `__test__/nocobase`, for the tests and benches that run inside it: a minute and
// 800 MB, the first time. Says what it does, and does only what is needed.

import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

process.chdir(fileURLToPath(new URL('../__test__/nocobase', import.meta.url)));

const STAMP = 'node_modules/.mortise-stamp';
const wanted = createHash('sha256').update(process.version).update(readFileSync('package.json')).digest('hex');

function npm(why, ...args) {
  console.log(`mortise: ${why} (npm ${args.join(' ')})`);
  const { status, error } = spawnSync('npm', args, { stdio: ['ignore', 'inherit', 'inherit'] });
  if (status === 0) return;
  console.error(`mortise: \`npm ${args.join(' ')}\` failed${error ? `: ${error.message}` : ''}`);
  process.exit(1);
}

if (!existsSync(STAMP) || readFileSync(STAMP, 'utf8') !== wanted) {
  // NocoBase's packages name peers for the browser, which are not needed, and run scripts when they are installed.
  npm('installing NocoBase for the tests inside it', 'install', '--ignore-scripts', '--legacy-peer-deps', '--no-package-lock', '--no-audit', '--no-fund', '--loglevel=error');
  npm('building its database driver', 'rebuild', 'sqlite3', '--build-from-source', '--loglevel=error');
  mkdirSync('node_modules', { recursive: true });
  writeFileSync(STAMP, wanted);
}
// As `npm install mortise` would have it there.
if (!existsSync('node_modules/mortise')) symlinkSync('../../..', 'node_modules/mortise', 'junction');
