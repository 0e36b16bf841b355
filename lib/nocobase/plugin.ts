import { hostServer } from '../index';
import { plug, plugCaches } from './plug';

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

  /** For applications that were made before, or by code that knows of no static imports. */
  async afterAdd(): Promise<void> {
    if (plug(this.app)) await plugCaches(this.app);
  }

  /** There are no collections, migrations or translations beside this file, where NocoBase would look for them. */
  async getPluginBasePath(): Promise<undefined> {
    return undefined;
  }
}
