import { reinitializable } from '../../app/reinitializable';
import type { Cache, CacheManager, EventQueue, LockManager, Logger } from '../../index';

/** What the managers use of NocoBase's application. */
export interface HostApplication {
  name: string;
  logger?: Logger;
  cache?: Cache;
  context?: { cache?: Cache };
  lockManager?: unknown;
  workerIdAllocator?: unknown;
  on(event: string, listener: (...values: any[]) => any): unknown;
  off(event: string, listener: (...values: any[]) => any): unknown;
}

/** Listens for as long as the app keeps the services that it has now. */
export function listenWhileServing(app: HostApplication, event: string, listener: () => Promise<void>): void {
  app.on(event, reinitializable(listener));
}

const lives = new WeakMap<HostApplication, ServiceLife>();

/**
 * The services of an app from one making to the next. The app closes some of them itself, and some only when it stops:
 * the queue not when it restarts, locks never, of its cache managers the last. Here all of them let go of their servers.
 */
export class ServiceLife {
  /** Those before have let go. */
  readonly begun: Promise<void>;
  queue: EventQueue | undefined;
  locks: LockManager | undefined;
  /** An app makes several while it loads, and its plugins keep caches of each. */
  readonly cacheManagers = new Set<CacheManager>();

  private constructor(private readonly app: HostApplication, former: ServiceLife | undefined) {
    this.begun = former?.close() ?? Promise.resolve();
    listenWhileServing(app, 'beforeReload', () => this.close());
    listenWhileServing(app, 'afterStop', () => this.close());
  }

  /** That of the services which the app makes now. */
  static begin(app: HostApplication): ServiceLife {
    const life = new ServiceLife(app, lives.get(app));
    lives.set(app, life);
    return life;
  }

  /** That of the services which the app has. */
  static of(app: HostApplication): ServiceLife {
    return lives.get(app) ?? ServiceLife.begin(app);
  }

  /** May be repeated: what is used afterwards connects again. */
  async close(): Promise<void> {
    // What runs in the queue uses the others.
    await this.step('the event queue', () => this.queue?.close());
    for (const manager of this.cacheManagers) await this.step('a cache manager', () => manager.close());
    await this.step('the locks', () => this.locks?.close());
  }

  private async step(what: string, close: () => Promise<void> | undefined): Promise<void> {
    try {
      await close();
    } catch (error) {
      this.app.logger?.error(`closing ${what} of app ${this.app.name} failed`, error);
    }
  }
}
