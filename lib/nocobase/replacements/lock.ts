// In place of @nocobase/lock-manager.

import { LockManager as Base, type LockManagerOptions } from '../../index';
import { markReplacement, readEnvironment } from '../environment';

export { LockAbortError, LockAcquireError } from '../../index';

const OPTIONS = ['app', 'defaultAdapter', 'gracePeriod', 'logger', 'maxHold', 'redis', 'url'] as const;

/** Takes from the environment what the options leave out, and does not mind options that only the host knows. */
export class LockManager extends Base {
  constructor(options: LockManagerOptions = {}) {
    super(completed(options ?? {}));
  }
}
markReplacement(LockManager);

function completed(options: LockManagerOptions): LockManagerOptions {
  const { defaultAdapter, url } = readEnvironment().locks;
  const known = Object.fromEntries(OPTIONS.map((name) => [name, options[name]])) as LockManagerOptions;
  return { ...known, defaultAdapter: options.defaultAdapter || defaultAdapter, url: options.url ?? options.redis ?? url };
}
