import { invalid } from '../errors';

/** How a server's queue treats messages that run. Times are milliseconds. */
export interface ServerQueueSettings {
  /** After which another node takes over the messages of one that has died. Renewed by a thread of its own, whatever the event loop does. Default 5000. */
  lease?: number;
  /** How long one run may take: then it counts as failed, its slot is free, and what it still says is ignored. Default 3600000 (1 hour). */
  maxRun?: number;
  /** How long the event loop may stand still before this node counts as dead. Default 300000 (5 minutes). */
  maxStall?: number;
  /** How often a message may end its node before it is a dead letter. Default 5. */
  maxCrashes?: number;
  /** Whether a run that ended with its node is one of the attempts that `maxRetries` allows. Default false. */
  crashCounts?: boolean;
  /** How long `close` waits for running handlers. Default 10000. */
  closeTimeout?: number;
}

/** Leases below this could not be renewed in time on a busy machine. */
const SHORTEST_LEASE = 500;
const LONGEST = 2 ** 41;

/** The settings as Rust reads them. Throws a `TypeError` that names the one that is wrong. */
export function serializeSettings({ lease, maxRun, maxStall, maxCrashes, crashCounts }: ServerQueueSettings): string {
  const whole = (name: string, value: number | undefined, least: number): number | undefined => {
    if (value === undefined) return undefined;
    if (typeof value !== 'number' || !(value >= least)) throw invalid(`the option ${name} of an event queue is a number from ${least}: ${String(value)}`);
    return Math.min(Math.ceil(value), LONGEST);
  };
  if (crashCounts !== undefined && typeof crashCounts !== 'boolean') {
    throw invalid(`the option crashCounts of an event queue is a boolean: ${String(crashCounts)}`);
  }
  return JSON.stringify({
    lease: whole('lease', lease, SHORTEST_LEASE),
    maxRun: whole('maxRun', maxRun, 1),
    maxStall: whole('maxStall', maxStall, 1),
    maxCrashes: Math.min(whole('maxCrashes', maxCrashes, 1) ?? 5, 1000),
    crashCounts,
  });
}
