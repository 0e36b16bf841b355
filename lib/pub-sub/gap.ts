// What is told when messages may have been missed.

/**
 * `trimmed`: the log had moved on, messages that were not read yet were dropped from it. `replaced`: the
 * log is another one, since the server was emptied or replaced or has lost its newest data.
 * `disconnected`: the connection was lost, on an adapter without a log.
 */
export type GapReason = 'trimmed' | 'replaced' | 'disconnected';

/** Messages may have been missed: whatever they would have told must be looked up afresh. */
export interface PubSubGap {
  reason: GapReason;
  /** The channel that was subscribed. */
  channel: string;
}

/** The numbers that Rust has for reasons, from 1; see `number` in `src/node/pub_sub.rs`. */
const REASONS: readonly GapReason[] = ['trimmed', 'replaced', 'disconnected'];

/** The reason of that number. */
export function reasonOf(number: number): GapReason {
  return REASONS[number - 1] ?? 'disconnected';
}

/** The number of a reason; an unknown one counts as `disconnected`. */
export function numberOf(reason: unknown): number {
  return REASONS.indexOf(reason as GapReason) + 1 || REASONS.length;
}
