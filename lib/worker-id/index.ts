import type { Logger } from '../app/logger';
import { invalid, MortiseError } from '../errors';
import type { RedisOptions } from '../redis';
import type { IWorkerIdAdapter } from './adapter';
import { RedisWorkerIdAdapter, withServer } from './redis-adapter';

export type { IWorkerIdAdapter } from './adapter';
export { RedisWorkerIdAdapter, type RedisWorkerIdOptions } from './redis-adapter';

/** Options of {@link WorkerIdAllocator}. All but `adapter` are for `'redis'`. */
export interface WorkerIdAllocatorOptions {
  /** `'redis'`, or one of yours. Default: none, and ids are random. */
  adapter?: IWorkerIdAdapter | 'redis';
  /** URL or options of the server. */
  url?: string | RedisOptions;
  /** The app, whose nodes share the ids. Default `'main'`; under `createApp` and `install` the app's name. */
  app?: string;
  /** How long the id stays this node's while it cannot be renewed, in milliseconds. Default 10 000. */
  lease?: number;
  /** How long an id that was released or has lapsed is given to nobody, in milliseconds. Default 10 000. */
  rest?: number;
  /** Told when the id could not be renewed, and when it was lost. Default: the app's, else to stderr. */
  logger?: Logger;
  /** Called when another node was given the id, so that it must not be used any more: `getWorkerId` gives a new one. */
  onLost?: () => void;
}

/** How many ids there are: they are five bits of the ids that a node generates. */
const WORKER_IDS = 32;

/**
 * Gives the node a small number that tells it apart from the other nodes of its app. Without an
 * adapter it is random, and two nodes may have the same.
 */
export class WorkerIdAllocator {
  private adapter: IWorkerIdAdapter | undefined;

  constructor(options: WorkerIdAllocatorOptions = {}) {
    const { adapter, ...rest } = options;
    if (adapter === 'redis') {
      this.adapter = new RedisWorkerIdAdapter(withServer(rest));
    } else if (typeof adapter === 'string') {
      throw new MortiseError('E_ADAPTER_UNAVAILABLE', `worker id adapter "${String(adapter)}" is not known; known is: redis`);
    } else if (adapter) {
      this.setAdapter(adapter);
    }
  }

  /** Takes ids from `adapter` from now on. */
  setAdapter(adapter: IWorkerIdAdapter): void {
    if (typeof adapter?.getWorkerId !== 'function' || typeof adapter.release !== 'function') {
      throw invalid('a worker id adapter has the methods getWorkerId and release');
    }
    this.adapter = adapter;
  }

  /** An id from 0 to 31. */
  async getWorkerId(): Promise<number> {
    return this.adapter ? this.adapter.getWorkerId() : Math.floor(Math.random() * WORKER_IDS);
  }

  /** Gives the id back. */
  async release(): Promise<void> {
    await this.adapter?.release();
  }
}
