// Makes a clone ready to run: node modules, the native addon, the library. Says what it does, and
// does only what is needed: each result carries a stamp of the sources that it was made from.

import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const NODE = [20, 17];
const RUST = [1, 88];
const root = fileURLToPath(new URL('..', import.meta.url));
process.chdir(root);

const say = (text) => console.log(`mortise: ${text}`);
const fail = (text) => {
  console.error(`mortise: ${text}`);
  process.exit(1);
};

function atLeast(version, wanted) {
  const [major, minor] = version.split('.').map(Number);
  return major > wanted[0] || (major === wanted[0] && minor >= wanted[1]);
}

function* files(path) {
  if (!existsSync(path)) return;
  if (statSync(path).isFile()) yield path;
  else for (const name of readdirSync(path).sort()) yield* files(join(path, name));
}

function digest(...paths) {
  const hash = createHash('sha256').update(process.version);
  for (const path of paths) for (const file of files(path)) hash.update(file).update('\0').update(readFileSync(file));
  return hash.digest('hex');
}

/** Runs `make` unless `results` are there and were made from the same `sources`. */
function step(name, why, sources, results, make) {
  const stamp = join('.tmp', `${name}.stamp`);
  const wanted = digest(...sources);
  const present = results().length > 0 && results().every((path) => existsSync(path));
  if (present && existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted) return;
  say(why);
  const started = Date.now();
  make();
  mkdirSync('.tmp', { recursive: true });
  writeFileSync(stamp, digest(...sources));
  say(`done in ${((Date.now() - started) / 1000).toFixed(1)} s`);
}

function run(command, args) {
  const { status, error } = spawnSync(command, args, { stdio: ['ignore', 'inherit', 'inherit'] });
  if (error) fail(`${command} cannot be started: ${error.message}`);
  if (status !== 0) fail(`\`${[command, ...args].join(' ')}\` failed`);
}

function checkRust() {
  let version;
  try {
    version = execFileSync('cargo', ['--version'], { encoding: 'utf8' }).split(' ')[1];
  } catch {
    fail(`there is no prebuilt addon, and building it needs Rust ${RUST.join('.')} or newer (https://rustup.rs)`);
  }
  if (!atLeast(version, RUST)) fail(`building the addon needs Rust ${RUST.join('.')} or newer; this is ${version}`);
}

if (!atLeast(process.versions.node, NODE)) fail(`Node ${NODE.join('.')} or newer is needed; this is ${process.versions.node}`);

step('modules', 'installing node modules (npm ci)', ['package-lock.json'], () => ['node_modules/esbuild'], () =>
  run('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error']));

const addons = () => readdirSync('.').filter((name) => /^mortise\..*\.node$/.test(name));
step('native', 'building the addon (cargo, release; a minute or two the first time)',
  ['src', 'Cargo.toml', 'Cargo.lock', 'build.rs'], addons, () => {
    checkRust();
    run('npm', ['run', '--silent', 'build:native']);
  });

step('lib', 'building index.js, nocobase.js, register.js and index.d.ts', ['lib', 'tsconfig.json', 'scripts/build-lib.mjs', 'package-lock.json'],
  () => ['index.js', 'nocobase.js', 'register.js', 'index.d.ts'], () => run('npm', ['run', '--silent', 'build:lib']));
