// In place of the server's event-queue.

import { EventQueue as Base, type EventQueueOptions } from '../../index';
import { markReplacement, readEnvironment } from '../environment';
import { type HostApplication, listenWhileServing, ServiceLife } from './host';

export { MemoryEventQueueAdapter } from '../../index';

/** Connects and closes with the app, as the host's does, and takes from the environment what the options leave out. */
export class EventQueue extends Base {
  readonly #life: ServiceLife;

  constructor(app: HostApplication, options?: EventQueueOptions) {
    super(app, { ...readEnvironment().queue, ...options });
    this.#life = ServiceLife.of(app);
    this.#life.queue = this;
    listenWhileServing(app, 'afterStart', () => this.connect());
  }

  /** After the queue that the app had before has stored what it left. */
  override async connect(): Promise<void> {
    await this.#life.begun;
    await super.connect();
  }
}
markReplacement(EventQueue);
