// The worker id of an application that makes its services anew: NocoBase gives its id back at each restart, asks for
// another one, and goes on generating ids with the one that it had first.

import type { Logger } from '../app/logger';
import { reinitializable } from '../app/reinitializable';
import { type IWorkerIdAdapter, RedisWorkerIdAdapter, type RedisWorkerIdOptions } from '../worker-id';

/** What is used of the application. */
interface Host {
  name?: string;
  logger?: Logger;
  options?: { instanceId?: number };
  instanceId?: number;
  snowflakeIdGenerator?: { workerId?: number };
  on(event: string, listener: () => Promise<void>): unknown;
}

const held = new WeakMap<Host, { adapter: HostWorkerId; key: string }>();

/** One id for an application from its first start until it stops, whatever it makes anew in between. */
export class HostWorkerId implements IWorkerIdAdapter {
  private readonly ids: RedisWorkerIdAdapter;

  private constructor(private readonly host: Host, options: RedisWorkerIdOptions) {
    this.ids = new RedisWorkerIdAdapter({ ...options, onLost: () => void this.renew() });
  }

  /** That of `host`, which goes on with the one it has unless the options are others. To be called at each making of its services. */
  static of(host: Host, options: RedisWorkerIdOptions): HostWorkerId {
    const { logger: _, ...rest } = options;
    const key = JSON.stringify(rest);
    let present = held.get(host);
    if (present?.key !== key) {
      void present?.adapter.end();
      held.set(host, (present = { adapter: new HostWorkerId(host, options), key }));
    }
    const { adapter } = present;
    host.on('beforeStart', reinitializable(() => adapter.begin()));
    host.on('afterStop', reinitializable(() => adapter.end()));
    return adapter;
  }

  getWorkerId(): Promise<number> {
    return this.ids.getWorkerId();
  }

  /** Does nothing: it is called at restarts, too, and the application has the id until it has stopped. */
  async release(): Promise<void> {}

  /** One that was stopped, and is started again without loading, asks for no id. */
  private async begin(): Promise<void> {
    if (this.host.instanceId !== undefined) this.adopt(await this.ids.getWorkerId());
  }

  private async end(): Promise<void> {
    await this.ids.release();
  }

  private async renew(): Promise<void> {
    try {
      this.adopt(await this.ids.getWorkerId());
    } catch (error) {
      this.host.logger?.error(`app ${this.host.name} has no worker id of its own: the ids that it generates may be those of another node`, error);
    }
  }

  /** Has the application generate its ids with `id` from now on, unless it was given one by its options. */
  private adopt(id: number): void {
    const { host } = this;
    if (host.options?.instanceId !== undefined) return;
    // `instanceId` itself has no setter.
    (host as { _instanceId?: number })._instanceId = id;
    // Made once, and kept over restarts.
    const { snowflakeIdGenerator: present } = host;
    if (!present || present.workerId === id) return;
    const Generator = present.constructor as new (options: { workerId: number }) => { workerId?: number };
    host.snowflakeIdGenerator = new Generator({ workerId: id });
  }
}
