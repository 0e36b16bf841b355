// Builds index.js and index.d.ts from lib/: checks the types, bundles, and rolls the typings up.
import { build } from 'esbuild';
import { execFileSync } from 'node:child_process';

const run = (bin, ...args) =>
  execFileSync(process.execPath, [`node_modules/${bin}`, ...args], { stdio: ['ignore', 'inherit', 'inherit'] });

run('typescript/bin/tsc', '-p', 'tsconfig.json');
await build({
  entryPoints: ['lib/index.ts'],
  outfile: 'index.js',
  bundle: true,
  platform: 'node',
  target: 'node20',
  packages: 'external',
  keepNames: false,
  banner: { js: "// Built from lib/ by `npm run build:lib`; do not edit.\n'use strict';" },
});
run('dts-bundle-generator/dist/bin/dts-bundle-generator.js', '--silent', '--no-banner', '--project', 'tsconfig.json', '-o', 'index.d.ts', 'lib/index.ts');
