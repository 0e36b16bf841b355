import { invalid } from '../errors';

/** One host of several. */
export interface RedisNode {
  host: string;
  /** Default 6379; of a sentinel 26379. */
  port?: number;
}

/** How a connection to Redis (or Valkey) is encrypted. */
export interface RedisTls {
  /** Certificates of the authority, PEM. Default: the system's. */
  ca?: string;
  /** This client's certificate and its key, PEM. */
  cert?: string;
  key?: string;
  /** `false` accepts any certificate. Default true. */
  rejectUnauthorized?: boolean;
}

/**
 * Where a Redis (or Valkey) server is and how to talk to it. Times are milliseconds. What is given
 * beside `url` overrides it. Services whose options are equal share one connection in a process.
 */
export interface RedisOptions {
  /**
   * `redis://[[user]:password@]host[:port][/database]`, `rediss://…` with TLS,
   * `redis+unix:///path?db=1`, `redis+sentinel://host,host/name[/database]`,
   * `redis+cluster://host,host`. `valkey` may stand for `redis`; `?protocol=2` keeps to RESP2.
   */
  url?: string;
  /** Default `127.0.0.1`. */
  host?: string;
  /** Default 6379. */
  port?: number;
  /** A Unix socket. */
  path?: string;
  username?: string;
  password?: string;
  /** The database's number. Default 0. */
  database?: number;
  /** As {@link database}. */
  db?: number;
  /** Default: as the URL says. */
  tls?: boolean | RedisTls;
  /** The sentinels that know where the master is. */
  sentinels?: RedisNode[];
  /** What the sentinels call the master. */
  masterName?: string;
  sentinelUsername?: string;
  sentinelPassword?: string;
  /** Some nodes of a cluster. */
  cluster?: RedisNode[];
  /** The protocol: 3 (default), which falls back to 2 where the server does not know it, or 2. */
  protocol?: 2 | 3;
  /** How long a command may take, waiting for the connection included. Default 5000. */
  commandTimeout?: number;
  /** How long connecting may take. Default 10000. */
  connectTimeout?: number;
  /** How long after the server was lost commands wait for it, before they fail at once. Default 1000. */
  reconnectGrace?: number;
  /** How often the server is asked for a sign of life. Default 2000. */
  heartbeat?: number;
  /** How long that may take before the connection counts as dead. Default 3000. */
  heartbeatTimeout?: number;
  /** As node-redis has it: `host`, `port`, `path`, `tls`, `connectTimeout`. */
  socket?: { host?: string; port?: number; path?: string; tls?: boolean | RedisTls; connectTimeout?: number };
}

const KNOWN = [
  'url', 'host', 'port', 'path', 'username', 'password', 'database', 'tls', 'sentinels', 'masterName',
  'sentinelUsername', 'sentinelPassword', 'cluster', 'protocol', 'commandTimeout', 'connectTimeout', 'reconnectGrace',
  'heartbeat', 'heartbeatTimeout',
] as const;
const TLS = ['ca', 'cert', 'key', 'rejectUnauthorized'] as const;
const SOCKET = ['host', 'port', 'path', 'tls', 'connectTimeout'] as const;

/** The JSON that Rust reads; fields that are not about the connection are left out. */
export function serializeOptions(options: string | RedisOptions = {}): string {
  if (typeof options === 'string') return JSON.stringify({ url: options });
  if (typeof options !== 'object' || options === null) throw invalid(`redis is a URL or an object: ${String(options)}`);
  const { socket } = options;
  const flat: Record<string, unknown> = { ...options, ...pick(socket ?? {}, SOCKET), database: options.database ?? options.db };
  const { tls } = flat;
  if (typeof tls === 'object' && tls !== null) flat.tls = texts(pick(tls as object, TLS));
  // node-redis says `socket.tls: true` and puts the certificates beside it.
  else if (tls === true && socket?.tls) flat.tls = texts(pick(socket, TLS));
  return JSON.stringify(pick(flat, KNOWN));
}

function pick(from: object, names: readonly string[]): Record<string, unknown> {
  const values = from as Record<string, unknown>;
  return Object.fromEntries(names.filter((name) => values[name] !== undefined && values[name] !== null).map((name) => [name, values[name]]));
}

/** Certificates that came as Buffers, or lists of texts, as text. */
function texts(tls: Record<string, unknown>): Record<string, unknown> {
  const text = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(text).join('\n');
    return value instanceof Uint8Array ? Buffer.from(value).toString() : value;
  };
  return Object.fromEntries(Object.entries(tls).map(([name, value]) => [name, text(value)]));
}
