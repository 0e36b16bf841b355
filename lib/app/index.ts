export { Application, createApp } from './application';
export { type HostApplication, install, type InstalledServices } from './install';
export { type Logger, maskSecrets } from './logger';
export type { AppOptions } from './options';
export { Plugin, type PluginClass, type PluginOptions } from './plugin';
export { PluginManager } from './plugin-manager';
export { isTransient, serving } from './worker-mode';
