import { type Cache, CacheManager } from '../cache';
import { invalid, MortiseError } from '../errors';
import { EventQueue } from '../event-queue';
import { LockManager } from '../lock';
import { PubSubManager } from '../pub-sub';
import { SyncMessageManager } from '../sync-message';
import { WorkerIdAllocator } from '../worker-id';
import type { Logger } from './logger';
import { type AppOptions, resolveOptions } from './options';

/** An application that has services of its own, such as NocoBase's. */
export interface HostApplication {
  name?: string;
  logger?: Logger;
  on(event: string, listener: (...values: any[]) => any): unknown;
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

const installed = new WeakMap<object, InstalledServices>();

/**
 * Puts the services into an application that exists: before it is started, and once; a second
 * call changes nothing. The services connect at the host's `afterStart` and close at its
 * `beforeStop` and `afterStop`.
 *
 * Publishing on pub/sub reaches this node too unless the call or `pubSubManager.skipSelf` says
 * otherwise, as in NocoBase's code.
 */
export function install(app: HostApplication, options: AppOptions = {}): InstalledServices {
  if (typeof app?.on !== 'function') throw invalid('install takes an application, which has the method on');
  const present = installed.get(app);
  if (present) return present;
  const { name = app.name ?? 'main', logger = app.logger, ...resolved } = resolveOptions(options);
  const view = hostView(app, name, logger);
  const cacheManager = new CacheManager({ prefix: name, logger, ...resolved.cacheManager });
  const services: InstalledServices = {
    cacheManager,
    cache: cacheManager.createCacheSync({ name }),
    pubSubManager: new PubSubManager(view, { adapter: 'memory', skipSelf: false, ...resolved.pubSubManager }),
    syncMessageManager: undefined as never,
    eventQueue: new EventQueue(view, resolved.eventQueue),
    lockManager: new LockManager({ logger, app: name, ...resolved.lockManager } as ConstructorParameters<typeof LockManager>[0]),
    workerIdAllocator: new WorkerIdAllocator({ app: name, logger, ...resolved.workerIdAllocator }),
  };
  for (const [member, service] of Object.entries(services)) if (service) put(app, member, service);
  // Last, for it subscribes through the host's pub/sub, which is ours now.
  services.syncMessageManager = new SyncMessageManager(view, resolved.syncMessageManager);
  put(app, 'syncMessageManager', services.syncMessageManager);
  listen(app, services);
  installed.set(app, services);
  return services;
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

function listen(app: HostApplication, services: InstalledServices): void {
  const on = (event: string, action: () => Promise<unknown>): void => {
    const listener = async (): Promise<void> => {
      await action();
    };
    // Hosts that make their services anew on a restart keep the listeners marked so.
    app.on(event, Object.assign(listener, { _reinitializable: true }));
  };
  on('afterStart', async () => {
    await services.pubSubManager.connect();
    await services.eventQueue.connect();
  });
  on('beforeStop', async () => {
    await services.pubSubManager.close();
    await services.eventQueue.close();
  });
  on('afterStop', async () => {
    await services.lockManager.close();
    await services.cacheManager.close();
    await services.workerIdAllocator.release();
  });
}
