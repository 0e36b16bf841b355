import { invalid, MortiseError } from '../errors';

/** Where worker ids come from; may be written in JavaScript. */
export interface IWorkerIdAdapter {
  /** An id from 0 to 31 that no other live node of the app has. */
  getWorkerId(): Promise<number>;
  /** Gives the id back. */
  release(): Promise<void>;
}

/** Options of {@link WorkerIdAllocator}. */
export interface WorkerIdAllocatorOptions {
  /** Default: none, and ids are random. */
  adapter?: IWorkerIdAdapter | 'redis';
  url?: unknown;
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
    if (typeof options.adapter === 'string') {
      const message = `worker id adapter "${String(options.adapter)}" is not available in this version`;
      throw new MortiseError('E_ADAPTER_UNAVAILABLE', message);
    }
    if (options.adapter) this.setAdapter(options.adapter);
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
