// Builds index.js and index.d.ts from lib/: checks the types, bundles, and rolls the typings up.
import { build } from 'esbuild';
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';

const run = (bin, ...args) =>
  execFileSync(process.execPath, [`node_modules/${bin}`, ...args], { stdio: ['ignore', 'inherit', 'inherit'] });

run('typescript/bin/tsc', '-p', 'tsconfig.json');
const shared = {
  bundle: true,
  platform: 'node',
  target: 'node20',
  packages: 'external',
  keepNames: false,
  banner: { js: "// Built from lib/ by `npm run build:lib`; do not edit.\n'use strict';" },
};

/** What stands beside the main entry uses it as it is, so that there is one of each class and one connection to a server. */
const oneMain = {
  name: 'one main entry',
  setup: ({ onResolve }) => onResolve({ filter: /^(\.\.\/)+index$/ }, () => ({ path: './index.js', external: true })),
};

// NocoBase loads plugins by the names of packages, and takes their default export. Not enumerable, so that only who asks
// for it needs a NocoBase.
const plugin = "Object.defineProperty(module.exports, 'default', { get: () => require('./nocobase').default });";

/** A class that mentions itself is renamed within by the bundler, and would tell that name as its own. */
const ownNames = {
  name: 'own names',
  setup: ({ initialOptions, onEnd }) => onEnd(({ outputFiles }) => {
    const text = outputFiles[0].text.replace(/\b_(\w+)\b/g, (word, name) => (outputFiles[0].text.includes(`var ${name} = class ${word} `) ? name : word));
    writeFileSync(initialOptions.outfile, text);
  }),
};

await build({ ...shared, entryPoints: ['lib/index.ts'], outfile: 'index.js', write: false, plugins: [ownNames], footer: { js: plugin } });
await build({ ...shared, entryPoints: ['lib/nocobase/plugin.ts'], outfile: 'nocobase.js', plugins: [oneMain] });
await build({ ...shared, entryPoints: ['lib/nocobase/register.ts'], outfile: 'register.js', plugins: [oneMain] });
run('dts-bundle-generator/dist/bin/dts-bundle-generator.js', '--silent', '--no-banner', '--project', 'tsconfig.json', '-o', 'index.d.ts', 'lib/index.ts');
