// In place of the server's pub-sub-manager.

import { pardoned } from '../../away';
import { PubSubManager as Base, type PubSubManagerOptions, type PublishOptions } from '../../index';
import { markReplacement, readEnvironment } from '../environment';
import { type HostApplication, listenWhileServing, ServiceLife } from './host';
import { LockManager } from './lock';
import { WorkerIdAllocator } from './worker-id';

/** Has an adapter when the environment or the options say so; without one it is not connected, as the host's. */
export class PubSubManager extends Base {
  readonly #app: HostApplication;

  constructor(app: HostApplication, options?: PubSubManagerOptions) {
    const { pubSub, redis } = readEnvironment();
    super(app, { ...(pubSub ? { adapter: 'redis' } : {}), url: pubSub?.url ?? redis, ...options });
    this.#app = app;
  }

  /** Plugins of the host call it without awaiting it. */
  override publish(channel: string, message: any, options?: PublishOptions): Promise<void> {
    const told = (error: unknown) => this.#app.logger?.error(`a message for pub/sub's channel ${channel} was not published`, error);
    return pardoned(super.publish(channel, message, options), told);
  }
}
markReplacement(PubSubManager);

/**
 * As the server's: makes the manager, which connects and closes with the app. It is the first that the app makes
 * of those that know the app, and so where the life of its services begins.
 */
export function createPubSubManager(app: HostApplication, options?: PubSubManagerOptions): PubSubManager {
  const manager = new PubSubManager(app, options);
  const life = ServiceLife.begin(app);
  listenWhileServing(app, 'afterStart', () => manager.connect());
  listenWhileServing(app, 'beforeStop', () => manager.close());
  if (app.workerIdAllocator instanceof WorkerIdAllocator) app.workerIdAllocator.belongTo(app);
  // The app makes it next, without telling it whose it is.
  queueMicrotask(() => {
    if (!(app.lockManager instanceof LockManager)) return;
    app.lockManager.belongTo(app.name, app.logger);
    life.locks = app.lockManager;
  });
  return manager;
}
