import { invalid, MortiseError } from '../errors';
import type { Application } from './application';
import type { Plugin, PluginClass, PluginOptions } from './plugin';

/** The plugins of an app. */
export class PluginManager {
  private readonly plugins: Plugin[] = [];
  private prepared = 0;

  constructor(private readonly app: Application) {}

  /** Adds a plugin; the app must not have been loaded yet. */
  add<P extends Plugin>(Class: PluginClass<P>, options: PluginOptions = {}): P {
    if (typeof Class !== 'function') throw invalid('a plugin is a class that extends Plugin');
    const plugin = new Class(this.app, options);
    if (plugin.name && this.plugins.some((other) => other.name === plugin.name)) {
      throw new MortiseError('E_PLUGIN_NAME', `there is a plugin called ${plugin.name} already`);
    }
    this.plugins.push(plugin);
    return plugin;
  }

  /** The plugin of that class or name; `undefined` when there is none. */
  get<P extends Plugin = Plugin>(classOrName: PluginClass<P> | string): P | undefined {
    const found = this.plugins.find((plugin) =>
      typeof classOrName === 'string' ? plugin.name === classOrName : plugin.constructor === classOrName);
    return found as P | undefined;
  }

  /** All plugins, in the order in which they were added. */
  getPlugins(): readonly Plugin[] {
    return this.plugins;
  }

  /** Whether every plugin has been loaded. */
  get allLoaded(): boolean {
    return this.prepared === this.plugins.length;
  }

  /** Calls the hooks of loading, for the plugins that were added since the last time. */
  async load(): Promise<void> {
    const plugins = this.plugins.slice(this.prepared);
    for (const plugin of plugins) await this.call(plugin, 'afterAdd');
    for (const plugin of plugins) {
      await this.app.emitAsync('beforeLoadPlugin', plugin);
      await this.call(plugin, 'beforeLoad');
    }
    for (const plugin of plugins) await this.call(plugin, 'load');
    this.prepared = this.plugins.length;
  }

  private async call(plugin: Plugin, hook: 'afterAdd' | 'beforeLoad' | 'load'): Promise<void> {
    try {
      await plugin[hook]();
    } catch (error) {
      this.app.logger.error(`${hook} of plugin ${plugin.name ?? plugin.constructor.name} failed`, error);
      throw error;
    }
  }
}
