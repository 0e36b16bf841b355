/**
 * A plugin for an unmodified NocoBase 2: pub/sub, event queue, locks, worker ids and caches of the application run on
 * Redis or RabbitMQ as the environment variables say. See `docs/nocobase.md`.
 *
 * `require('mortise/nocobase')` throws `E_HOST` where no `@nocobase/server` is found.
 */
declare class MortisePlugin {
  constructor(app: any, options?: any);
  /**
   * Serves every application from its first moment on; NocoBase calls it for its built-in plugins. Code that constructs
   * its own `Application` may call it before. May be repeated.
   */
  static staticImport(): void;
  readonly name: string;
  afterAdd(): Promise<void>;
  [member: string]: any;
}

export default MortisePlugin;
