// The worker id of an application that makes its services anew: NocoBase gives its id back at each restart, asks for
// another one, and goes on generating ids with the one that it had first.

import { setTimeout } from 'node:timers/promises';
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

/** From one try to get an id in place of a lost one to the next, in milliseconds. */
const AGAIN = 1000;

/** One id for an application from its first start until it stops, whatever it makes anew in between. */
export class HostWorkerId implements IWorkerIdAdapter {
  private readonly ids: RedisWorkerIdAdapter;
  /** From the first question until the application has stopped. */
  private active = false;

  private constructor(private readonly host: Host, options: RedisWorkerIdOptions) {
    const lost = (): void => {
      options.onLost?.();
      void this.renew();
    };
    this.ids = new RedisWorkerIdAdapter({ ...options, onLost: lost });
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

  /** The application has another allocator now. */
  static endOf(host: Host): void {
    void held.get(host)?.adapter.end();
    held.delete(host);
  }

  async getWorkerId(): Promise<number> {
    this.active = true;
    const id = await this.ids.getWorkerId();
    this.generateWith(id);
    return id;
  }

  /** Does nothing: it is called at restarts, too, and the application has the id until it has stopped. */
  async release(): Promise<void> {}

  /** One that was stopped, and is started again without loading, asks for no id. */
  private async begin(): Promise<void> {
    const { host } = this;
    if (held.get(host)?.adapter !== this || host.options?.instanceId !== undefined || host.instanceId === undefined) return;
    this.adopt(await this.getWorkerId());
  }

  private async end(): Promise<void> {
    this.active = false;
    await this.ids.release();
  }

  /** Until there is another id, or the application has stopped. */
  private async renew(): Promise<void> {
    for (let tries = 0; this.active; tries++) {
      try {
        this.adopt(await this.getWorkerId());
        return;
      } catch (error) {
        const { host } = this;
        const message = `app ${host.name} has no worker id of its own: the ids that it generates may be those of another node`;
        if (tries === 0 && this.active) host.logger?.error(message, error);
        await setTimeout(AGAIN, undefined, { ref: false });
      }
    }
  }

  private adopt(id: number): void {
    // `instanceId` itself has no setter.
    (this.host as { _instanceId?: number })._instanceId = id;
    this.generateWith(id);
  }

  /** The application makes its generator once, and keeps it over restarts. */
  private generateWith(id: number): void {
    const { host } = this;
    const { snowflakeIdGenerator: present } = host;
    if (!present || present.workerId === id) return;
    const Generator = present.constructor as new (options: { workerId: number }) => { workerId?: number };
    host.snowflakeIdGenerator = new Generator({ workerId: id });
  }
}
