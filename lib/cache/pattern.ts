import { binding } from './binding';

/** The keys that fit a glob pattern, which has the meaning that Redis gives it; all without one. */
export function filterKeys(keys: Iterable<string>, pattern: string | undefined): string[] {
  if (pattern === undefined || pattern === '*') return [...keys];
  const glob = binding.globNew(pattern);
  return [...keys].filter((key) => binding.globMatches(glob, key));
}

/** The pattern that only `text` fits. */
export function literal(text: string): string {
  return text.replace(/[*?[\]\\^]/g, '\\$&');
}
