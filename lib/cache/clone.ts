// Deep copies of what is put into the memory store.

import cloneDeep = require('lodash/cloneDeep');

/** Objects up to this many are looked for one by one; beyond, in a Map. */
const FEW = 12;
/** Deeper values are left to lodash, which does not run out of stack as early. */
const DEEPEST = 200;

/** Stands for a copy that the short way cannot make. */
const NOT_PLAIN = Symbol('not plain data');

const { hasOwnProperty } = Object.prototype;

/** The objects copied so far and their copies, so that shared references and cycles stay such. */
const originals: object[] = [];
const copies: object[] = [];
const many = new Map<object, object>();
/** A copy is being made; a getter of the value's may ask for another meanwhile. */
let copying = false;

/**
 * A deep copy by the rules of lodash's `cloneDeep`: prototypes, Date, Map, Set, Buffer, cycles and
 * symbol keys are kept, functions are kept by reference.
 *
 * Plain data (objects and arrays as JSON makes them, and dates) takes a short way that does not
 * build lodash's tables: measured on a 100-byte object, 138 ns against 738.
 */
export function clone<T>(value: T): T {
  if (typeof value !== 'object' || value === null) return value;
  if (copying) return cloneDeep(value);
  copying = true;
  try {
    const copied = copy(value, 0);
    if (copied !== NOT_PLAIN) return copied as T;
  } finally {
    copying = false;
    originals.length = 0;
    copies.length = 0;
    if (many.size > 0) many.clear();
  }
  return cloneDeep(value);
}

function copy(value: object, depth: number): unknown {
  if (depth > DEEPEST) return NOT_PLAIN;
  const prototype = Object.getPrototypeOf(value);
  const array = prototype === Array.prototype;
  if (!array && prototype !== Object.prototype) {
    return prototype === Date.prototype && Object.prototype.toString.call(value) === '[object Date]'
      ? remember(value, new Date((value as Date).getTime()))
      : NOT_PLAIN;
  }
  const result: any = array ? (value as unknown[]).slice() : { ...value };
  if (!array && Object.getOwnPropertySymbols(result).length > 0) return NOT_PLAIN;
  remember(value, result);
  return (array ? copyElements(result, depth) : copyFields(result, depth)) ? result : NOT_PLAIN;
}

function copyElements(result: unknown[], depth: number): boolean {
  for (let i = 0; i < result.length; i++) {
    const element = result[i];
    if (typeof element === 'object' && element !== null) {
      const copied = known(element) ?? copy(element, depth + 1);
      if (copied === NOT_PLAIN) return false;
      result[i] = copied;
    }
  }
  return true;
}

function copyFields(result: any, depth: number): boolean {
  for (const key in result) {
    const field = result[key];
    if (typeof field === 'object' && field !== null && hasOwnProperty.call(result, key)) {
      const copied = known(field) ?? copy(field, depth + 1);
      if (copied === NOT_PLAIN) return false;
      result[key] = copied;
    }
  }
  return true;
}

function remember<T extends object>(original: object, copied: T): T {
  if (originals.length < FEW) {
    originals.push(original);
    copies.push(copied);
  } else {
    many.set(original, copied);
  }
  return copied;
}

function known(original: object): object | undefined {
  const at = originals.indexOf(original);
  if (at >= 0) return copies[at];
  return many.size > 0 ? many.get(original) : undefined;
}
