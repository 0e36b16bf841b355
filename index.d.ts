/** An error of mortise: `code` is stable (`E_…`), the message names the key, channel or option. */
export declare class MortiseError extends Error {
	/** The stable code, such as `E_CLOSED`. */
	readonly code: string;
	constructor(code: string, message: string, options?: {
		cause?: unknown;
	});
}
/**
 * A lock could not be had (`lock is locked`, `lock acquire timed out`) or is not held any more
 * (`lock is not active`). Codes: `E_LOCK_LOCKED`, `E_LOCK_TIMEOUT`, `E_LOCK_NOT_ACTIVE`.
 */
export declare class LockAcquireError extends Error {
	readonly code: string;
	constructor(message: string, options?: {
		cause?: unknown;
		code?: string;
	});
}
/** A lock was lost, or its service closed, while it was held or waited for. Code: `E_LOCK_ABORTED`. */
export declare class LockAbortError extends Error {
	readonly code: string;
	constructor(message: string, options?: {
		cause?: unknown;
		code?: string;
	});
}

export {};
