// What only JavaScript can own: the classes of errors that callers tell apart.

/** An error of mortise: `code` is stable (`E_…`), the message names the key, channel or option. */
export class MortiseError extends Error {
  /** The stable code, such as `E_CLOSED`. */
  readonly code: string;

  constructor(code: string, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'MortiseError';
    this.code = code;
  }
}

/** A `TypeError` with the code `E_INVALID_ARGUMENT`: an argument or an option that cannot be meant. */
export function invalid(message: string): TypeError & { code: string } {
  return Object.assign(new TypeError(message), { code: 'E_INVALID_ARGUMENT' });
}

/**
 * A lock could not be had (`lock is locked`, `lock acquire timed out`) or is not held any more
 * (`lock is not active`). Codes: `E_LOCK_LOCKED`, `E_LOCK_TIMEOUT`, `E_LOCK_NOT_ACTIVE`.
 */
export class LockAcquireError extends Error {
  readonly code: string;
  /** The key of the lock. */
  declare readonly key?: string;

  constructor(message: string, options?: { cause?: unknown; code?: string }) {
    super(message, options);
    this.name = 'LockAcquireError';
    this.code = options?.code ?? 'E_LOCK_ACQUIRE';
  }
}

/** A lock was lost, or its service closed, while it was held or waited for. Code: `E_LOCK_ABORTED`. */
export class LockAbortError extends Error {
  readonly code: string;
  /** The key of the lock. */
  declare readonly key?: string;

  constructor(message: string, options?: { cause?: unknown; code?: string }) {
    super(message, options);
    this.name = 'LockAbortError';
    this.code = options?.code ?? 'E_LOCK_ABORTED';
  }
}
