import type { Logger } from '../app/logger';
import { invalid, MortiseError } from '../errors';
import type { GapCallback, MessageCallback, PubSubGap, PubSubManager, PublishOptions } from '../pub-sub';

/** Options of {@link SyncMessageManager}. */
export interface SyncMessageManagerOptions {
  /** Milliseconds: equal messages within this time become one call. Default 1000. */
  debounce?: number;
  /** Call for the first message at once, and at the end of the debounce time only if others came. Default false. */
  leading?: boolean;
}

/** Options of {@link SyncMessageManager.subscribe}. */
export interface SyncSubscribeOptions {
  /** Called when messages may have been missed. */
  onGap?: GapCallback;
  /** Default: that of the manager. */
  leading?: boolean;
}

/** What a transaction must offer; Sequelize's does. */
export interface TransactionLike {
  /** Registers what is done after the commit. */
  afterCommit(callback: (...values: any[]) => any): unknown;
  /** Sequelize: `'commit'` or `'rollback'` once it has ended. */
  finished?: string;
  rollback?(...values: any[]): Promise<any>;
}

/** Options of {@link SyncMessageManager.publish}. */
export interface SyncPublishOptions extends PublishOptions {
  /** Publish after this transaction's commit, and never when it is rolled back. */
  transaction?: TransactionLike;
}

interface Host {
  name?: string;
  logger?: Logger;
  stopped?: boolean;
  db?: { closed?(): boolean };
  pubSubManager: Pick<PubSubManager, 'publish' | 'subscribe' | 'unsubscribe'>;
  on(event: string, listener: (...values: any[]) => any): unknown;
}

interface SyncPlugin {
  name?: string;
  handleSyncMessage?(message: any): unknown;
  handleSyncGap?(gap: PubSubGap): unknown;
}

const DEFAULT_DEBOUNCE = 1000;
/** How long to wait for a transaction's end where it cannot tell of a rollback, in milliseconds. */
const TRANSACTION_TIMEOUT = 50_000;

/**
 * Messages by which the nodes of an app keep in step. A plugin with `handleSyncMessage` hears those
 * that it sent with `sendSyncMessage` on other nodes.
 */
export class SyncMessageManager {
  private readonly debounce: number;
  private readonly leading: boolean;

  constructor(
    private readonly app: Host,
    options: SyncMessageManagerOptions = {},
  ) {
    this.debounce = options.debounce ?? DEFAULT_DEBOUNCE;
    this.leading = options.leading ?? false;
    const listener = (plugin: SyncPlugin): Promise<void> => this.subscribePlugin(plugin);
    app.on('beforeLoadPlugin', Object.assign(listener, { _reinitializable: true }));
  }

  /**
   * Publishes to the other nodes (`skipSelf` is true by default). Within a `transaction`: after its
   * commit, never on rollback; resolves when published.
   *
   * Rejects with `E_TRANSACTION_ROLLED_BACK` after a rollback, where the transaction can tell, and
   * with `E_TRANSACTION_TIMEOUT` when it has not ended after 50 s.
   */
  async publish(channel: string, message: any, options: SyncPublishOptions = {}): Promise<void> {
    const { transaction, skipSelf = true, onlySelf } = options ?? {};
    const send = (): Promise<void> =>
      this.app.pubSubManager.publish(this.channel(channel), message, { skipSelf, onlySelf });
    if (!transaction) return send();
    if (typeof transaction.afterCommit !== 'function') throw invalid('a transaction has the method afterCommit');
    await afterCommit(transaction, send, channel, message);
  }

  /** Calls `callback` with each message on the channel; equal ones within the debounce time once. */
  async subscribe(channel: string, callback: MessageCallback, options: SyncSubscribeOptions = {}): Promise<void> {
    const { onGap, leading = this.leading } = options ?? {};
    // As it was subscribed here, and not with what comes before it on pub/sub.
    const told = onGap && ((gap: PubSubGap) => onGap({ ...gap, channel }));
    await this.app.pubSubManager.subscribe(this.channel(channel), callback, {
      debounce: this.debounce, ...(leading ? { leading } : {}), ...(told ? { onGap: told } : {}),
    });
  }

