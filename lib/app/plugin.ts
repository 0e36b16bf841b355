import type { PubSubGap } from '../pub-sub';
import type { TransactionLike } from '../sync-message';
import { MortiseError } from '../errors';
import type { Application } from './application';

/** What a plugin is added with; further fields are its own. */
export interface PluginOptions {
  /** The plugin's name, by which `app.pm.get` finds it and sync messages reach it. */
  name?: string;
  [option: string]: any;
}

/** A class that extends {@link Plugin}. */
export type PluginClass<P extends Plugin = Plugin> = new (app: Application, options: PluginOptions) => P;

/**
 * A part of an application. The hooks are called in the order in which they stand here; each may
 * be asynchronous, and an error that one throws ends the app's `load` or `start` with it.
 */
export class Plugin {
  constructor(
    readonly app: Application,
    readonly options: PluginOptions = {},
  ) {}

  /** The name given in the options. */
  get name(): string {
    return this.options.name as string;
  }

  /** Called when the app loads, first, for each plugin. */
  afterAdd(): void | Promise<void> {}

  /** Called for each plugin before any is loaded. */
  beforeLoad(): void | Promise<void> {}

  /** Creates what the plugin needs: caches, subscriptions, queues. */
  load(): void | Promise<void> {}

  /** For hosts that install their plugins once; never called by mortise itself. */
  install(): void | Promise<void> {}

  /** Called with each message that this plugin sent on another node. */
  handleSyncMessage?(message: any): void | Promise<void>;

  /**
   * Called when messages that this plugin sent on other nodes may have been missed (see {@link PubSubGap}):
   * whatever they would have told must be looked up afresh, caches emptied. Only with {@link handleSyncMessage}.
   */
  handleSyncGap?(gap: PubSubGap): void | Promise<void>;

  /**
   * Sends a message to this plugin on the other nodes; within a transaction, after its commit.
   * Never rejects: a failure is logged. Throws `plugin name invalid` for a plugin without a name.
   */
  async sendSyncMessage(message: any, options: { transaction?: TransactionLike } = {}): Promise<void> {
    if (!this.name) throw new MortiseError('E_PLUGIN_NAME', 'plugin name invalid');
    try {
      await this.app.syncMessageManager.publish(this.name, message, options);
    } catch (error) {
      this.app.logger.error(`sync message of plugin ${this.name} was not sent`, error);
    }
  }
}
