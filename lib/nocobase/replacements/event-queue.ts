// In place of the server's event-queue.

import { reinitializable } from '../../app/reinitializable';
import { pardoned } from '../../away';
import { EventQueue as Base, type EventQueueOptions, type QueueMessageOptions } from '../../index';
import { markReplacement, readEnvironment } from '../environment';
import { type HostApplication, listenWhileServing, ServiceLife } from './host';

export { MemoryEventQueueAdapter } from '../../index';

/** Connects and closes with the app, as the host's does, and takes from the environment what the options leave out. */
export class EventQueue extends Base {
  readonly #app: HostApplication;
  readonly #life: ServiceLife;

  constructor(app: HostApplication, options?: EventQueueOptions) {
    super(app, { ...readEnvironment().queue, ...options });
    this.#app = app;
    this.#life = ServiceLife.of(app);
    this.#life.queue = this;
    // The host closes its queue after the database, which handlers that run still need. Listened to last, after the
    // plugins, which may publish while they stop.
    const beforeStop = reinitializable(() => this.close());
    listenWhileServing(app, 'afterStart', async () => {
      await this.connect();
      app.off('beforeStop', beforeStop);
      app.on('beforeStop', beforeStop);
    });
  }

  /** Plugins of the host call it without awaiting it. */
  override publish(channel: string, message: any, options?: QueueMessageOptions): Promise<string> {
    const told = (error: unknown) => this.#app.logger?.error(`a message for the event queue's channel ${channel} was not published`, error);
    return pardoned(super.publish(channel, message, options), told);
  }

  /** After the queue that the app had before has stored what it left. */
  override async connect(): Promise<void> {
    await this.#life.begun;
    await super.connect();
  }
}
markReplacement(EventQueue);