  /** Ends a subscription. */
  async unsubscribe(channel: string, callback: MessageCallback): Promise<void> {
    await this.app.pubSubManager.unsubscribe(this.channel(channel), callback);
  }

  private channel(channel: string): string {
    if (typeof channel !== 'string' || channel === '') throw invalid(`a channel is a string that is not empty: ${String(channel)}`);
    return `${this.app.name}.sync.${channel}`;
  }

  private async subscribePlugin(plugin: SyncPlugin): Promise<void> {
    if (!plugin.name || typeof plugin.handleSyncMessage !== 'function') return;
    const closed = (): boolean => Boolean(this.app.stopped || this.app.db?.closed?.());
    const callback = async (message: any): Promise<void> => {
      if (!closed()) await plugin.handleSyncMessage?.(message);
    };
    const onGap = async (gap: PubSubGap): Promise<void> => {
      if (!closed()) await plugin.handleSyncGap?.(gap);
    };
    await this.subscribe(plugin.name, callback, { onGap });
  }
}

/** Does `send` after the commit; settles with it, or with the transaction's end. */
function afterCommit(
  transaction: TransactionLike,
  send: () => Promise<void>,
  channel: string,
  message: unknown,
): Promise<void> {
  if (transaction.finished === 'rollback') return Promise.reject(rolledBack(channel));
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => settle(() => reject(timedOut(channel, message))), TRANSACTION_TIMEOUT);
    timer.unref();
    const forget = onRollback(transaction, () => settle(() => reject(rolledBack(channel))));
    const settle = (end: () => void): void => {
      clearTimeout(timer);
      forget();
      end();
    };
    transaction.afterCommit(async () => {
      // Without waiting: a commit must not wait for a message.
      send().then(() => settle(resolve), (error: unknown) => settle(() => reject(error)));
    });
    // Committed before the hook was there: Sequelize would never call it.
    if (transaction.finished === 'commit') send().then(() => settle(resolve), (error: unknown) => settle(() => reject(error)));
  });
}

const ROLLBACK_HOOKS = Symbol('mortise.rollback');

/** Calls `callback` when the transaction has been rolled back; returns what ends that. */
function onRollback(transaction: TransactionLike, callback: () => void): () => void {
  const { rollback } = transaction;
  if (typeof rollback !== 'function') return () => undefined;
  const host = transaction as TransactionLike & { [ROLLBACK_HOOKS]?: Set<() => void> };
  let hooks = host[ROLLBACK_HOOKS];
  if (!hooks) {
    const created = new Set<() => void>();
    hooks = created;
    Object.defineProperty(host, ROLLBACK_HOOKS, { value: created });
    // An own method of this transaction alone, in front of its class's.
    host.rollback = async function (this: unknown, ...values: any[]) {
      try {
        return await rollback.apply(this ?? transaction, values);
      } finally {
        // Also when the rollback failed: what was not committed never will be.
        for (const hook of [...created]) hook();
      }
    };
  }
  hooks.add(callback);
  const registered = hooks;
  return () => registered.delete(callback);
}

function rolledBack(channel: string): MortiseError {
  return new MortiseError('E_TRANSACTION_ROLLED_BACK', `the transaction was rolled back, nothing was published on ${channel}`);
}

function timedOut(channel: string, message: unknown): MortiseError {
  const text = `Publish message to ${channel} timeout, channel: ${channel}, message: ${safeJson(message)}`;
  return new MortiseError('E_TRANSACTION_TIMEOUT', text);
}

function safeJson(value: unknown): string {
  try {
    return JSON.stringify(value);
  } catch {
    return String(value);
  }
}
