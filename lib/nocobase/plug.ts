// Puts adapters of ours into the managers of a NocoBase application, as the environment says.

import {
  hostModule, HostWorkerId, NO_QUEUE, RabbitMQEventQueueAdapter, RedisEventQueueAdapter, RedisLockAdapter, RedisPubSubAdapter, useLockErrorClasses,
} from '../index';
import { reinitializable } from '../app/reinitializable';
import { pardonCalls } from '../away';
import { CachePlug } from './caches';
import { type HostEnvironment, isReplacement, readEnvironment } from './environment';

/** What is used of a NocoBase application. */
export type Host = any;

/** Of each application: what is in the managers of its latest `init()`. */
const plugged = new WeakMap<Host, Plugged>();

/**
 * Plugs adapters into the managers of an application; nothing when that was done since they were made. Those of the
 * managers before them end. Returns whether something was plugged.
 *
 * Throws for wrong variables; see {@link readEnvironment}.
 */
export function plug(app: Host): boolean {
  const host = itself(app);
  const former = plugged.get(host);
  if (former?.isCurrent()) return false;
  const environment = readEnvironment();
  former?.retire();
  plugged.set(host, new Plugged(host, environment));
  return true;
}

/** Makes the caches of an application anew, which was given ours after it had made them. */
export async function plugCaches(app: Host): Promise<void> {
  const host = itself(app);
  if (!host.cacheManager || !plugged.get(host)?.caches) return;
  await host.cacheManager.close();
  await host.createCacheManager();
}

/**
 * Whether an application runs already. NocoBase restarts it when it has enabled a plugin: what it runs on is exchanged
 * then, and not under its feet. Throws for wrong variables, as {@link plug}.
 */
export function isRunning(app: Host): boolean {
  if (!itself(app)._started) return false;
  readEnvironment();
  return true;
}

/** The application has made other managers: ends what was plugged into those before, if it has not been already. */
export function unplugFormer(app: Host): void {
  const host = itself(app);
  const former = plugged.get(host);
  if (!former || former.isCurrent()) return;
  plugged.delete(host);
  former.retire();
  // The worker id stays where the plugin, which is added later, plugs again.
  host.on('beforeStart', reinitializable(() => {
    if (!plugged.has(host)) HostWorkerId.endOf(host);
  }));
}

/** Plugins are given a proxy of their application. */
function itself(app: Host): Host {
  return app.pm?.app ?? app;
}

/** What was plugged into the managers that one `init()` made. */
class Plugged {
  readonly caches: CachePlug | undefined;
  private readonly lockManager: any;
  private readonly logger: any;
  private readonly name: string;
  /** Ends what NocoBase itself does not close. */
  private readonly closing: (() => Promise<unknown>)[] = [];
  /** Takes what was plugged out of managers that were replaced, and that NocoBase still connects and closes. */
  private readonly unplugging: (() => void)[] = [];

  constructor(private readonly host: Host, environment: HostEnvironment) {
    this.lockManager = host.lockManager;
    this.logger = loggerOf(host);
    this.name = host.name ?? 'main';
    const { LockAcquireError, LockAbortError } = hostModule('@nocobase/lock-manager') ?? {};
    if (LockAcquireError && LockAbortError) useLockErrorClasses({ LockAcquireError, LockAbortError });
    // First, for another plugin may have taken the name.
    this.plugLocks(environment);
    this.plugWorkerIds(environment);
    this.plugPubSub(environment);
    this.plugQueue(environment);
    this.caches = CachePlug.into(host, environment.cache, this.logger);
    const { caches } = this;
    if (caches) {
      this.closing.push(() => caches.close());
      this.unplugging.push(() => caches.unplug());
    }
    this.listen('afterStop', () => this.close());
  }

  /** Whether the application still has the managers that were plugged. */
  isCurrent(): boolean {
    return this.lockManager === this.host.lockManager;
  }

  /** The application has made other managers. */
  retire(): void {
    for (const unplug of this.unplugging) unplug();
    this.close().catch((error) => this.logger.warn('closing the services of before a restart failed', error));
  }

  private async close(): Promise<void> {
    await Promise.all(this.closing.map((close) => close()));
  }

  private plugWorkerIds({ workerIds }: HostEnvironment): void {
    const { host, name, logger } = this;
    if (!workerIds || isReplacement(host.workerIdAllocator)) return;
    host.workerIdAllocator.setAdapter(HostWorkerId.of(host, { url: workerIds.url, app: name, logger }));
  }

  private plugPubSub({ pubSub }: HostEnvironment): void {
    const { pubSubManager, syncMessageManager } = this.host;
    if (!pubSub || isReplacement(pubSubManager)) return;
    const adapter = new RedisPubSubAdapter({ url: pubSub.url, app: this.name, logger: this.logger });
    pubSubManager.setAdapter(adapter);
    // Its plugins call it without awaiting it.
    pardonCalls(pubSubManager, ['publish'], (error) => this.logger.error('a message for pub/sub was not published', error));
    pardonCalls(syncMessageManager, ['publish']);
    this.closing.push(() => adapter.close());
    this.unplugging.push(() => {
      pubSubManager.setAdapter(undefined);
      // The sync messages of before a restart would subscribe each plugin once more, on the new pub/sub.
      syncMessageManager.subscribe = async () => undefined;
    });
  }

  private plugQueue({ queue }: HostEnvironment): void {
    const { eventQueue } = this.host;
    if (!queue || queue.adapter === 'memory' || isReplacement(eventQueue)) return;
    const Adapter = queue.adapter === 'redis' ? RedisEventQueueAdapter : RabbitMQEventQueueAdapter;
    const adapter = new Adapter({ url: queue.url, logger: this.logger });
    eventQueue.setAdapter(adapter);
    pardonCalls(eventQueue, ['publish'], (error) => this.logger.error('a message for the event queue was not published', error));
    this.closing.push(() => adapter.close());
    this.unplugging.push(() => eventQueue.setAdapter(NO_QUEUE));
    // NocoBase closes its queue after the database, which handlers that run still need. Listened to last, after the
    // plugins, which may publish while they stop.
    const beforeStop = reinitializable(() => adapter.close());
    this.listen('afterStart', () => {
      this.host.off('beforeStop', beforeStop);
      this.host.on('beforeStop', beforeStop);
    });
  }

  private plugLocks({ locks }: HostEnvironment): void {
    // A server alone does not take the name from adapters of others.
    if (locks.defaultAdapter !== 'redis' && !locks.named) return;
    if (isReplacement(this.lockManager)) return;
    const adapter = new RedisLockAdapter({ url: locks.url, app: this.name, logger: this.logger });
    // One that is made here, so that it can be closed: NocoBase never does that.
    this.lockManager.registerAdapter('redis', { Adapter: function RedisLocks() { return adapter; } });
    this.closing.push(() => adapter.close());
  }

  private listen(event: string, action: () => unknown): void {
    this.host.on(event, reinitializable(action));
  }
}

/** The log of the application, which makes another one with each `init()`. */
function loggerOf(host: Host): any {
  const at = (level: string) => (...values: unknown[]) => host.logger?.[level]?.(...values);
  return { trace: at('trace'), debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') };
}
