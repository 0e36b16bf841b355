// Keys beside a key, in the slot of the key itself, so that a cluster can change both at once.

/**
 * `prefix` and `key` joined so that they share the key's slot; `undefined` for the few keys, with a
 * `}` but no hash tag, for which nothing does.
 */
export function beside(prefix: string, key: string): string | undefined {
  if (hasTag(key)) return prefix + key;
  return key.includes('}') ? undefined : `${prefix}{${key}}`;
}

/** Whether the first brace opens a hash tag, by the cluster specification. */
function hasTag(key: string): boolean {
  const open = key.indexOf('{');
  return open >= 0 && key.indexOf('}', open + 1) > open + 1;
}

/** The lease of the node that loads a key. Whoever changes the key deletes it, and what is loaded then is not stored. */
export function leaseKey(key: string): string | undefined {
  return beside('mortise:load:', key);
}
