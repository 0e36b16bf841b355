import { hostServer } from '../index';
import { isRunning, plug, plugCaches, unplugFormer } from './plug';

const { Application, Plugin } = hostServer() as {
  Application: { addCommand(callback: (app: any) => void): void };
  Plugin: new (app: any, options?: any) => any;
};

let announced = false;
let watching = false;

/** A plugin that was disabled is not asked when the application makes other managers. */
function unplugOnceDisabled(): void {
  if (watching || announced) return;
  watching = true;
  Application.addCommand((app) => unplugFormer(app));
}

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
      unplugOnceDisabled();
      if (!isRunning(this.app) && plug(this.app)) await plugCaches(this.app);
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
