import { type Logger, stderrLogger } from '../app/logger';
import { invalid } from '../errors';
import { binding, Completions, type Handle, listenWeakly } from '../native';
import { type RedisOptions, serializeOptions } from '../redis/options';
import type { IWorkerIdAdapter } from './adapter';

declare module '../native' {
  interface Binding {
    workerIdNew(options: string, app: string, lease: number, rest: number, listener: number): Handle;
    workerIdGet(node: Handle, listener: number, sequence: number): void;
    workerIdRelease(node: Handle, listener: number, sequence: number): void;
    workerIdIsHolding(node: Handle): boolean;
  }
}

/** Options of {@link RedisWorkerIdAdapter}, beside those of the connection. Times are milliseconds. */
export interface RedisWorkerIdOptions extends RedisOptions {
  /** The app, whose nodes share the ids. Default `'main'`. */
  app?: string;
  /** How long the id stays this node's while it cannot be renewed. From 100 to a day; default 10 000. */
  lease?: number;
  /** How long an id that was released or has lapsed is given to nobody. Up to a day; default 10 000. */
  rest?: number;
  /** Told when the id could not be renewed, and when it was lost. Default: to stderr. */
  logger?: Logger;
  /** Called when another node was given the id, so that it must not be used any more: `getWorkerId` gives a new one. */
  onLost?: () => void;
}

const LEASE = 10_000;
const REST = 10_000;
const SHORTEST_LEASE = 100;
const LONGEST = 24 * 3600 * 1000;
/** As Rust numbers them. */
const LEVELS = ['info', 'warn', 'error'] as const;

/** Those whose id is asked for or held: it is renewed until it is released, whoever still knows the adapter. */
const holding = new Set<RedisWorkerIdAdapter>();

let shared: Completions | undefined;

/**
 * One node's worker id on Redis: unique among the live nodes of an app, leased, and renewed off the main
 * thread. Each adapter is a node of its own. It connects when the id is asked for, and until it is released.
 */
export class RedisWorkerIdAdapter implements IWorkerIdAdapter {
  private readonly node: Handle;
  private readonly logger: Logger;
  private readonly onLost: (() => void) | undefined;

  /** Throws a `TypeError` that names the option when one is wrong. */
  constructor(options: string | RedisWorkerIdOptions = {}) {
    const connection = serializeOptions(options);
    const { app = 'main', lease = LEASE, rest = REST, logger = stderrLogger, onLost } = typeof options === 'string' ? {} : options;
    if (typeof app !== 'string' || app === '') throw invalid(`the option app of worker ids is a string that is not empty: ${String(app)}`);
    checkTime('lease', lease, SHORTEST_LEASE);
    checkTime('rest', rest, 0);
    checkLogger(logger);
    if (onLost !== undefined && typeof onLost !== 'function') throw invalid(`the option onLost of worker ids is a function: ${String(onLost)}`);
    this.logger = logger;
    this.onLost = onLost;
    this.node = binding.workerIdNew(connection, app, lease, rest, listenWeakly(this, RedisWorkerIdAdapter.told));
  }

  /**
   * The node's id, from 0 to 31; the same until it is released or lost. On a server where the app has no ids yet,
   * or that was restarted or replaced, the first takes up to 3 seconds, in which live nodes renew theirs. Where all
   * are taken, but some of them rest, it waits for those: up to `lease` and `rest` together.
   *
   * Rejects with `E_WORKER_IDS_EXHAUSTED` when all 32 are held, with `E_UNAVAILABLE` or `E_TIMEOUT` when the
   * server is away, and with `E_CLOSED` when `release` was called meanwhile.
   */
  async getWorkerId(): Promise<number> {
    const completions = (shared ??= new Completions({ convert: (value) => value }));
    holding.add(this);
    try {
      return await completions.wait<number>((sequence) => binding.workerIdGet(this.node, completions.listener, sequence));
    } finally {
      this.keepWhileHolding();
    }
  }

  /**
   * Gives the id back, and lets go of the connection. May be repeated. Never rejects, and waits at most a second
   * for a server that is away: what could not be given back lapses by itself.
   */
  async release(): Promise<void> {
    const completions = (shared ??= new Completions({ convert: (value) => value }));
    try {
      await completions.wait((sequence) => binding.workerIdRelease(this.node, completions.listener, sequence));
    } finally {
      this.keepWhileHolding();
    }
  }

  private keepWhileHolding(): void {
    if (binding.workerIdIsHolding(this.node)) holding.add(this);
    else holding.delete(this);
  }

  private static told(self: RedisWorkerIdAdapter, _: number, level: number, text: unknown): void {
    self.logger[LEVELS[level]](text as string);
    self.keepWhileHolding();
    if (LEVELS[level] === 'error') self.onLost?.();
  }
}

/** Options whose server is a URL or options of its own. */
export function withServer({ url = {}, ...rest }: Omit<RedisWorkerIdOptions, 'url'> & { url?: string | RedisOptions }): RedisWorkerIdOptions {
  if (typeof url === 'string') return { url, ...rest };
  if (typeof url === 'object' && url !== null) return { ...url, ...rest };
  throw invalid(`the option url of worker ids is a URL or an object: ${String(url)}`);
}

function checkTime(name: string, value: unknown, least: number): void {
  if (typeof value === 'number' && value >= least && value <= LONGEST) return;
  throw invalid(`the option ${name} of worker ids is a number of milliseconds from ${least} to ${LONGEST}: ${String(value)}`);
}

function checkLogger(logger: unknown): void {
  const methods = logger as Record<string, unknown> | null;
  if (LEVELS.every((level) => typeof methods?.[level] === 'function')) return;
  throw invalid(`the option logger of worker ids has the methods ${LEVELS.join(', ')}: ${String(logger)}`);
}
