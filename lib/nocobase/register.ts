// `node --require mortise/register`: NocoBase's caches, locks, pub/sub, sync messages, queue and worker ids are ours,
// in a NocoBase that is installed as it is. Its own modules are loaded as ever, and what they export is exchanged.

import { readFileSync } from 'node:fs';
import Module = require('node:module');
import type * as Replacements from './replacements';

type Load = (module: NodeJS.Module, filename: string, ...more: unknown[]) => void;

interface Package {
  name?: string;
  version?: string;
}

/** Of NocoBase; another one has other modules. */
const MAJOR = 2;
const REGISTERED = Symbol.for('mortise.nocobase.registered');
const FILE = /^(.*)[\\/]lib[\\/](.+)\.js$/;
/** Paths below `lib` of the files that are concerned: all others are let through by this alone. */
const CONCERNED = /^(?:index|cache|cache-manager|counter\/[a-z-]+|lock-manager|cache\/index|event-queue|pub-sub-manager\/(?:index|pub-sub-manager)|sync-message-manager|worker-id-allocator)$/;

const packages = new Map<string, Package>();
const warned = new Set<string>();

function register(): void {
  const extensions = (Module as unknown as { _extensions: Record<string, Load> })._extensions;
  const state = extensions as { [REGISTERED]?: true };
  if (state[REGISTERED]) return;
  Object.defineProperty(state, REGISTERED, { value: true });
  for (const filename of Object.keys(require.cache)) {
    if (find(filename)) warn(`${filename} was loaded before mortise/register, and stays as it is`);
  }
  let load = extensions['.js'];
  let exchanging = exchangingLoader(load);
  // Others who come later, as tsx does, put loaders of their own in the place of this one, and not all of them call it.
  Object.defineProperty(extensions, '.js', {
    configurable: true,
    enumerable: true,
    get: () => exchanging,
    set: (next: Load) => {
      // Who puts a loader back that was read here puts back this very one.
      load = wrapped.get(next) ?? next;
      exchanging = load === next ? exchangingLoader(load) : next;
    },
  });
}

/** Our loaders, with the one that each calls. */
const wrapped = new WeakMap<Load, Load>();

/** A loader that puts ours in the place of what a file exports. */
function exchangingLoader(load: Load): Load {
  const loader: Load = function (this: unknown, module, filename, ...more) {
    load.call(this, module, filename, ...more);
    const ours = find(filename);
    if (ours) module.exports = exchanged(module.exports, ours);
  };
  wrapped.set(loader, load);
  return loader;
}

/** What takes the place of a file's exports. */
function find(filename: string): Replacements.Exports | undefined {
  const [, folder, path] = FILE.exec(filename) ?? [];
  const file = path?.replaceAll('\\', '/');
  if (file === undefined || !CONCERNED.test(file)) return undefined;
  const { name = '', version = '' } = packageIn(folder);
  if (!/^@nocobase\/(?:cache|lock-manager|server)$/.test(name)) return undefined;
  if (Number.parseInt(version, 10) === MAJOR) return replacements()[name]?.[file];
  warn(`mortise knows ${name} ${MAJOR}; version ${version} stays as it is`);
  return undefined;
}

function packageIn(folder: string): Package {
  let found = packages.get(folder);
  if (!found) packages.set(folder, (found = readPackage(folder)));
  return found;
}

function readPackage(folder: string): Package {
  try {
    return JSON.parse(readFileSync(`${folder}/package.json`, 'utf8'));
  } catch {
    // A folder that is not a package's.
    return {};
  }
}

/** Loaded when they are needed, for every process that inherits `NODE_OPTIONS` comes here. */
function replacements(): typeof Replacements.replacements {
  return (require('./replacements') as typeof Replacements).replacements;
}

/** The exports of the original with ours in place of those that have our names; plain properties, which can be assigned. */
function exchanged(original: object, ours: Replacements.Exports): object {
  const exports = Object.defineProperty({}, '__esModule', { value: true });
  return Object.assign(exports, original, Object.fromEntries(Object.entries(ours).filter(([name]) => Object.hasOwn(original, name))));
}

function warn(message: string): void {
  if (warned.has(message)) return;
  warned.add(message);
  process.emitWarning(message, 'MortiseWarning');
}

register();
