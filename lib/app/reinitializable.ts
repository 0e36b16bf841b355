/**
 * A listener for events of a host that makes its services anew, as NocoBase does when it restarts: it takes the
 * listeners with this mark off before that, and would call all others of before beside the new ones.
 */
export function reinitializable(action: () => unknown): () => Promise<void> {
  const listener = async (): Promise<void> => {
    await action();
  };
  return Object.assign(listener, { _reinitializable: true });
}
