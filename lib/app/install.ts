import { type Cache, CacheManager } from '../cache';
import { invalid, MortiseError } from '../errors';
import { EventQueue } from '../event-queue';
import { LockManager } from '../lock';
import { useLockErrorClasses } from '../lock/failures';
import { hostModule } from '../nocobase/host';
import { HostWorkerId } from '../nocobase/worker-id';
import { PubSubManager } from '../pub-sub';
import { SyncMessageManager } from '../sync-message';
import { WorkerIdAllocator } from '../worker-id';
import { withServer } from '../worker-id/redis-adapter';
import { HostServices } from './host-services';
import type { Logger } from './logger';
import { type AppOptions, resolveOptions } from './options';
import { reinitializable } from './reinitializable';

/** An application that has services of its own, such as NocoBase's. */
export interface HostApplication {
  name?: string;
  logger?: Logger;
  on(event: string, listener: (...values: any[]) => any): unknown;
  off?(event: string, listener: (...values: any[]) => any): unknown;
  once?(event: string, listener: (...values: any[]) => any): unknown;
  [member: string]: any;
}

/** The services that {@link install} has put into a host. */
export interface InstalledServices {
  cacheManager: CacheManager;
  cache: Cache;
  pubSubManager: PubSubManager;
  syncMessageManager: SyncMessageManager;
  eventQueue: EventQueue;
  lockManager: LockManager;
  workerIdAllocator: WorkerIdAllocator;
}

/** By the applications that they were put into. */
const installations = new WeakMap<object, Installation>();

/**
 * Puts the services into an application that exists: before it is started, and once; a second
 * call changes nothing. The services connect at the host's `afterStart`, and close at its
 * `beforeStop` and `afterStop`.
 *
 * A NocoBase makes its services anew when it restarts, is installed or upgraded: so do these, with the same options,
 * and the object that was returned has the new ones then.
 *
 * Publishing on pub/sub reaches this node too unless the call or `pubSubManager.skipSelf` says
 * otherwise, as in NocoBase's code.
 */
export function install(app: HostApplication, options: AppOptions = {}): InstalledServices {
  if (typeof app?.on !== 'function') throw invalid('install takes an application, which has the method on');
  const host = itself(app);
  const present = installations.get(host);
  if (present) return present.services;
  const { name = host.name ?? 'main', logger = logOf(host), ...resolved } = resolveOptions(options);
  const installation = new Installation(host, name, logger, resolved);
  installations.set(host, installation);
  renewWithTheHost(host);
  return installation.services;
}

/** NocoBase's plugins are given a proxy of their application. */
function itself(app: HostApplication): HostApplication {
  const { pm } = app;
  return typeof pm?.app?.on === 'function' ? pm.app : app;
}

/** NocoBase has another log after each restart. */
function logOf(host: HostApplication): Logger | undefined {
  if (!host.logger) return undefined;
  const at = (level: 'debug' | 'info' | 'warn' | 'error') => (message: string, ...details: unknown[]) => host.logger?.[level](message, ...details);
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') };
}

const renewing = new WeakSet<object>();

/** NocoBase calls back after it has made its services, and has classes of errors that its plugins know. */
function renewWithTheHost(host: HostApplication): void {
  // No other application is asked for the modules of NocoBase.
  if (typeof host.reInitEvents !== 'function') return;
  const Application = hostModule('@nocobase/server')?.Application;
  if (typeof Application?.addCommand !== 'function' || renewing.has(Application)) return;
  renewing.add(Application);
  Application.addCommand((app: HostApplication) => installations.get(app)?.renew());
  const { LockAcquireError, LockAbortError } = hostModule('@nocobase/lock-manager') ?? {};
  if (LockAcquireError && LockAbortError) useLockErrorClasses({ LockAcquireError, LockAbortError });
}

/** What one application has of ours. */
class Installation {
  /** The present ones. */
  readonly services = {} as InstalledServices;
  private readonly view: any;
  /** All that were made: while a NocoBase loads it makes several, and its plugins keep caches of each. */
  private readonly cacheManagers = new Set<CacheManager>();

  constructor(
    private readonly host: HostApplication,
    private readonly name: string,
    private readonly logger: Logger | undefined,
    private readonly options: AppOptions,
  ) {
    this.view = hostView(host, name, logger);
    this.renew();
  }

