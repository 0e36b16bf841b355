// What a caller may pass: checked before anything happens.

import { invalid } from '../errors';

/** How long a lock is held at most unless its caller says otherwise, in milliseconds. */
export const DEFAULT_TTL = 500;

function show(value: unknown): string {
  return typeof value === 'number' ? String(value) : value === null ? 'null' : typeof value;
}

export function checkKey(key: unknown): void {
  if (typeof key !== 'string') throw invalid(`a lock's key must be a string, not ${show(key)}`);
}

/** Fractions are rounded up to the next millisecond; `Infinity` is for ever. */
export function checkTtl(ttl: unknown, name = 'ttl'): void {
  if (typeof ttl !== 'number' || !(ttl > 0)) {
    throw invalid(`${name} must be a number of milliseconds above 0, not ${show(ttl)}`);
  }
}

export function checkTimeout(timeout: unknown): void {
  if (typeof timeout !== 'number' || !(timeout >= 0)) {
    throw invalid(`timeout must be a number of milliseconds, 0 or more, not ${show(timeout)}`);
  }
}

export function checkFunction(fn: unknown): void {
  if (typeof fn !== 'function') throw invalid(`fn must be a function, not ${show(fn)}`);
}
