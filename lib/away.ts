// Errors that tell that a server could not be asked.

const AWAY = new Set<unknown>(['E_UNAVAILABLE', 'E_TIMEOUT', 'E_CLOSED']);
const nothing = (): void => undefined;

/** Whether an error tells that the server could not be asked, as opposed to what it answered. */
export function isAway(error: unknown): boolean {
  return AWAY.has((error as { code?: unknown } | undefined)?.code);
}

/**
 * Has a promise that rejects with such an error be no unhandled rejection, which would end the process of those
 * who call and do not look, as NocoBase deletes entries of its cache. Who looks is told as ever.
 */
export function pardon(promise: Promise<unknown>, error: unknown): void {
  if (isAway(error)) promise.catch(nothing);
}

/** The promise, as one that {@link pardon} was asked for. `told` hears of such an error, which perhaps nobody else does. */
export function pardoned<T>(promise: Promise<T>, told?: (error: unknown) => void): Promise<T> {
  const result = new Promise<T>((resolve, reject) => {
    promise.then(resolve, (error: unknown) => {
      pardon(result, error);
      if (told && isAway(error)) told(error);
      reject(error);
    });
  });
  return result;
}

/** Has the promises pardoned that methods of an object of others give. */
export function pardonCalls(object: any, methods: readonly string[], told?: (error: unknown) => void): void {
  for (const method of methods) {
    if (typeof object?.[method] !== 'function') continue;
    // Looked for at each call, for the methods of a class may be spied on.
    const own = Object.hasOwn(object, method) ? object[method] : undefined;
    const call = (...values: unknown[]): unknown => {
      const result = (own ?? Object.getPrototypeOf(object)[method]).apply(object, values);
      return result instanceof Promise ? pardoned(result, told) : result;
    };
    Object.defineProperty(object, method, { value: call, writable: true, configurable: true });
  }
}
