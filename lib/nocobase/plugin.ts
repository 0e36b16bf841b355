import { hostServer } from '../index';
import { plug, takeOver } from './plug';

const { Application, Plugin } = hostServer() as {
  Application: { addCommand(callback: (app: any) => void): void };
  Plugin: new (app: any, options?: any) => any;
};

let announced = false;

/**
 * A plugin for an unmodified NocoBase: its pub/sub, event queue, locks, worker ids and caches run on Redis or RabbitMQ
 * as the environment variables say. Without them nothing is changed; see docs/nocobase.md.
 */
export default class MortisePlugin extends Plugin {
  /** Called by NocoBase before there is an application: each one is served from its first moment on. */
  static staticImport(): void {
    if (announced) return;
    announced = true;
    Application.addCommand((app) => plug(app));
  }

  /** Why nothing could be plugged. */
  private failure: { error: unknown } | undefined;

  /** For applications that were made before, or by code that knows of no static imports. */
  async afterAdd(): Promise<void> {
    try {
      if (plug(this.app)) await takeOver(this.app);
    } catch (error) {
      this.failure = { error };
      throw error;
    }
  }

  /** NocoBase logs what `afterAdd` throws, and would go on alone, as if it were its only node. */
  async beforeLoad(): Promise<void> {
    if (this.failure) throw this.failure.error;
  }

  /** There are no collections, migrations or translations beside this file, where NocoBase would look for them. */
  async getPluginBasePath(): Promise<undefined> {
    return undefined;
  }
}
