// In place of the server's sync-message-manager.

import { pardoned } from '../../away';
import { SyncMessageManager as Base, type SyncMessageManagerOptions } from '../../index';
import { markReplacement } from '../environment';
import type { HostApplication } from './host';

type Host = ConstructorParameters<typeof Base>[0];

/** A `debounce` of 0 is the default, as with the host's, whose configuration has it so. */
export class SyncMessageManager extends Base {
  constructor(app: HostApplication, options?: SyncMessageManagerOptions) {
    super(app as unknown as Host, { ...options, debounce: options?.debounce || undefined });
  }

  /** Plugins of the host call it without awaiting it. */
  override publish(...values: Parameters<Base['publish']>): Promise<void> {
    return pardoned(super.publish(...values));
  }

  /** Does nothing, as the host's. */
  async sync(): Promise<void> {}
}
markReplacement(SyncMessageManager);
