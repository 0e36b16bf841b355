import { AsyncLocalStorage } from 'node:async_hooks';
import { EventEmitter } from 'node:events';
import { type Cache, CacheManager } from '../cache';
import { EventQueue } from '../event-queue';
import { LockManager } from '../lock';
import { PubSubManager } from '../pub-sub';
import { SyncMessageManager } from '../sync-message';
import { WorkerIdAllocator } from '../worker-id';
import { type Logger, stderrLogger } from './logger';
import { type AppOptions, resolveOptions } from './options';
import type { Plugin, PluginClass, PluginOptions } from './plugin';
import { PluginManager } from './plugin-manager';
import { isTransient, serving } from './worker-mode';

/**
 * The app whose turn the running code belongs to: a hook that calls `stop` must not wait for itself.
 * On only while an app loads, starts or stops, since it makes every promise of the process slower; and the app is
 * taken out when its turn is over, since whatever the hooks began holds on to what is stored here.
 */
const turns = new AsyncLocalStorage<{ app: Application | undefined }>();
let turnsRunning = 0;

/** Where an app is in its life. */
type State = 'new' | 'loading' | 'loaded' | 'started' | 'stopping' | 'stopped';

/**
 * The services of one node, and the plugins that use them.
 *
 * `start` loads first if needed. Loading: for each plugin `afterAdd`; for each the event
 * `beforeLoadPlugin(plugin)` and `beforeLoad`; for each `load`; the event `afterLoad`. Starting:
 * the services connect; the event `afterStart`. Stopping: the event `beforeStop`; pub/sub closes
 * and delivers nothing after; the queue stops fetching and waits for running handlers; the event
 * `afterStop`; locks, caches and worker id are given back.
 */
export class Application extends EventEmitter {
  readonly name: string;
  readonly logger: Logger;
  readonly cacheManager: CacheManager;
  /** The default cache, named after the app. Usable as soon as the app is made. */
  readonly cache: Cache;
  readonly pubSubManager: PubSubManager;
  readonly syncMessageManager: SyncMessageManager;
  readonly eventQueue: EventQueue;
  readonly lockManager: LockManager;
  readonly workerIdAllocator: WorkerIdAllocator;
  /** The plugins. */
  readonly pm: PluginManager;
  private state: State = 'new';
  private everLoaded = false;
  /** What is being done, so that calls that come meanwhile wait their turn. */
  private turn: Promise<unknown> = Promise.resolve();

  constructor(options: AppOptions = {}) {
    super();
    const resolved = resolveOptions(options);
    this.name = resolved.name ?? 'main';
    this.logger = resolved.logger ?? stderrLogger;
    this.pm = new PluginManager(this);
    this.cacheManager = new CacheManager({ prefix: this.name, logger: this.logger, ...resolved.cacheManager });
    this.cache = this.cacheManager.createCacheSync({ name: this.name });
    this.pubSubManager = new PubSubManager(this, { adapter: 'memory', skipSelf: true, ...resolved.pubSubManager });
    this.syncMessageManager = new SyncMessageManager(this, resolved.syncMessageManager);
    this.eventQueue = new EventQueue(this, resolved.eventQueue);
    this.lockManager = new LockManager({ logger: this.logger, app: this.name, ...resolved.lockManager });
    this.workerIdAllocator = new WorkerIdAllocator({ app: this.name, logger: this.logger, ...resolved.workerIdAllocator });
  }

  /** Whether the app has been stopped, and not started again since. */
  get stopped(): boolean {
    return this.state === 'stopped';
  }

  /** Calls the listeners of an event one after the other, each awaited; the first error rejects. */
  async emitAsync(event: string | symbol, ...values: unknown[]): Promise<boolean> {
    const listeners = this.rawListeners(event);
    for (const listener of listeners) await listener.apply(this, values);
    return listeners.length > 0;
  }

  /** Adds a plugin; it is loaded with the app. */
  plugin<P extends Plugin>(Class: PluginClass<P>, options?: PluginOptions): P {
    return this.pm.add(Class, options);
  }

  /** Whether this node serves `key`, by `WORKER_MODE`; see {@link serving}. */
  serving(key?: string): boolean {
    return serving(key);
  }

  /** Whether this node serves nothing, by `WORKER_MODE`. */
  isTransient(): boolean {
    return isTransient();
  }

  /** Loads the plugins; those loaded before are not loaded again. */
  load(): Promise<void> {
    return this.inTurn(() => this.doLoad());
  }

  /** Loads if needed, and connects the services. Nothing when the app is started already. */
  start(): Promise<void> {
    return this.inTurn(async () => {
      if (this.state === 'started') return;
      await this.doLoad();
      // A hook may have stopped the app.
      if (this.state !== 'loaded') return;
      await this.pubSubManager.connect();
      await this.eventQueue.connect();
      this.state = 'started';
      await this.emitAsync('afterStart', this);
    });
  }

  /** Stops, and gives back all that the app holds; Node can exit then. Nothing when it is stopped already. */
  stop(): Promise<void> {
    return this.inTurn(async () => {
      if (this.state === 'stopped' || this.state === 'stopping') return;
      this.state = 'stopping';
      const errors: unknown[] = [];
      // What fails must not keep the rest from closing.
      const step = async (what: () => unknown): Promise<void> => {
        try {
          await what();
        } catch (error) {
          this.logger.error(`stopping app ${this.name}`, error);
          errors.push(error);
        }
      };
      await step(() => this.emitAsync('beforeStop', this));
      this.state = 'stopped';
      await step(() => this.pubSubManager.close());
      await step(() => this.eventQueue.close());
      await step(() => this.emitAsync('afterStop', this));
      await step(() => this.lockManager.close());
      await step(() => this.cacheManager.close());
      await step(() => this.workerIdAllocator.release());
      if (errors.length > 0) throw errors[0];
    });
  }

  private async doLoad(): Promise<void> {
    if (this.state === 'loading' || this.state === 'started') return;
    if (this.everLoaded && this.pm.allLoaded) {
      this.state = 'loaded';
      return;
    }
    this.state = 'loading';
    try {
      await this.pm.load();
      this.everLoaded = true;
      await this.emitAsync('afterLoad', this);
    } catch (error) {
      if (this.state === 'loading') this.state = 'new';
      throw error;
    }
    if (this.state === 'loading') this.state = 'loaded';
  }

  private inTurn<T>(action: () => Promise<T>): Promise<T> {
    if (turns.getStore()?.app === this) return action();
    const mine: { app: Application | undefined } = { app: this };
    const turn = this.turn.then(() => {
      turnsRunning++;
      return turns.run(mine, action);
    }).finally(() => {
      mine.app = undefined;
      if (--turnsRunning === 0) turns.disable();
    });
    this.turn = turn.catch(() => undefined);
    return turn;
  }
}

/** Makes the services of one node. Throws `E_UNKNOWN_OPTION` for option names that nobody knows. */
export function createApp(options: AppOptions = {}): Application {
  return new Application(options);
}
