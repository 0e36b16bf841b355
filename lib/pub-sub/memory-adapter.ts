import { binding } from './binding';
import { NativePubSubAdapter } from './native-adapter';

/** Carries texts within the process: between all apps and worker threads that name the same bus. */
export class MemoryPubSubAdapter extends NativePubSubAdapter {
  /** `bus`: who hears each other; default one for the process. */
  constructor(options: { bus?: string } = {}) {
    super(binding.memoryBusJoin(options.bus ?? ''), true);
  }
}
