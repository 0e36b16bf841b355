// The one place where errors of locks are made, so that a host's own classes can take the place
// of ours.

import { LockAbortError, LockAcquireError, MortiseError } from '../errors';

type ErrorClass = new (message: string, options?: { cause?: unknown }) => Error;

/** The classes that locks' errors are made of. */
export interface LockErrorClasses {
  LockAcquireError: ErrorClass;
  LockAbortError: ErrorClass;
}

const classes: LockErrorClasses = { LockAcquireError, LockAbortError };

/** Errors of locks are of these classes from now on. @internal */
export function useLockErrorClasses(other: Partial<LockErrorClasses>): void {
  Object.assign(classes, other);
}

// The messages are what callers have always compared with; the key is a property.
function make(kind: keyof LockErrorClasses, code: string, message: string, key: string): Error {
  return Object.assign(new classes[kind](message), { code, key });
}

export const lockFailures = {
  locked: (key: string) => make('LockAcquireError', 'E_LOCK_LOCKED', 'lock is locked', key),
  timedOut: (key: string) => make('LockAcquireError', 'E_LOCK_TIMEOUT', 'lock acquire timed out', key),
  notActive: (key: string) => make('LockAcquireError', 'E_LOCK_NOT_ACTIVE', 'lock is not active', key),
  closed: (key: string) =>
    make('LockAbortError', 'E_LOCK_ABORTED', `lock "${key}" was not acquired: its adapter was closed`, key),
  lapsed: (key: string) => make('LockAbortError', 'E_LOCK_ABORTED', `lock "${key}" has lapsed while it was held`, key),
  lost: (key: string) =>
    make('LockAbortError', 'E_LOCK_ABORTED', `lock "${key}" was lost: the server could not be reached in time, or does not know it any more`, key),
  overheld: (key: string) => make('LockAbortError', 'E_LOCK_ABORTED', `lock "${key}" was held for longer than maxHold`, key),
  /** The server could not be asked, or refused: its error, which tells the key too. */
  failed: (key: string, cause: unknown) => {
    const { code, message } = cause as MortiseError;
    return Object.assign(new MortiseError(code, `lock "${key}": ${message}`, { cause }), { key });
  },
};
