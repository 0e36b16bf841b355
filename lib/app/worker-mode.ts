// What a node does, by the environment variable WORKER_MODE, which is read at each call.

/**
 * Whether this node serves `key` (a kind of work, such as a queue's); without a key, whether it
 * serves requests. `WORKER_MODE` unset or empty: everything; `-`: nothing; `*`: every key, but no
 * requests; else a list, separated by commas, of keys, with `!` for requests and `*` for every key.
 */
export function serving(key?: string): boolean {
  const mode = (process.env.WORKER_MODE ?? '').trim();
  if (mode === '') return true;
  if (mode === '-') return false;
  const items = mode.split(',').map((item) => item.trim());
  return key === undefined || key === '' ? items.includes('!') : items.includes('*') || items.includes(key);
}

/** Whether this node serves nothing: it only runs a command and ends. */
export function isTransient(): boolean {
  return process.env.WORKER_MODE?.trim() === '-';
}