  /** Makes the services, and puts them in the place of those that the host has. */
  renew(): void {
    const { host, services, view, options, logger, name } = this;
    const former = { ...services };
    const formerCaches = [...this.cacheManagers];
    this.cacheManagers.clear();
    const theirs = new HostServices(host, Object.values(former));
    this.makeCaches();
    services.pubSubManager = new PubSubManager(view, { adapter: 'memory', skipSelf: false, ...options.pubSubManager });
    services.eventQueue = new EventQueue(view, options.eventQueue);
    services.lockManager = new LockManager({ logger, app: name, ...options.lockManager } as ConstructorParameters<typeof LockManager>[0]);
    services.workerIdAllocator = this.makeWorkerIds();
    for (const member of ['pubSubManager', 'eventQueue', 'lockManager', 'workerIdAllocator'] as const) put(host, member, services[member]);
    // Last, for it subscribes through the host's pub/sub, which is ours now.
    services.syncMessageManager = new SyncMessageManager(view, options.syncMessageManager);
    put(host, 'syncMessageManager', services.syncMessageManager);
    this.listen(theirs, { ...services });
    if (former.lockManager) close(former, formerCaches).catch((error) => logger?.warn('closing the services of before a restart failed', error));
  }

  private makeCaches(): CacheManager {
    const { host, services, name, logger, options } = this;
    const manager = new CacheManager({ prefix: name, logger, ...options.cacheManager });
    this.cacheManagers.add(manager);
    services.cacheManager = manager;
    services.cache = manager.createCacheSync({ name });
    put(host, 'cacheManager', manager);
    put(host, 'cache', services.cache);
    // Where NocoBase's middleware finds it.
    if (typeof host.context === 'object' && host.context !== null) host.context.cache = services.cache;
    // NocoBase makes its caches by this when it loads, and closes those before.
    if (typeof host.createCacheManager === 'function') put(host, 'createCacheManager', async () => this.makeCaches());
    return manager;
  }

  private makeWorkerIds(): WorkerIdAllocator {
    const { host, name, logger } = this;
    const { adapter, ...rest } = this.options.workerIdAllocator ?? {};
    const options = { app: name, logger, ...rest };
    return new WorkerIdAllocator(adapter === 'redis' ? { adapter: HostWorkerId.of(host, withServer(options)) } : { adapter, ...options });
  }

  private listen(theirs: HostServices, services: InstalledServices): void {
    const { host } = this;
    const { pubSubManager, eventQueue } = services;
    const beforeStop = reinitializable(async () => {
      await pubSubManager.close();
      await eventQueue.close();
    });
    host.on('afterStart', reinitializable(async () => {
      await theirs.handOver(pubSubManager, this.options.syncMessageManager?.debounce);
      await pubSubManager.connect();
      await eventQueue.connect();
      // After the plugins, which may publish while they stop.
      host.off?.('beforeStop', beforeStop);
      host.on('beforeStop', beforeStop);
    }));
    host.on('afterStop', reinitializable(() => close(services, [...this.cacheManagers])));
  }
}

async function close({ pubSubManager, eventQueue, lockManager, workerIdAllocator }: InstalledServices, cacheManagers: CacheManager[]): Promise<void> {
  await pubSubManager.close();
  await eventQueue.close();
  await lockManager.close();
  for (const manager of cacheManagers) await manager.close();
  await workerIdAllocator.release();
}

/** The host as the managers see it: its own members, with the name and logger that were chosen. */
function hostView(app: HostApplication, name: string, logger: Logger | undefined): any {
  return new Proxy(app, {
    get: (host, member) => {
      if (member === 'name') return name;
      if (member === 'logger') return logger;
      const value = Reflect.get(host, member);
      return typeof value === 'function' ? value.bind(host) : value;
    },
  });
}

/** Replaces a member also where the host has only a getter for it. */
function put(app: HostApplication, member: string, service: unknown): void {
  const done = Reflect.set(app, member, service) && app[member] === service;
  if (done || Reflect.defineProperty(app, member, { value: service, writable: true, configurable: true, enumerable: true })) return;
  throw new MortiseError('E_HOST', `the application does not let its ${member} be replaced`);
}
