// In place of the server's worker-id-allocator.

import { HostWorkerId, WorkerIdAllocator as Base } from '../../index';
import { markReplacement, readEnvironment } from '../environment';
import type { HostApplication } from './host';

/** Takes its ids from where the environment says; else they are random, as the host's. */
export class WorkerIdAllocator extends Base {
  constructor() {
    const { workerIds } = readEnvironment();
    super(workerIds ? { adapter: 'redis', url: workerIds.url } : {});
  }

  /** The ids are those of this app from now on, which made the allocator without telling whose it is. */
  belongTo(app: HostApplication): void {
    const { workerIds } = readEnvironment();
    if (workerIds) this.setAdapter(HostWorkerId.of(app, { ...workerIds, app: app.name, logger: app.logger }));
  }
}
markReplacement(WorkerIdAllocator);
