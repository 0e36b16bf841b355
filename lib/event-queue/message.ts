// What may be published.

import { invalid } from '../errors';
import type { QueueBackoff, QueueMessageOptions } from './adapter';

/** Throws a `TypeError` unless it is a channel's name. */
export function checkChannel(channel: string): string {
  if (typeof channel !== 'string' || channel === '') throw invalid(`a channel is a string that is not empty: ${String(channel)}`);
  return channel;
}

/** Throws a `TypeError` that names the option which is wrong. */
export function checkMessage(channel: string, options: QueueMessageOptions, timeout: number, maxRetries: number): void {
  const { delay, id, backoff, headers, retried } = options;
  if (typeof timeout !== 'number' || !(timeout >= 0)) {
    throw invalid(`the timeout of a message on channel "${channel}" is a number of milliseconds: ${String(timeout)}`);
  }
  if (typeof maxRetries !== 'number' || !(maxRetries >= 0)) {
    throw invalid(`maxRetries of a message on channel "${channel}" is a number, 0 or more: ${String(maxRetries)}`);
  }
  if (delay !== undefined && !isMilliseconds(delay)) {
    throw invalid(`the delay of a message on channel "${channel}" is a number of milliseconds: ${String(delay)}`);
  }
  if (id !== undefined && (typeof id !== 'string' || id === '')) {
    throw invalid(`the id of a message on channel "${channel}" is a string that is not empty: ${String(id)}`);
  }
  if (headers !== undefined && (typeof headers !== 'object' || headers === null)) {
    throw invalid(`the headers of a message on channel "${channel}" are an object: ${String(headers)}`);
  }
  if (retried !== undefined && !(typeof retried === 'number' && retried >= 0 && retried < Infinity)) {
    throw invalid(`retried of a message on channel "${channel}" is a number, 0 or more: ${String(retried)}`);
  }
  if (backoff !== undefined) checkBackoff(channel, backoff);
}

function checkBackoff(channel: string, backoff: QueueBackoff): void {
  const of = `of a message on channel "${channel}"`;
  if (typeof backoff !== 'object' || backoff === null) throw invalid(`the backoff ${of} is an object: ${String(backoff)}`);
  const { type, delay, max, jitter } = backoff;
  if (type !== 'fixed' && type !== 'exponential') throw invalid(`backoff.type ${of} is 'fixed' or 'exponential': ${String(type)}`);
  if (!isMilliseconds(delay)) throw invalid(`backoff.delay ${of} is a number of milliseconds: ${String(delay)}`);
  if (max !== undefined && !isMilliseconds(max)) throw invalid(`backoff.max ${of} is a number of milliseconds: ${String(max)}`);
  if (jitter !== undefined && !(typeof jitter === 'number' && jitter >= 0 && jitter <= 1)) {
    throw invalid(`backoff.jitter ${of} is a number from 0 to 1: ${String(jitter)}`);
  }
}

function isMilliseconds(value: unknown): value is number {
  return typeof value === 'number' && value >= 0 && value < Infinity;
}
