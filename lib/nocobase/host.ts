// Finds the modules of the NocoBase that this process runs.

import { createRequire } from 'node:module';
import { join } from 'node:path';
import { MortiseError } from '../errors';

/** Where a module is looked for, in this order: beside mortise, in the working directory, where NocoBase says its modules are, beside the program. */
function places(): string[] {
  const { NODE_MODULES_PATH } = process.env;
  return [
    __filename,
    join(process.cwd(), 'main.js'),
    ...(NODE_MODULES_PATH ? [join(NODE_MODULES_PATH, 'main.js')] : []),
    ...(require.main?.filename ? [require.main.filename] : []),
  ];
}

/** The file of a module, or undefined. */
function find(name: string): string | undefined {
  for (const place of places()) {
    try {
      return createRequire(place).resolve(name);
    } catch {
      // Not here.
    }
  }
  return undefined;
}

/** NocoBase's server module. Throws `E_HOST` where there is none. */
export function hostServer(): any {
  const file = find('@nocobase/server');
  if (file) return require(file);
  const message = 'mortise/nocobase runs inside NocoBase, and finds no @nocobase/server: not beside itself, in the working directory, in NODE_MODULES_PATH or beside the program';
  throw new MortiseError('E_HOST', message);
}

/** A module as NocoBase's server sees it; undefined where there is none. */
export function hostModule(name: string): any {
  const server = find('@nocobase/server');
  if (!server) return undefined;
  let file: string;
  try {
    file = createRequire(server).resolve(name);
  } catch {
    return undefined;
  }
  return require(file);
}
