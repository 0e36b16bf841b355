import type { Logger } from '../app/logger';
import type { QueueEventOptions } from './adapter';

const DEFAULT_INTERVAL = 250;

/** Whether messages of the channel may be fetched now; an `idle` that throws says no. */
export function isIdle(event: QueueEventOptions, channel: string, logger: Logger | undefined): boolean {
  if (typeof event.idle !== 'function') return true;
  try {
    return Boolean(event.idle());
  } catch (error) {
    logger?.error(`idle of event queue channel ${channel} failed`, error);
    return false;
  }
}

/** Calls `ask` when `idle` is to be asked again. It does not keep Node alive. */
export function askLater({ interval }: QueueEventOptions, ask: () => void): NodeJS.Timeout {
  const delay = typeof interval === 'number' && interval >= 0 ? interval : DEFAULT_INTERVAL;
  return setTimeout(ask, Math.min(delay, 2 ** 31 - 1)).unref();
}

/** What a handler's signal aborts with when its time is over. */
export function timeoutError(): DOMException {
  return new DOMException('The operation was aborted due to timeout', 'TimeoutError');
}
