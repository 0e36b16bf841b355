import { EventEmitter } from 'node:events';

/** Where an app's messages go: any object with these methods, such as winston's or pino's. */
export interface Logger {
	trace?(message: string, details?: unknown): void;
	debug(message: string, details?: unknown): void;
	info(message: string, details?: unknown): void;
	warn(message: string, details?: unknown): void;
	error(message: string, details?: unknown): void;
}
/** The text without the passwords of URLs in it: `redis://user:***@host`. */
export declare function maskSecrets(text: string): string;
/** A value that Rust owns; JavaScript only passes it back. */
export type Handle = {
	readonly __handle: unique symbol;
};
/** What becomes of a promise whose event has come. */
export interface Ending {
	/** Gives what it resolves to, or throws what it rejects with. `subject` is what the promise is about. */
	convert(value: number, payload: unknown, subject: string): unknown;
	/** As `convert`, for an error. Without it the error rejects. */
	recover?(error: unknown, subject: string): unknown;
}
declare class Completions {
	private readonly usual;
	readonly listener: number;
	private readonly resolvers;
	private readonly rejecters;
	private readonly promises;
	private readonly endings;
	private readonly subjects;
	private readonly free;
	private waiting;
	private ending;
	constructor(usual?: Ending);
	/** Called when no promise is waiting any more. */
	whenSettled: (() => void) | undefined;
	/** The number of promises not settled yet. */
	get size(): number;
	/** Makes a promise; `start` is called with its sequence number at once, and when it throws the promise rejects. */
	wait<T>(start: (sequence: number) => void): Promise<T>;
	/** The sequence number of the promise that {@link promise} gave last. */
	last: number;
	/** A promise about `subject`, such as a key. Its number is {@link last} then. */
	promise<T>(subject?: string, ending?: Ending): Promise<T>;
	/** Gives the listener up, when nothing waits any more; nothing more may be waited for. */
	end(): void;
	/** Settles a promise from JavaScript's side; nothing when it has been settled. */
	settle(sequence: number, value: number, payload: unknown): void;
}
/** What a {@link Batch} hands over; `units` is the length of `text`. */
export type BatchArguments = [
	commands: number,
	text: string,
	numbers: Float64Array,
	filled: number,
	units: number
];
declare class Batch {
	private readonly submit;
	private text;
	private numbers;
	private filled;
	private commands;
	/** The commands after which the next part is handed over; it grows from part to part of one turn. */
	private part;
	private scheduled;
	private readonly handOver;
	/** `numbers[0..filled]` holds, for each command, what {@link Batch.add} was given. */
	constructor(submit: (...batch: BatchArguments) => void);
	/** Adds a command: any count of numbers, then its strings, whose lengths in UTF-16 units are appended to the numbers. */
	add(values: readonly number[], ...strings: string[]): void;
	/** As {@link add}, for one number, the strings' count and the strings, which are in an array already. */
	addWords(value: number, words: readonly string[]): void;
	/** Hands over what has been gathered, without waiting for the microtask. */
	flush(): void;
	private reserve;
	private count;
}
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
	socket?: {
		host?: string;
		port?: number;
		path?: string;
		tls?: boolean | RedisTls;
		connectTimeout?: number;
	};
}
/** Whether a server can be reached. */
export interface RedisHealth {
	/** The server's URL, secrets masked. */
	server: string;
	/** `away`: connecting goes on, and commands fail at once meanwhile. */
	state: "connecting" | "ready" | "away" | "closed";
	/** Why it is away. */
	reason?: string;
	/** How long the state has lasted, in milliseconds. */
	since: number;
	/** The server's version, where it tells. */
	version?: string;
	/** 3 on RESP3, 2 on RESP2. */
	protocol?: 2 | 3;
	/** The server's `maxmemory-policy`, where it tells. */
	evictionPolicy?: string;
}
/** A reply: integers as numbers, nil as null, maps as lists of keys and values in turn. */
export type RedisReply = string | number | null | RedisReply[];
/**
 * A connection to Redis or Valkey: one server, the master behind sentinels, or a cluster. It connects
 * by itself, and again for as long as it is open; several with equal options share one connection of
 * the process. The commands of one turn of the event loop go out together.
 *
 * Events: `ready` and `away`, each with a {@link RedisHealth}, once for each change.
 */
export declare class RedisConnection extends EventEmitter {
	protected handle: Handle | undefined;
	private readonly options;
	private state;
	protected readonly replies: Completions;
	protected batch: Batch;
	/** Throws a `TypeError` that names the option when the options are wrong; connects with the first command. */
	constructor(options?: string | RedisOptions, logger?: Logger);
	/** Where a line for the log goes, one for each change. */
	onLine: ((level: "debug" | "info" | "warn", text: string) => void) | undefined;
	/** The server's URL, secrets masked. */
	get server(): string;
	/**
	 * Sends a command: its name and its arguments. Commands keep their order.
	 *
	 * Rejects with `E_REDIS` when the server refuses it, with `E_UNAVAILABLE` while the server is away or
	 * when it was lost before its reply came, and with `E_TIMEOUT` when it does not reply in time; in the
	 * last two cases the command may have been carried out.
	 */
	command<T extends RedisReply = any>(...words: (string | number)[]): Promise<T>;
	/** As {@link command}, for words that are strings for sure; `ending` makes something else of the reply. */
	send<T = any>(words: readonly string[], subject?: string, ending?: Ending): Promise<T>;
	/** One of the operations that take more than a command; it begins after all that was sent before. */
	operate<T = any>(operation: number, words: string[]): Promise<T>;
	/** Begins to connect, without waiting for it. */
	open(): Handle;
	/** Opens the connection in Rust. */
	protected makeHandle(options: string, listener: number): Handle;
	/** How the connection is. */
	health(): RedisHealth;
	/**
	 * Closes it, after what was sent before. The next command opens it again. The connection itself ends
	 * when nobody else in the process uses it.
	 */
	close(): void;
	protected newBatch(): Batch;
	private static heard;
	private changed;
	/** Before the event is. */
	protected becameReady(_: RedisHealth): void;
}
/** One user's hold on a shared connection. */
export interface ConnectionUse<C extends RedisConnection = RedisConnection> {
	/** The connection, held from now on. */
	connection(): C;
	/** The connection, if it is held. */
	held(): C | undefined;
	/** Holds it no longer; the last one closes it. */
	release(): void;
}
/** Milliseconds. */
export type Milliseconds = number;
/** A cache store, as cache-manager 5 defines it. Times are milliseconds. */
export interface Store {
	get<T = any>(key: string): Promise<T | undefined>;
	set(key: string, value: unknown, ttl?: Milliseconds): Promise<void>;
	del(key: string): Promise<void>;
	reset(): Promise<void>;
	mset(entries: [
		string,
		unknown
	][], ttl?: Milliseconds): Promise<void>;
	mget(...keys: string[]): Promise<unknown[]>;
	mdel(...keys: string[]): Promise<void>;
	keys(pattern?: string): Promise<string[]>;
	ttl(key: string): Promise<number>;
	/** Whether `set` takes a value. */
	isCacheable?(value: unknown): boolean;
}
/** Makes a store from its configuration: the settings of the store type, and those of the cache over them. */
export type StoreFactory<S extends Store = Store> = (config?: any) => S | Promise<S>;
/** Options of a Redis store, beside those of the connection. */
export interface RedisStoreOptions extends RedisOptions {
	/** Time to live of entries set without one, in milliseconds; 0 (default): they stay. */
	ttl?: Milliseconds;
	/** Which values may be stored. Default: all but `undefined` and `null`. */
	isCacheable?: (value: unknown) => boolean;
	/**
	 * What all the keys of this store begin with: `reset` deletes those only. Without it `reset` empties
	 * the database, as cache-manager's own stores do. Caches of our manager are always reset by their prefix.
	 */
	keyPrefix?: string;
	/** Told when the server goes away and comes back. */
	logger?: Logger;
}
/**
 * A cache store on Redis, with the interface of cache-manager 5. Values are JSON text, as
 * `JSON.stringify` gives it, under the keys themselves.
 *
 * While the server is away reads find nothing, and writes reject with `E_UNAVAILABLE`.
 */
export declare class RedisStore implements Store {
	readonly name: string;
	readonly isCacheable: (value: unknown) => boolean;
	private readonly defaultTtl;
	private readonly keyPrefix;
	protected readonly use: ConnectionUse;
	/** Whether nodes load under leases, which a change of their key must end. */
	guardsLoads: boolean;
	/** Throws a `TypeError` for wrong options. Connects in the background. */
	constructor(options?: RedisStoreOptions, kind?: "plain" | "tiered");
	/** The connection, shared with whoever uses the same server. */
	get client(): RedisConnection;
	/** The connection, if it is open: looking at it must not open it. */
	get openClient(): RedisConnection | undefined;
	get<T = any>(key: string): Promise<T | undefined>;
	set(key: string, value: unknown, ttl?: Milliseconds): Promise<void>;
	del(key: string): Promise<void>;
	mget(...keys: string[]): Promise<unknown[]>;
	mset(entries: [
		string,
		unknown
	][], ttl?: Milliseconds): Promise<void>;
	mdel(...keys: string[]): Promise<void>;
	/** All keys of the database that fit the glob pattern. Rejects with `E_UNAVAILABLE` while the server is away. */
	keys(pattern?: string): Promise<string[]>;
	/** Milliseconds left; -1 without expiry, -2 when absent. */
	ttl(key: string): Promise<number>;
	/** See {@link RedisStoreOptions.keyPrefix}. */
	reset(): Promise<void>;
	/** Deletes the keys that begin with `prefix`, without blocking the server. */
	resetPrefix(prefix: string): Promise<void>;
	/** Changes the value at `key` atomically: `change` is called again when another node was faster. */
	edit(key: string, change: (value: unknown) => unknown): Promise<void>;
	/** As {@link get}, past any near cache, and rejecting while the server is away. */
	read(key: string): Promise<unknown>;
	/** Adds to a number, which lives for `ttl` milliseconds from its first addition; gives the sum. */
	count(key: string, add: number, ttl?: Milliseconds): Promise<number>;
	/** Takes the lease `key` for `owner`; false when it is another's. */
	lease(key: string, owner: string, ttl: Milliseconds): Promise<boolean>;
	/** Puts the end of a lease off; false when it is not the owner's any more. */
	renew(key: string, owner: string, ttl: Milliseconds): Promise<boolean>;
	/** Gives a lease back, if it is still the owner's. */
	release(key: string, owner: string): Promise<void>;
	/** As {@link set}, if `owner` still has the lease to load `key`; it is given back then. */
	setUnderLease(key: string, lease: string, value: unknown, ttl: Milliseconds | undefined, owner: string): Promise<boolean>;
	/** Gives the connection up; the next call takes it again. */
	close(): void;
	/** What other nodes are loading for these keys is older than the change that follows. */
	private endLoads;
	/** Surrounds a change of `keys`. */
	protected write(keys: readonly string[], change: () => Promise<unknown>): Promise<void>;
	/** Surrounds a change of unknown keys. */
	protected writeAll(change: () => Promise<unknown>): Promise<void>;
	private setCommand;
	private serialize;
}
/** Options of how `wrap` loads. Times are milliseconds. */
export interface LoadOptions {
	/**
	 * `'process'` (default): one loader a process, however many wait. `'cluster'`: one among all nodes,
	 * by a lease on Redis; when Redis is away, or the lease is lost, each process loads by itself. On
	 * stores other than Redis as `'process'`.
	 */
	singleFlight?: "process" | "cluster";
	/** For so long after an entry has lapsed it is still given, while a loader renews it. Default 0. */
	staleWhileRevalidate?: Milliseconds;
	/** For so long after an entry has lapsed it is given when its loader fails. Default 0. */
	grace?: Milliseconds;
	/** A loader that takes longer goes on in the background, when a lapsed entry can be given meanwhile. Default: none. */
	softTimeout?: Milliseconds;
	/** A loader that takes longer goes on, but whoever waits is told `E_LOADER_TIMEOUT`. Default: none. */
	hardTimeout?: Milliseconds;
}
/** Options that concern the cache in front of a store. */
export interface BasicCacheOptions extends LoadOptions {
	/**
	 * Milliseconds: a `wrap` that finds less than this left to live answers with what it has, and
	 * refreshes the entry in the background. Default 0: off.
	 */
	refreshThreshold?: Milliseconds;
	/** Told when a background refresh fails; else the `error` event is. */
	onBackgroundRefreshError?: (error: unknown) => void;
}
/** What a failed call of the store is reported with, by the `error` event. */
export interface StoreErrorEvent {
	error: unknown;
	key: string;
	operation: "get" | "set";
	data?: unknown;
}
export type Lifetime<T> = Milliseconds | ((value: T) => Milliseconds | undefined) | undefined;
/**
 * A store with `wrap`, for full keys: the object that cache-manager 5 calls a cache. It is what
 * `cache.store` is, for code that reaches in; `store` is the engine.
 */
export declare class BasicCache<S extends Store = Store> {
	private readonly options;
	/** The engine. */
	store: S;
	readonly refreshThreshold: Milliseconds;
	private readonly events;
	private readonly flights;
	private readonly policy;
	private readonly stale;
	constructor(store: S, options?: BasicCacheOptions & {
		max?: number;
		ttl?: Milliseconds;
	});
	/** Whether more than the entries themselves has to be kept in step with a change. */
	get keepsMore(): boolean;
	/** Puts the store itself in place of the one that waits for it. */
	become(store: S): void;
	get<T = any>(key: string): Promise<T | undefined>;
	set(key: string, value: unknown, ttl?: Milliseconds): Promise<void>;
	del(key: string): Promise<void>;
	reset(): Promise<void>;
	mset(entries: [
		string,
		unknown
	][], ttl?: Milliseconds): Promise<void>;
	mdel(...keys: string[]): Promise<void>;
	/** Changes a value atomically among all nodes; `undefined` where the store cannot do that by itself. */
	edit(key: string, change: (value: unknown) => unknown): Promise<void> | undefined;
	/** Deletes the keys that begin with `prefix`, where the store can do so by itself; false where it cannot. */
	resetPrefix(prefix: string): Promise<boolean>;
	/** Listens to failures of the store that a call of `wrap` got over; `listener({ error, key, operation })`. */
	on(event: "error", listener: (event: StoreErrorEvent) => void): this;
	removeListener(event: "error", listener: (event: StoreErrorEvent) => void): this;
	/**
	 * The value at `key`; when there is none, what `fn` gives, which is stored. `fn` runs once,
	 * however many wait for the key. Its error reaches all of them, and nothing is stored.
	 */
	wrap<T>(key: string, fn: () => T | Promise<T>, ttl?: Milliseconds | ((value: T) => Milliseconds | undefined), refreshThreshold?: Milliseconds, options?: LoadOptions): Promise<T>;
	/** The miss of {@link wrap}: joins the loader that is running for the key, or starts one. */
	load<T>(key: string, fn: () => T | Promise<T>, ttl?: Lifetime<T>, options?: LoadOptions): Promise<T>;
	/**
	 * As {@link load}, storing only what `isCacheable` accepts. What was loaded while the key was
	 * set, deleted or reset is not stored: it may be older than the change.
	 */
	loadIf<T>(key: string, fn: () => T | Promise<T>, ttl: Lifetime<T>, isCacheable: (value: T) => boolean | Promise<boolean>, options?: LoadOptions): Promise<T>;
	private start;
	/** What a caller gets of a flight: what is loaded, or within the policy's bounds what has lapsed. */
	private answer;
	/** Refreshes the entry in the background when it has less than `threshold` left. */
	refreshIfDue<T>(key: string, value: T, fn: () => T | Promise<T>, ttl: Milliseconds | ((value: T) => Milliseconds | undefined) | undefined, threshold: Milliseconds): Promise<void>;
	/** Whether any loader is running. */
	get hasFlights(): boolean;
	/** What is being loaded for `key` is older than a change that comes now. */
	outdate(key: string): void;
	/** As {@link outdate}, for every key. */
	outdateAll(): void;
	/** Changes of keys end the loads of other nodes as well. */
	private guardLoads;
	private readonly canStore;
	private fill;
	private tryGet;
	/** Tells the listeners of the `error` event. */
	report(event: StoreErrorEvent): void;
}
/**
 * Sets that answer "perhaps" or "no", by key. Before {@link reserve}, `exists` is false and adding
 * does nothing.
 */
export interface BloomFilter {
	/**
	 * Makes the filter at `key`, which wrongly claims a value at `errorRate` (above 0, below 1) once
	 * it holds `capacity` values. One that is there already starts anew in memory, and is kept on Redis.
	 */
	reserve(key: string, errorRate: number, capacity: number): Promise<void>;
	add(key: string, value: string): Promise<void>;
	mAdd(key: string, values: string[]): Promise<void>;
	/** False when `value` was never added. */
	exists(key: string, value: string): Promise<boolean>;
}
/** Filters in this process's memory. They are never evicted. */
export declare class MemoryBloomFilter implements BloomFilter {
	private readonly filters;
	private readonly prefix;
	/** `filters` may be shared; `prefix`, with its `:`, tells whose is whose. */
	constructor(filters: Map<string, Handle>, prefix: string);
	reserve(key: string, errorRate: number, capacity: number): Promise<void>;
	add(key: string, value: string): Promise<void>;
	mAdd(key: string, values: string[]): Promise<void>;
	exists(key: string, value: string): Promise<boolean>;
	private key;
}
/**
 * Filters on Redis, by the server's Bloom module where it has one, else in bits of ours. A filter that is
 * there already is kept by `reserve`.
 */
export declare class RedisBloomFilter implements BloomFilter {
	private readonly store;
	private readonly prefix;
	/** `prefix` with its `:`. */
	constructor(store: RedisStore, prefix: string);
	reserve(key: string, errorRate: number, capacity: number): Promise<void>;
	add(key: string, value: string): Promise<void>;
	mAdd(key: string, values: string[]): Promise<void>;
	exists(key: string, value: string): Promise<boolean>;
	private run;
}
/** Options of {@link Cache.wrapWithCondition}. */
export interface WrapConditions<T> {
	/** `false`: neither look into the cache nor store. Default true. */
	useCache?: boolean;
	/** Whether a result is stored; may be asynchronous. Default: when it is truthy. */
	isCacheable?: (value: T) => boolean | Promise<boolean>;
	/** Milliseconds to live, or a function of the result that gives them. */
	ttl?: Milliseconds | ((value: T) => Milliseconds | undefined);
}
/** What a change can be tied to: Sequelize's transactions, and whatever has this of them. */
export interface CacheTransaction {
	afterCommit(fn: () => unknown): unknown;
	/** `'commit'` or `'rollback'`, when it is over. */
	finished?: string;
}
/** Options of a change. */
export interface ChangeOptions {
	/** The change is made after its commit, and never after a rollback. */
	transaction?: CacheTransaction | null;
}
/** Options of {@link Cache.set}. */
export interface SetOptions extends ChangeOptions {
	/** Milliseconds to live. */
	ttl?: Milliseconds;
}
/**
 * A cache: a name, a prefix for its keys, and a store.
 *
 * Keys are strings; anything else rejects with a `TypeError`. Times are milliseconds. On the
 * memory store every change has taken effect when the call returns, before its promise is awaited.
 */
export declare class Cache {
	readonly name: string;
	readonly prefix?: string;
	readonly store: BasicCache;
	private readonly keyPrefix;
	/** The engine, when it is this cache's own memory store and its keys are known there bare. */
	private readonly memory;
	private readonly edits;
	/** `store` may also be what cache-manager 5 calls a cache. */
	constructor({ name, prefix, store: given }: {
		name: string;
		prefix?: string;
		store: BasicCache | {
			store: Store;
		};
	});
	/** The key as the store knows it: `prefix:key`. */
	key(key: string): string;
	/**
	 * Stores a value. `ttl` in milliseconds: absent: the store's default, else none; 0: none;
	 * negative: it has lapsed already.
	 *
	 * With a `transaction` (anything with `afterCommit(fn)`, such as Sequelize's) the value is stored
	 * after its commit, and never after a rollback; the promise resolves at once.
	 *
	 * Rejects with `E_NOT_CACHEABLE` for a value that the store does not take, with
	 * `E_NOT_SERIALIZABLE` for one that JSON cannot hold where the store writes JSON, and with a
	 * `TypeError` for a key that is not a string or a ttl that is not a number.
	 */
	set(key: string, value: unknown, ttl?: Milliseconds | SetOptions, options?: ChangeOptions): Promise<void>;
	private setNear;
	private setAsync;
	/**
	 * The value at `key`, `undefined` when there is none. The memory store gives the same object to
	 * every caller.
	 */
	get<T = any>(key: string): Promise<T | undefined>;
	private getNear;
	/** Deletes a key; nothing when it is absent. With a `transaction`: as for {@link set}. */
	del(key: string, options?: ChangeOptions): Promise<void>;
	private delAsync;
	/** Stores several values at once; `ttl` as for {@link set}. */
	mset(entries: [
		string,
		unknown
	][], ttl?: Milliseconds): Promise<void>;
	private msetAsync;
	/** The values at `keys`, in their order, `undefined` for the absent. */
	mget<T = any>(...keys: string[]): Promise<(T | undefined)[]>;
	/** Deletes several keys. */
	mdel(...keys: string[]): Promise<void>;
	private mdelAsync;
	/** Empties this cache, and nothing else that its store holds. */
	reset(): Promise<void>;
	private resetAsync;
	/** The keys in this cache, without its prefix, that fit a glob pattern (default: all). */
	keys(pattern?: string): Promise<string[]>;
	/** Milliseconds that the key has left. Memory: `Infinity` without expiry, 0 when absent; Redis: -1 and -2. */
	ttl(key: string): Promise<number>;
	/**
	 * The value at `key`; when there is none, what `fn` gives, which is stored with `ttl` (or a
	 * function of the value that gives it). `fn` runs once, however many wait for the key in this
	 * process; its error reaches all of them, and nothing is stored. `options` go over the cache's own.
	 */
	wrap<T>(key: string, fn: () => T | Promise<T>, ttl?: Milliseconds | ((value: T) => Milliseconds | undefined), options?: LoadOptions): Promise<T>;
	/**
	 * As {@link wrap}, with conditions. A result is stored when `isCacheable` says so, by default
	 * when it is truthy; what is stored is a hit whatever it is.
	 */
	wrapWithCondition<T>(key: string, fn: () => T | Promise<T>, options?: WrapConditions<T>): Promise<T>;
	/** Sets one field of the object at `key`, which is made when there is none. Concurrent calls all take effect. */
	setValueInObject(key: string, objectKey: string, value: unknown): Promise<void>;
	/** One field of the object at `key`; `undefined` when either is absent. */
	getValueInObject<T = any>(key: string, objectKey: string): Promise<T | undefined>;
	/** Deletes one field of the object at `key`. Concurrent calls all take effect. */
	delValueInObject(key: string, objectKey: string): Promise<void>;
	/** A change, which callers need not look at: that a server is away must not end their process. */
	private changing;
	/** Changes the object at `key`: at once in memory; elsewhere after this process's earlier changes. */
	private edit;
	/** Makes the change when the transaction has been committed; then a failure is nobody's to catch but the listeners'. */
	private afterCommit;
	private fullKeys;
}
/** A set of numbers by key, each counted up and down atomically. */
export interface Counter {
	/** The number, 0 when absent. */
	get(key: string): Promise<number>;
	/** Adds 1 and gives the sum. `ttl` starts with the first increment; later ones do not renew it. */
	incr(key: string, ttl?: Milliseconds): Promise<number>;
	/** Adds an integer, which may be negative, and gives the sum; `ttl` as for {@link incr}. */
	incrby(key: string, value: number, ttl?: Milliseconds): Promise<number>;
	/** Forgets the number. */
	reset(key: string): Promise<void>;
}
/** What a {@link LockCounter} needs of a lock manager. */
export interface CounterLocks {
	runExclusive<T>(key: string, fn: () => Promise<T>, ttl?: Milliseconds): Promise<T>;
}
/** Counters in this process's memory. They are not evicted. */
export declare class MemoryCounter implements Counter {
	private readonly numbers;
	get(key: string): Promise<number>;
	incr(key: string, ttl?: Milliseconds): Promise<number>;
	incrby(key: string, value: number, ttl?: Milliseconds): Promise<number>;
	reset(key: string): Promise<void>;
	private add;
}
/** Counters on Redis, one script each: atomic among all nodes. */
export declare class RedisCounter implements Counter {
	private readonly cache;
	private readonly store;
	/** In a cache on Redis; of another it throws a `TypeError`. */
	constructor(cache: Cache);
	get(key: string): Promise<number>;
	incr(key: string, ttl?: Milliseconds): Promise<number>;
	incrby(key: string, value: number, ttl?: Milliseconds): Promise<number>;
	reset(key: string): Promise<void>;
}
/** Counters on any store, each increment under a lock. */
export declare class LockCounter implements Counter {
	private readonly cache;
	private readonly locks;
	constructor(cache: Cache, locks: CounterLocks);
	get(key: string): Promise<number>;
	incr(key: string, ttl?: Milliseconds): Promise<number>;
	incrby(key: string, value: number, ttl?: Milliseconds): Promise<number>;
	reset(key: string): Promise<void>;
	private ttlLeft;
}
/** Options of a memory store. */
export interface MemoryStoreOptions {
	/** The most entries it holds, 1 to 2147483647; the least recently used go first. Default 2000. */
	max?: number;
	/** Time to live of entries set without one, in milliseconds; 0 (default): they stay. */
	ttl?: number;
	/** Whether `set` keeps a deep copy, so that changing the original later changes nothing. Default true. */
	shouldCloneBeforeSet?: boolean;
	/** Which values may be stored. Default: all but `undefined`. */
	isCacheable?: (value: unknown) => boolean;
}
/**
 * Entries by key, in this process. Every change has taken effect when the call returns; the
 * promises are there for the interface.
 *
 * The keys of the cache that the store belongs to are kept without their prefix, so that a look-up
 * does not join and hash a new string each time: half of a hit's cost otherwise.
 */
export declare class MemoryStore {
	private readonly prefix;
	readonly name = "memory";
	/** Whether a value may be stored. */
	readonly isCacheable: (value: unknown) => boolean;
	private readonly own;
	private readonly foreign;
	private keyOf;
	private values;
	/** By slot: when the entry lapses, on the scale of `performance.now()`; 0: never. Rust reads it. */
	private deadlines;
	/** By slot: set by each use; Rust reads and clears it. */
	private marks;
	private readonly handle;
	private readonly max;
	private readonly defaultTtl;
	private readonly clones;
	/** Slots that have ever been in use; Rust gives the next one out when none of them is free. */
	private used;
	private sweeper;
	/** `prefix` is that of the cache the store belongs to, with its `:`. */
	constructor(options?: MemoryStoreOptions, prefix?: string);
	/** The number of entries, lapsed ones that were not swept yet among them. */
	get size(): number;
	get<T = any>(key: string): Promise<T | undefined>;
	set(key: string, value: unknown, ttl?: number): Promise<void>;
	del(key: string): Promise<void>;
	mget(...keys: string[]): Promise<unknown[]>;
	mset(entries: [
		string,
		unknown
	][], ttl?: number): Promise<void>;
	mdel(...keys: string[]): Promise<void>;
	reset(): Promise<void>;
	/** The keys, with their prefix, that fit the glob pattern. */
	keys(pattern?: string): Promise<string[]>;
	/** Milliseconds left; `Infinity` without expiry, 0 when absent. */
	ttl(key: string): Promise<number>;
	/** The value, or `undefined`; counts as a use. */
	read(key: string): unknown;
	readBare(bare: string): unknown;
	write(key: string, value: unknown, ttl?: number): void;
	writeBare(bare: string, value: unknown, ttl?: number): void;
	/** Whether this store keeps the keys of a cache with that prefix bare. */
	belongsTo(prefix: string): boolean;
	/** Gives an entry that is there the store's default time to live, as a new `set` would. */
	touchBare(bare: string): void;
	/** Puts another value in place of one that is there, which keeps its time to live; false when none is. */
	replaceBare(bare: string, value: unknown): boolean;
	remove(key: string): void;
	removeBare(bare: string): void;
	remaining(key: string): number;
	clear(): void;
	private isOwn;
	private lookUp;
	/** The slot of a live entry. */
	private find;
	private lapsed;
	private put;
	private setDeadline;
	private insert;
	/** Takes the key of an entry whose slot has been given to another, or freed, out of its table. */
	private unlink;
	private drop;
	private grow;
	private checkCacheable;
	private listKeys;
	/** One timer for all entries; it does not keep Node alive. */
	private sweepLater;
	private sweep;
}
/** A type of store: where its stores come from, and the settings that all of them share. */
export interface StoreOptions extends MemoryStoreOptions, BasicCacheOptions {
	/**
	 * `'memory'`; `'redis'` and `'tiered'`, with the options of the connection and of the store beside it; or
	 * a cache-manager 5 factory: `(config) => Store | Promise<Store>`.
	 */
	store?: "memory" | "redis" | "tiered" | StoreFactory<any>;
	/** Called with each store of the type by {@link CacheManager.close}. */
	close?: (store: any) => Promise<void> | void;
	[setting: string]: any;
}
/** Options of {@link CacheManager}. */
export interface CacheManagerOptions {
	/** The type of the caches that name none. Default `'memory'`. */
	defaultStore?: string;
	/** Store types by name, laid over the built-in ones: `memory` (`max` 2000), `redis` and `tiered` (`url`, …). */
	stores?: Record<string, StoreOptions>;
	/** In front of every cache's prefix, joined by `:`. Default none; the app's name under `createApp`. */
	prefix?: string;
	/** Told when a server goes away and comes back. */
	logger?: Logger;
}
/** Options of {@link CacheManager.createCache}. Further ones are the store's. */
export interface CreateCacheOptions extends MemoryStoreOptions, BasicCacheOptions {
	name: string;
	/** In front of every key, behind the manager's prefix. Default none. */
	prefix?: string;
	/** The store type. Default: the manager's `defaultStore`. */
	store?: string;
	[setting: string]: any;
}
export interface OpenStore {
	close?: StoreOptions["close"];
	store: BasicCache;
}
/** Makes caches, and keeps those it made by name. */
export declare class CacheManager {
	readonly defaultStore: string;
	readonly prefix?: string;
	/** The stores made so far: those of one cache by its name, those shared by their type. */
	readonly stores: Map<string, OpenStore>;
	readonly storeTypes: Map<string, StoreOptions>;
	readonly caches: Map<string, Cache>;
	private readonly shared;
	/** When a store is there, so that a second cache of a shared one waits as well. */
	private readonly making;
	private readonly opened;
	private readonly filters;
	private readonly logger;
	constructor(options?: CacheManagerOptions);
	/** Adds a store type, or replaces it for the caches made from now on. */
	registerStore(options: {
		name: string;
	} & StoreOptions): void;
	/**
	 * Makes a cache. On memory, or with any option beside name and store, it has a store of its own;
	 * else it shares that of its type. The same name again replaces the cache.
	 *
	 * Rejects with `E_STORE_UNAVAILABLE` for an unknown store type, and with what the store's
	 * factory rejects with.
	 */
	createCache(options: CreateCacheOptions): Promise<Cache>;
	/**
	 * As {@link createCache}, but usable at once: the calls of the cache wait for its store, and
	 * reject when it cannot be made.
	 */
	createCacheSync(options: CreateCacheOptions): Cache;
	/** The cache of that name; throws `E_CACHE_NOT_FOUND` when there is none. */
	getCache(name: string): Cache;
	/** Empties every cache and every bloom filter in memory. */
	flushAll(): Promise<void>;
	/** Calls the stores' `close`. May be repeated; memory caches keep working, those on Redis connect again when they are used. */
	close(): Promise<void>;
	/** How the open connections of this manager's caches are, one entry a server and kind of store. */
	health(): RedisHealth[];
	/**
	 * Bloom filters on a store type: in memory, or on Redis, by the server's Bloom module where it has
	 * one. Rejects with `E_STORE_UNAVAILABLE` on other stores (`BloomFilter store [x] is not supported`).
	 */
	createBloomFilter(options?: {
		store?: string;
		prefix?: string;
		[setting: string]: any;
	}): Promise<BloomFilter>;
	/**
	 * Counters on a store type. Memory and Redis count atomically by themselves. On other stores each
	 * increment is made under a lock of `lockManager`; without one it rejects with `E_STORE_UNAVAILABLE`
	 * (`Counter store [x] is not supported`).
	 */
	createCounter(options: {
		name: string;
		prefix?: string;
		store?: string;
	}, lockManager?: CounterLocks): Promise<Counter>;
	private open;
	private sharedStore;
	private openStore;
	private keep;
	private fullPrefix;
}
/** A text found in the near cache, with what tells whether it is still the newest. */
export interface Found {
	text: string;
	/** Milliseconds. */
	left: number;
	bucket: number;
	version: number;
	epoch: number;
}
declare class TieredConnection extends RedisConnection {
	private readonly maxBytes;
	private numbers;
	private counts;
	private fills;
	private readonly found;
	private told;
	constructor(options: RedisOptions | undefined, maxBytes?: number);
	protected makeHandle(options: string, listener: number): Handle;
	/** Looks into the near cache. The object is good until the next call. */
	look(key: string): Found | undefined;
	/** Whether nothing that concerns the bucket has changed since. */
	isCurrent(bucket: number, version: number, epoch: number): boolean;
	/** Reads a key from the server, and keeps what is found. After all that was sent before. */
	fill<T = string | null>(key: string, ending?: Ending): Promise<T>;
	send<T = any>(words: readonly string[], subject?: string, ending?: Ending): Promise<T>;
	operate<T = any>(operation: number, words: string[]): Promise<T>;
	close(): void;
	/** This process changes the key, or has done so. */
	invalidate(key: string): void;
	/** Everything may have changed. */
	flush(): void;
	/** Whether the server tells of changes. Without that the near cache stays empty. */
	get tracking(): boolean;
	/** What the near cache holds; `bytes` counts keys, texts and what goes with them. */
	size(): {
		entries: number;
		bytes: number;
	};
	protected becameReady(): void;
}
/** Options of a tiered store, beside those of a Redis store. */
export interface TieredStoreOptions extends RedisStoreOptions {
	/**
	 * Whether `get` gives the same object to every caller, as the memory store does, until the entry
	 * changes. Default false: each call gives an object of its own.
	 */
	reference?: boolean;
	/**
	 * The most bytes that the near cache holds, of keys and texts, off JavaScript's heap. Default 64 MiB.
	 * All caches and worker threads of the process share one near cache a server: that of whoever came first.
	 */
	maxBytes?: number;
}
/**
 * A Redis store with a near cache in the process, which the server keeps coherent: it tells of each
 * change of a key that was read (`CLIENT TRACKING`). On a server that cannot, it works as a plain
 * Redis store, and says so in the log.
 */
export declare class TieredStore extends RedisStore {
	readonly name = "tiered";
	private readonly reference;
	/** Values that were parsed: those used lately, and those used before them. */
	private young;
	private old;
	private units;
	constructor(options?: TieredStoreOptions);
	get client(): TieredConnection;
	get<T = any>(key: string): Promise<T | undefined>;
	set(key: string, value: unknown, ttl?: Milliseconds): Promise<void>;
	mget(...keys: string[]): Promise<unknown[]>;
	/** The value when it is at hand; `undefined` when the server has to be asked. */
	near(key: string): unknown;
	close(): void;
	protected write(keys: readonly string[], change: () => Promise<unknown>): Promise<void>;
	protected writeAll(change: () => Promise<unknown>): Promise<void>;
	private look;
	private keep;
}
/**
 * A factory for cache-manager 5, and for whatever takes its factories: `caching(redisStore, { url, ttl })`, or
 * a store type `{ store: redisStore, close: (store) => store.close(), url }` of `@nocobase/cache`.
 *
 * Give `keyPrefix` where the database is not this store's alone: `reset` empties the database without it.
 */
export declare function redisStore(options?: RedisStoreOptions): Promise<RedisStore>;
/** As {@link redisStore}, with a near cache in the process that the server keeps coherent. */
export declare function tieredStore(options?: TieredStoreOptions): Promise<TieredStore>;
/** How long to wait between a failure and the next attempt. */
export interface QueueBackoff {
	/** `'fixed'`: always `delay`; `'exponential'`: `delay`, twice that, four times, … */
	type: "fixed" | "exponential";
	/** Milliseconds. */
	delay: number;
	/** The longest pause, in milliseconds. Default: none. */
	max?: number;
	/** Share of the pause, 0 to 1, by which it is shortened at random, so that messages that failed together do not come back together. Default 0. */
	jitter?: number;
}
/** How a message was published. Further fields come back in `queueOptions`. */
export interface QueueMessageOptions {
	/** Milliseconds until the handler's `signal` aborts. Default 15000; `Infinity`: never. */
	timeout?: number;
	/** How often a message that fails is tried again. Default 0. */
	maxRetries?: number;
	/** Pauses between attempts. Default: 500 ms each. */
	backoff?: QueueBackoff;
	/** Milliseconds for which the message is kept back; it goes to the end of the channel then. Default 0. */
	delay?: number;
	/**
	 * The message's id. While one with the same id waits, is kept back or runs in the channel, another is not queued;
	 * `publish` resolves all the same. Default: one that is unique. On RabbitMQ it names the message, and nothing is compared.
	 */
	id?: string;
	/** Whatever is to come back with the message, on retries too, such as a trace context. */
	headers?: Record<string, any>;
	/** When it was published, in milliseconds since 1970; set by `publish`. */
	timestamp?: number;
	/** How often it was tried before it came here. */
	retried?: number;
	[option: string]: any;
}
/** What a handler is told of the message that it processes. */
export interface ProcessContext {
	/** The message's id. */
	id: string;
	/** How often it was tried before: 0, 1, … */
	retried: number;
	/** Aborts when the message's timeout has passed, with a `TimeoutError` as its reason, or when it is cancelled, with an `AbortError`. */
	signal: AbortSignal;
	/** The options that the message was published with. */
	queueOptions: QueueMessageOptions;
}
/** How the messages of a channel are processed. */
export interface QueueEventOptions<T = any> {
	/**
	 * Processes a message. Resolving acknowledges it; when it throws or rejects, the message is tried
	 * again, up to its `maxRetries` times, and is a dead letter then.
	 */
	process(message: T, context: ProcessContext): unknown;
	/** Whether messages may be fetched now. Asked before each fetch; one that throws counts as false. Default: always. */
	idle?(): boolean;
	/** How many messages may be processed at once; 0 or below: any number. Default 1. */
	concurrency?: number;
	/** Milliseconds after which `idle` is asked again while it says false. Default 250. */
	interval?: number;
	/** The channel is shared with other apps: their name is not part of its own. */
	shared?: boolean;
}
/** What is in a channel. */
export interface QueueCounts {
	/** Messages that could begin now. */
	waiting: number;
	/** Messages that are kept back, or wait for their next attempt. `undefined` where the adapter cannot tell. */
	delayed: number | undefined;
	/** Messages that run, on all nodes. */
	running: number;
	/** Dead letters. */
	dead: number;
	/** Whether the channel is paused. */
	paused: boolean;
	/** How long the oldest of those that wait has waited, in milliseconds; 0 without one. `undefined` where the adapter cannot tell. */
	oldestAge: number | undefined;
}
/** A message whose last permitted attempt has failed, or that has ended its node again and again. */
export interface DeadLetter {
	id: string;
	content: any;
	options: QueueMessageOptions;
	/** What the last attempt failed with. */
	error?: string;
}
/** The dead letters of a channel: to look at, to replay, to drop. A channel keeps 10 000; the oldest go first. */
export interface DeadLetters {
	/** How many there are. */
	count(): Promise<number>;
	/** All of them, the oldest first. */
	list(): Promise<DeadLetter[]>;
	/** Publishes one (or all, without an id) again, under its id and with its retries before it. Resolves to how many. */
	replay(id?: string): Promise<number>;
	/** Forgets one, or all without an id. Resolves to how many. */
	drop(id?: string): Promise<number>;
}
/** What an event queue runs on; may be written in JavaScript. What is optional is refused with `E_UNSUPPORTED` where it is missing. */
export interface IEventQueueAdapter {
	isConnected(): boolean;
	connect(): Promise<unknown> | unknown;
	close(): Promise<unknown> | unknown;
	subscribe(channel: string, event: QueueEventOptions): unknown;
	unsubscribe(channel: string): unknown;
	/** May resolve to the message's id. */
	publish(channel: string, message: any, options: QueueMessageOptions): Promise<unknown> | unknown;
	/** Whether there was such a message. */
	cancel?(channel: string, id: string): Promise<boolean> | boolean;
	pause?(channel: string): Promise<unknown> | unknown;
	resume?(channel: string): Promise<unknown> | unknown;
	counts?(channel: string): Promise<QueueCounts> | QueueCounts;
	deadLetters?(channel: string): DeadLetters;
	health?(): QueueHealth;
}
/** Whether an event queue works. */
export interface QueueHealth {
	/** `'ready'`: messages are fetched as they come. `'away'`: the server cannot be reached; connecting goes on. */
	state: "ready" | "connecting" | "away" | "closed";
	/** Why it is away. */
	reason?: string;
	/** Channels of which messages waited although nothing had told this node, which then looked by itself. */
	silent?: number;
}
declare class MemoryDeadLetters implements DeadLetters {
	private readonly publishAgain;
	private readonly forget;
	private readonly letters;
	private readonly replaying;
	/** `publishAgain` tells whether the message was queued: not while another with its id is in the channel. */
	constructor(publishAgain: (letter: DeadLetter) => Promise<boolean>, forget: (seq: number) => void);
	count(): Promise<number>;
	list(): Promise<DeadLetter[]>;
	replay(id?: string): Promise<number>;
	private replayOne;
	drop(id?: string): Promise<number>;
	private chosen;
	private remove;
}
/** Options of {@link MemoryEventQueueAdapter}. */
export interface MemoryEventQueueOptions {
	/** The app whose folder is used. Default `'main'`. */
	appName?: string;
	/** Keep messages on disk from before `publish` resolves until they are processed. Default false. */
	journal?: boolean;
	/** The folder of the app's files. Default: `STORAGE_PATH`, or `storage`, with `apps/<app>` below it. */
	storagePath?: string;
	/** How long `close` waits for running handlers, in milliseconds. Default 10000. */
	closeTimeout?: number;
	logger?: Logger;
}
/**
 * An event queue within the process. The message object itself is passed on, not a copy. `close`
 * writes what waits to a file, and `connect` loads it; with a journal it is on disk all along.
 */
export declare class MemoryEventQueueAdapter implements IEventQueueAdapter {
	private readonly options;
	private connected;
	private journal;
	private readonly channels;
	private readonly byNumber;
	private readonly letters;
	private readonly uses;
	private readonly host;
	/** What could not be written when the adapter was closed; the next close or connect takes it up. */
	private unsaved;
	private whenQuiet;
	private turn;
	constructor(options?: MemoryEventQueueOptions);
	isConnected(): boolean;
	/** Loads what waited when the adapter was closed, and begins to fetch. Nothing when it is connected. */
	connect(): Promise<void>;
	/**
	 * Stops fetching, waits for running handlers up to `closeTimeout`, and keeps the rest for the
	 * next `connect`: also what is unfinished then, which will be processed again.
	 *
	 * Rejects with `E_IO` when the file cannot be written; nothing is lost while the process lives,
	 * and `close` may be tried again.
	 */
	close(): Promise<void>;
	subscribe(channel: string, event: QueueEventOptions): void;
	unsubscribe(channel: string): void;
	/** Resolves to the id when the message waits; with a journal, when it is on disk. Rejects with `E_CLOSED` when not connected. */
	publish(channel: string, message: any, options?: QueueMessageOptions): Promise<string>;
	/** Takes a message out, or aborts the signal of one that runs; see {@link IEventQueueAdapter}. */
	cancel(channel: string, id: string): boolean;
	/** Fetches nothing from the channel until {@link resume}, or until the process ends. */
	pause(channel: string): void;
	resume(channel: string): void;
	counts(channel: string): QueueCounts;
	/** The dead letters of a channel. */
	deadLetters(channel: string): MemoryDeadLetters;
	private channel;
	private publishAgain;
	/** Puts a message into its channel. */
	private enqueue;
	private place;
	/** Takes a message that does not run out of the queue. False when there is none. */
	private takeBack;
	/**
	 * The handler does not wait for the disk. When the disk fails, a message that has not begun is
	 * taken back; of one that has begun, the handler decides.
	 */
	private write;
	private finish;
	private succeed;
	private fail;
	private bury;
	private isPlaced;
	private forget;
	private anyRunning;
	/** Resolves when no handler runs, or after `timeout` milliseconds. */
	private quiet;
	/** Empties the queue, and gives what was in it. */
	private drain;
	private openJournal;
	private save;
	private closeJournal;
	private static heard;
	private hear;
	private path;
	private inTurn;
}
/** An event queue on a server: the part that is the same for all of them. */
export declare abstract class ServerQueueAdapter implements IEventQueueAdapter {
	private readonly closeTimeout;
	private readonly logger?;
	private connected;
	private handle;
	private changes;
	private readonly events;
	/** The subscriptions of this connection, by their channels; a later one has others. */
	private readonly channels;
	/** Also those that were ended, while something may still come of them. */
	private readonly byNumber;
	private lastNumber;
	private whenQuiet;
	private turn;
	private readonly listener;
	private readonly completions;
	private readonly outgoing;
	/** Opens the queue in Rust, whose events go to the listener. */
	protected abstract open(listener: number): Handle;
	/** The server is there. */
	protected opened(): void;
	isConnected(): boolean;
	/** Resolves when the server can be reached, and rejects with `E_UNAVAILABLE` when it cannot within `connectTimeout`. */
	connect(): Promise<void>;
	/** Stops fetching, waits for running handlers and for what was sent up to `closeTimeout`, and hands back what is unfinished then. */
	close(): Promise<void>;
	subscribe(channel: string, event: QueueEventOptions): void;
	unsubscribe(channel: string): void;
	/**
	 * Resolves to the message's id when the server has stored it. Rejects with `E_CLOSED` when not connected, `E_INVALID_ARGUMENT`,
	 * `E_NOT_SERIALIZABLE`, and `E_UNAVAILABLE` or `E_TIMEOUT`, after which the message may be there all the same.
	 */
	publish(channel: string, message: any, options?: QueueMessageOptions | null): Promise<string>;
	cancel(channel: string, id: string): Promise<boolean>;
	pause(channel: string): Promise<void>;
	resume(channel: string): Promise<void>;
	counts(channel: string): Promise<QueueCounts>;
	deadLetters(channel: string): DeadLetters;
	health(): QueueHealth;
	private opening;
	private begin;
	private host;
	/** Resolves when no handler runs and all that was sent is answered, or after `closeTimeout`. */
	private quiet;
	private wait;
	private inTurn;
	private static heard;
	private hear;
}
/** How a server's queue treats messages that run. Times are milliseconds. */
export interface ServerQueueSettings {
	/** After which another node takes over the messages of one that has died. Renewed by a thread of its own, whatever the event loop does. Default 5000. */
	lease?: number;
	/** How long one run may take: then it counts as failed, its slot is free, and what it still says is ignored. Default 3600000 (1 hour). */
	maxRun?: number;
	/** How long the event loop may stand still before this node counts as dead. Default 300000 (5 minutes). */
	maxStall?: number;
	/** How often a message may end its node before it is a dead letter. Default 5. */
	maxCrashes?: number;
	/** Whether a run that ended with its node is one of the attempts that `maxRetries` allows. Default false. */
	crashCounts?: boolean;
	/** How long `close` waits for running handlers. Default 10000. */
	closeTimeout?: number;
}
/** How a connection to RabbitMQ is encrypted. */
export interface RabbitMQTls {
	/** Certificates of the authority, PEM. Default: the system's. */
	ca?: string;
	/** This client's certificate and its key, PEM. */
	cert?: string;
	key?: string;
}
/** Where a RabbitMQ broker is and how to talk to it. Times are milliseconds. */
export interface RabbitMQOptions {
	/**
	 * `amqp://[user:password@]host[:port][,host…][/vhost]`, `amqps://…` with TLS; several hosts are nodes of one cluster.
	 * Default `amqp://127.0.0.1:5672`.
	 */
	url?: string;
	/** How often the broker gives a sign of life, in whole seconds, rounded up; after two that are missing the connection counts as dead. Default 10000. */
	heartbeat?: number;
	/** With `amqps` URLs: whom to trust, and who this side is. */
	tls?: RabbitMQTls;
	/** How long connecting may take. Default 10000. */
	connectTimeout?: number;
	/** How long a confirmation or a reply may take. Default 5000. */
	commandTimeout?: number;
	/**
	 * The `consumer_timeout` of the broker, after which one before 3.12 takes a message away that still runs. It changes nothing there:
	 * a warning is logged when five sixths of it have passed. Default 1800000 (30 minutes), as the broker's.
	 */
	consumerTimeout?: number;
	/** What the names of queues and exchanges begin with; nodes that work together have the same. Default `mortise`. */
	namePrefix?: string;
}
/** Options of {@link RabbitMQEventQueueAdapter}. */
export interface RabbitMQEventQueueOptions extends RabbitMQOptions, ServerQueueSettings {
	/** Told of failures, of messages that are run again, and when the broker goes away and comes back. */
	logger?: Logger;
}
/**
 * An event queue on RabbitMQ 3.10 or newer, for all processes that name the same broker: a durable quorum queue a channel.
 * Messages are run at least once; see `docs/queue.md`. The setting `lease` means nothing here: the broker knows when a node is gone.
 */
export declare class RabbitMQEventQueueAdapter extends ServerQueueAdapter {
	private readonly connection;
	private readonly settings;
	/** A URL, or options. Throws a `TypeError` that names the option when one is wrong. */
	constructor(options?: string | RabbitMQEventQueueOptions);
	protected open(listener: number): Handle;
}
/** Options of {@link EventQueue}. */
export interface EventQueueOptions extends ServerQueueSettings {
	/** What the queue runs on. Default `'memory'`. */
	adapter?: "memory" | "redis" | "rabbitmq" | IEventQueueAdapter;
	/** URL or options of the server, for `'redis'` and `'rabbitmq'`. */
	url?: string | RedisOptions | RabbitMQOptions;
	/** Between the app's name and the channel. */
	channelPrefix?: string;
	/** Memory: keep messages on disk from before `publish` resolves until they are processed. Default false. */
	journal?: boolean;
	/** Memory: the folder of the app's files. Default: `STORAGE_PATH`, or `storage`, with `apps/<app>` below it. */
	storagePath?: string;
}
export interface Host {
	name?: string;
	logger?: Logger;
}
/** Messages that are processed in the background: in order, at least once, with retries. */
export declare class EventQueue {
	private readonly app;
	private readonly options;
	private adapter;
	private readonly events;
	/** The full names of the channels that are subscribed. */
	private readonly names;
	/** The channels that the adapter has been told of since it was connected. */
	private readonly subscribed;
	/** What is being done, so that connecting and closing wait for each other. */
	private turn;
	constructor(app: Host, options?: EventQueueOptions);
	/** Runs on `adapter` from now on; before `connect`. */
	setAdapter(adapter: IEventQueueAdapter | undefined): void;
	isConnected(): boolean;
	/** The name under which the adapter knows a channel: app (not for shared ones), prefix and channel, joined by `.`. */
	getFullChannel(channel: string, shared?: boolean): string;
	/** Connects the adapter, and subscribes the channels. May be repeated: each channel keeps one consumer. */
	connect(): Promise<void>;
	/** Stops fetching, waits for running handlers, and keeps the rest. May be repeated. */
	close(): Promise<void>;
	/** Processes the channel's messages. A second subscription of a channel is ignored, with a warning. */
	subscribe<T = any>(channel: string, options: QueueEventOptions<T>): void;
	/** Stops fetching the channel's messages; nothing when it is not subscribed. */
	unsubscribe(channel: string): void;
	/**
	 * Puts a message at the end of a channel. Resolves when the adapter has stored it, to the message's id.
	 *
	 * Rejects with `E_NO_ADAPTER`, `E_CLOSED` (`event queue not connected, cannot publish`),
	 * `E_NOT_SUBSCRIBED`, or what the adapter rejects with: on the journal `E_NOT_SERIALIZABLE` and
	 * `E_JOURNAL`; on a server `E_NOT_SERIALIZABLE`, `E_UNAVAILABLE` and `E_TIMEOUT`, where the message may have been
	 * stored all the same if it was sent.
	 */
	publish(channel: string, message: any, options?: QueueMessageOptions): Promise<string>;
	/**
	 * Takes a message out of a channel: one that waits is removed; of one that runs, on whatever node, the `signal`
	 * aborts with an `AbortError`, and it is not tried again when it fails. Resolves to whether there was one.
	 */
	cancel(channel: string, id: string): Promise<boolean>;
	/** Stops fetching the channel's messages on all nodes, until {@link resume}. What runs goes on; publishing does too. */
	pause(channel: string): Promise<void>;
	/** Fetches again after {@link pause}. */
	resume(channel: string): Promise<void>;
	/** How much there is in a channel. */
	counts(channel: string): Promise<QueueCounts>;
	/** Whether the queue works. */
	health(): QueueHealth;
	private inTurn;
	/** The dead letters of a channel: to list, replay and drop. Throws `E_UNSUPPORTED` where the adapter keeps none. */
	deadLetters(channel: string): DeadLetters;
	private fullName;
	private supported;
}
/** Options of {@link RedisEventQueueAdapter}, beside those of the connection. */
export interface RedisEventQueueOptions extends RedisOptions, ServerQueueSettings {
	/** Told of failures, of messages that are run again, and when the server goes away and comes back. */
	logger?: Logger;
}
/**
 * An event queue on Redis or Valkey, for all processes that name the same server: streams with a consumer group, one
 * a channel. Messages are run at least once; see `docs/queue.md`.
 */
export declare class RedisEventQueueAdapter extends ServerQueueAdapter {
	private readonly connection;
	private readonly settings;
	/** A URL, or options. Throws a `TypeError` that names the option when one is wrong. */
	constructor(options?: string | RedisEventQueueOptions);
	protected open(listener: number): Handle;
}
/** Gives a lock back. Calling it again, or after the lease has lapsed, does nothing. */
export interface Releaser {
	(): void | Promise<void>;
	/**
	 * A number that grows with each grant of the key. What is guarded by the lock can refuse a
	 * smaller one than it has seen, and so a writer that comes too late.
	 */
	readonly fencingToken?: number;
}
/** What the function of `runExclusive` is called with. */
export interface ExclusiveContext {
	/** Aborts when the lock is lost while the function runs, with a `LockAbortError` as its reason. */
	readonly signal: AbortSignal;
	/** See {@link Releaser.fencingToken}. */
	readonly fencingToken: number;
}
/**
 * A lock that `tryAcquire` got. It is held already, as a reservation: use it by `acquire` or
 * `runExclusive`, or give it back by `release`. A reservation that is abandoned lapses after
 * 60 seconds.
 */
export interface ILock {
	/** Turns the reservation into a lease of `ttl` milliseconds. Called again, it waits for the lock anew. */
	acquire(ttl?: number): Releaser | Promise<Releaser>;
	/** Like `acquire`, then `fn`, then release. The lease lapses at `ttl` milliseconds unless it is extended. */
	runExclusive<T>(fn: (context: ExclusiveContext) => T | Promise<T>, ttl?: number): Promise<T>;
	/**
	 * The lease now ends `ttl` milliseconds from now.
	 * @throws LockAcquireError `E_LOCK_NOT_ACTIVE` without a lease, also when it has lapsed
	 */
	extend?(ttl: number): void | Promise<void>;
	/** Gives the reservation or the lease back; otherwise does nothing. */
	release(): void | Promise<void>;
	/** See {@link Releaser.fencingToken}; that of the latest grant. */
	readonly fencingToken?: number;
}
/** A key that is held. Times are milliseconds. */
export interface LockHolder {
	key: string;
	/** The node that holds it: its host, its process, and on a server what tells nodes apart. */
	node: string;
	/** Since when, as `Date.now()` has it. */
	since: number;
	/** What is left of its lease; `Infinity` when that has no end. */
	ttl: number;
	/** How many wait for it. */
	waiters: number;
	/** See {@link Releaser.fencingToken}. */
	fencingToken: number;
}
/** What locks run on. Times are milliseconds. */
export interface ILockAdapter {
	connect(): Promise<void>;
	close(): Promise<void>;
	acquire(key: string, ttl: number): Releaser | Promise<Releaser>;
	runExclusive<T>(key: string, fn: (context: ExclusiveContext) => T | Promise<T>, ttl: number): Promise<T>;
	tryAcquire(key: string, timeout?: number): ILock | Promise<ILock>;
	/** The keys that are held now, for people to look at. */
	holders?(): LockHolder[] | Promise<LockHolder[]>;
}
/** Where a service reports; `app.logger` is one. */
export interface LockLogger {
	warn(message: string, ...details: unknown[]): void;
}
/** Options of {@link LocalLockAdapter}. */
export interface LocalLockAdapterOptions {
	/** The longest that `runExclusive` keeps a lock, in milliseconds. Defaults to 600 000 (10 minutes); `Infinity` for no end. */
	maxHold?: number;
	/** Defaults to a process warning. */
	logger?: LockLogger;
}
/**
 * The locks of this process, shared by all its managers and worker threads: first come, first
 * served, and not reentrant. A worker thread that ends gives back what it holds.
 */
export declare class LocalLockAdapter implements ILockAdapter {
	#private;
	constructor(options?: LocalLockAdapterOptions);
	/** How many keys are held in this process. */
	static get keys(): number;
	/** Bytes of native memory that the process's locks take. */
	static get bytes(): number;
	connect(): Promise<void>;
	/** What waits by this adapter rejects with `E_LOCK_ABORTED`; what is held stays so until it is released or lapses. */
	close(): Promise<void>;
	/** Waits for `key`, and holds it for at most `ttl` milliseconds. */
	acquire(key: string, ttl: number): Promise<Releaser>;
	/** Runs `fn` while `key` is held, for as long as `fn` takes up to `maxHold`. */
	runExclusive<T>(key: string, fn: (context: ExclusiveContext) => T | Promise<T>, ttl: number): Promise<T>;
	/** Tries for `key`, for `timeout` milliseconds at most; with 0 it is decided before the call returns. */
	tryAcquire(key: string, timeout?: number): Promise<ILock>;
	/** The keys that are held in this process. */
	holders(): LockHolder[];
}
/** Options of {@link LockManager}. */
export interface LockManagerOptions {
	/** The adapter that is used, by its name: `'local'` (default), `'redis'`, or one that is registered. */
	defaultAdapter?: string;
	/** On Redis: whose locks they are. Defaults to the app's name under `createApp` and `install`, else to `'main'`. */
	app?: string;
	/** On Redis, in milliseconds: see {@link RedisLockAdapterOptions.gracePeriod}. */
	gracePeriod?: number;
	/** The longest that `runExclusive` of our adapters keeps a lock, in milliseconds. Defaults to 600 000 (10 minutes); `Infinity` for no end. */
	maxHold?: number;
	/** Where lapses are reported. Defaults to process warnings. */
	logger?: LockLogger;
	/** On Redis: the server's URL, or the connection's options. */
	url?: string | RedisOptions;
	/** The same, when `url` is absent. */
	redis?: string | RedisOptions;
}
/** How an adapter is made: `new Adapter(options)`. */
export interface LockAdapterConfig<C extends ILockAdapter = ILockAdapter> {
	Adapter: new (...args: any[]) => C;
	options?: Record<string, any>;
}
/**
 * Locks by name, on the adapter of `defaultAdapter`, which is made and connected on first use.
 * After {@link LockManager.close} the next use makes and connects it anew.
 */
export declare class LockManager {
	#private;
	constructor(options?: LockManagerOptions);
	/** Makes an adapter known. A name that is taken throws. */
	registerAdapter(name: string, config: LockAdapterConfig): void;
	/**
	 * Waits for `key`, first come, first served, and holds it for at most `ttl` milliseconds: then
	 * it lapses and the next is let in. Fractions are rounded up; `Infinity` is for ever.
	 * @param ttl defaults to 500
	 * @returns the function that releases it
	 */
	acquire(key: string, ttl?: number): Promise<Releaser>;
	/**
	 * Runs `fn` while `key` is held, and releases it when `fn` settles. The lease of `ttl`
	 * milliseconds is renewed while `fn` runs, for no longer than `maxHold`: then the lock lapses
	 * and `signal` aborts.
	 * @param ttl defaults to 500
	 * @returns what `fn` returns
	 */
	runExclusive<T>(key: string, fn: (context: ExclusiveContext) => T | Promise<T>, ttl?: number): Promise<T>;
	/**
	 * Tries for `key` without waiting, or for at most `timeout` milliseconds.
	 * @param timeout defaults to 0: on the local adapter it is decided before the call returns
	 * @throws LockAcquireError `E_LOCK_LOCKED` without a timeout, `E_LOCK_TIMEOUT` after one
	 */
	tryAcquire(key: string, timeout?: number): Promise<ILock>;
	/**
	 * The keys that are held now: on the local adapter in this process, on Redis on all nodes of the app.
	 *
	 * Rejects with `E_UNSUPPORTED` when the adapter cannot tell.
	 */
	holders(): Promise<LockHolder[]>;
	/** Closes the adapter, if one is in use. May be repeated. */
	close(): Promise<void>;
}
/** Options of {@link RedisLockAdapter}, beside those of the connection. Times are milliseconds. */
export interface RedisLockAdapterOptions extends RedisOptions {
	/** Whose locks they are: apps of different names do not meet on one server. Defaults to `'main'`. */
	app?: string;
	/** The longest that `runExclusive` keeps a lock. Defaults to 600 000 (10 minutes); `Infinity` for no end. */
	maxHold?: number;
	/**
	 * How long nothing is granted after the server has started anew, was replaced or lost its data, so that
	 * those who hold locks can put them back. The first use of a server waits so long, too. The same for
	 * all nodes. Defaults to 2000.
	 */
	gracePeriod?: number;
	/** Where lapses, and the server's going and coming, are reported. Defaults to process warnings. */
	logger?: LockLogger & Partial<Logger>;
}
/**
 * The locks of all nodes that name the same app on the same Redis or Valkey server: first come, first
 * served, not reentrant, with fencing tokens that grow with each grant of a key. A waiter is told of its
 * turn; nobody polls. What a process holds lapses within its ttl when the process dies, and is renewed
 * for `runExclusive` by a thread of its own, however busy the event loop is.
 *
 * While the server is away `acquire`, `runExclusive` and `tryAcquire` reject with `E_UNAVAILABLE` or
 * `E_TIMEOUT` after `commandTimeout`; who waits in line keeps its place over a short loss.
 */
export declare class RedisLockAdapter implements ILockAdapter {
	#private;
	/** A URL, or options. Throws a `TypeError` that names the option when they are wrong. Connects on first use. */
	constructor(options?: string | RedisLockAdapterOptions);
	/** Resolves when the server grants locks; rejects with `E_UNAVAILABLE` when it cannot be reached within `connectTimeout`. May be repeated. */
	connect(): Promise<void>;
	/**
	 * What waits by this adapter rejects with `E_LOCK_ABORTED`; what is held stays so until it is released
	 * or lapses, and then the connection ends. The next use connects again. May be repeated.
	 */
	close(): Promise<void>;
	/** Waits for `key`, and holds it for at most `ttl` milliseconds. */
	acquire(key: string, ttl: number): Promise<Releaser>;
	/** Runs `fn` while `key` is held, and renews the lease of `ttl` for as long as `fn` takes up to `maxHold`. */
	runExclusive<T>(key: string, fn: (context: ExclusiveContext) => T | Promise<T>, ttl: number): Promise<T>;
	/** Tries for `key`, for `timeout` milliseconds at most. */
	tryAcquire(key: string, timeout?: number): Promise<ILock>;
	/** The keys that are held now, on all nodes. Scans the server's keys. */
	holders(): Promise<LockHolder[]>;
}
/**
 * `trimmed`: the log had moved on, messages that were not read yet were dropped from it. `replaced`: the
 * log is another one, since the server was emptied or replaced or has lost its newest data.
 * `disconnected`: the connection was lost, on an adapter without a log.
 */
export type GapReason = "trimmed" | "replaced" | "disconnected";
/** Messages may have been missed: whatever they would have told must be looked up afresh. */
export interface PubSubGap {
	reason: GapReason;
	/** The channel that was subscribed. */
	channel: string;
}
/** Called with each text that comes on a channel. */
export type PubSubCallback = (text: string) => unknown;
/** Options of {@link IPubSubAdapter.subscribe}. */
export interface AdapterSubscribeOptions {
	/** Called when texts of the channel may have been missed. */
	onGap?: (gap: {
		reason: GapReason;
	}) => unknown;
}
/** What carries the texts of pub/sub managers; may be written in JavaScript. */
export interface IPubSubAdapter {
	isConnected(): boolean | Promise<boolean>;
	connect(): Promise<unknown>;
	close(): Promise<unknown>;
	/** `options` may be ignored by an adapter that cannot tell of gaps. */
	subscribe(channel: string, callback: PubSubCallback, options?: AdapterSubscribeOptions): Promise<unknown>;
	unsubscribe(channel: string, callback: PubSubCallback): Promise<unknown>;
	publish(channel: string, text: string): Promise<unknown>;
}
declare abstract class NativePubSubAdapter implements IPubSubAdapter {
	private connected;
	/** Grows with each call of `connect` and `close`, so that the last one counts. */
	private turn;
	private readonly hearings;
	private readonly byId;
	private listener;
	private nextId;
	private readonly outgoing;
	isConnected(): boolean;
	connect(): Promise<void>;
	/** Nothing is heard from the call on; resolves when what was published before is settled. May be repeated. */
	close(): Promise<void>;
	/** Resolves when the channel is heard: what is published from then on reaches `callback`. */
	subscribe(channel: string, callback: PubSubCallback, options?: AdapterSubscribeOptions): Promise<void>;
	unsubscribe(channel: string, callback: PubSubCallback): Promise<void>;
	/** Resolves when the carrier has the text. Rejects with `E_CLOSED` when the adapter is not connected. */
	publish(channel: string, text: string): Promise<void>;
	private forget;
	private static heard;
	private hear;
}
/** What the log of an app keeps, and whether there is one. */
export interface RedisDeliveryOptions {
	/**
	 * `'log'` (default): by a capped log on the server; what passes while a connection is cut or a process is
	 * stopped is heard afterwards. `'volatile'`: by plain `PUBLISH`, which NocoBase's own Redis adapter
	 * understands; it needs Redis 6 and no cluster, else `connect` rejects with `E_UNSUPPORTED`.
	 */
	delivery?: "log" | "volatile";
	/** How many entries the log keeps, about; an entry has up to 32 messages. Default 10 000. */
	maxLength?: number;
	/** Milliseconds after which entries are dropped from the log, by and by. Default 600 000 (10 minutes). */
	maxAge?: number;
}
/** Options of {@link RedisPubSubAdapter}, beside those of the connection. */
export interface RedisPubSubAdapterOptions extends RedisOptions, RedisDeliveryOptions {
	/** Whose log it is: nodes with the same name on the same server hear each other. Default `'main'`. */
	app?: string;
	/** Told of gaps, and when the server goes away and comes back. */
	logger?: Logger;
}
/** Who is told of gaps. It does not hold the adapter, so that the listener does not either. */
export interface Told {
	logger: Logger | undefined;
	what: string;
	delivery: string;
	/** Of eviction, once. */
	warned: boolean;
}
/**
 * Carries texts between the nodes of an app over Redis. Any pub/sub manager can use it that takes an
 * {@link IPubSubAdapter}.
 *
 * `connect` resolves when the server can be reached, and rejects with `E_UNAVAILABLE` when it cannot
 * within `connectTimeout`. While a connected one has lost its server, `publish` waits, up to
 * `commandTimeout`; then it rejects with `E_UNAVAILABLE`, or `E_TIMEOUT` when the server was there but slow
 * (the message may have gone out), and with `E_BUFFER_FULL` at once when 100 000 messages or 16 MiB wait.
 */
export declare class RedisPubSubAdapter extends NativePubSubAdapter {
	private readonly use;
	/** Its listener lives as long. */
	protected readonly told: Told;
	/** A URL, or options. Throws a `TypeError` that names the option when one is wrong. */
	constructor(options?: string | RedisPubSubAdapterOptions);
	connect(): Promise<void>;
	close(): Promise<void>;
	/** The log lives for ever, so only these policies may take it. */
	private warnOfEviction;
}
/** Options of {@link PubSubManager}; those of delivery are for `'redis'`. */
export interface PubSubManagerOptions extends RedisDeliveryOptions {
	/** What carries the messages. `createApp`'s default is `'memory'`; the class's own is none. */
	adapter?: "memory" | "redis" | false | IPubSubAdapter;
	/** On Redis: the server, by its URL or by options. */
	url?: string | RedisOptions;
	/** On memory: who hears each other; default one bus for the process. */
	bus?: string;
	/** Between the app's name and the channel. */
	channelPrefix?: string;
	/** The default of {@link PublishOptions.skipSelf}. Default false; true under `createApp`. */
	skipSelf?: boolean;
}
/** Options of {@link PubSubManager.publish}. */
export interface PublishOptions {
	/** The message does not come back to this manager. */
	skipSelf?: boolean;
	/** Only this manager hears the message; wins over `skipSelf`. */
	onlySelf?: boolean;
}
/** Options of {@link PubSubManager.subscribe}. */
export interface SubscribeOptions {
	/**
	 * Milliseconds: messages of equal content within this time of the first become one call, at its
	 * end. Default 0: every message is a call. An open window does not keep Node alive.
	 */
	debounce?: number;
	/** With `debounce`: call for the first message at once; at the end only if others came. Default false. */
	leading?: boolean;
	/**
	 * Called when messages may have been missed, in order with those around it. On `memory` and on adapters
	 * that cannot tell it never is. What it throws or rejects with is logged.
	 */
	onGap?: GapCallback;
}
/** Called with each message; what it throws or rejects with is logged. */
export type MessageCallback<T = any> = (message: T) => unknown;
/** Called with each gap. */
export type GapCallback = (gap: PubSubGap) => unknown;
interface Host$1 {
	name?: string;
	logger?: Logger;
}
/** Messages between the nodes of an app: who publishes on a channel is heard by all who subscribed it. */
export declare class PubSubManager {
	private readonly app;
	private readonly options;
	/** Tells this manager's messages from those of others. */
	readonly publisherId: string;
	/** `uniqueMessageHandlers.size` is the number of open debounce windows; `handlers` are the callbacks by channel. */
	readonly handlerManager: {
		readonly uniqueMessageHandlers: {
			readonly size: number;
		};
		readonly handlers: ReadonlyMap<string, ReadonlySet<MessageCallback>>;
	};
	private adapter;
	private readonly handle;
	private readonly byId;
	private readonly byChannel;
	/** The channels heard through an adapter written in JavaScript. */
	private readonly heard;
	/** What {@link getFullChannel} gave last. */
	private last;
	private open;
	private nextId;
	private turn;
	private readonly outgoing;
	constructor(app: Host$1, options?: PubSubManagerOptions);
	/** The default of `skipSelf` when publishing. */
	get skipSelf(): boolean;
	/** The name under which the adapter knows a channel: app, prefix and channel, joined by `.`. */
	getFullChannel(channel: string): string;
	/** Uses `adapter`; before `connect`. */
	setAdapter(adapter: IPubSubAdapter): void;
	/** Whether messages can be published. */
	isConnected(): Promise<boolean>;
	/** Connects the adapter, and hears what is subscribed. Nothing without an adapter. May be repeated. */
	connect(): Promise<void>;
	/** Nothing is delivered from the call on; open debounce windows are cancelled. May be repeated. */
	close(): Promise<void>;
	/**
	 * Calls `callback` with each message on the channel, parsed anew for each subscription. The same
	 * callback on the same channel again replaces the earlier subscription.
	 */
	subscribe<T = any>(channel: string, callback: MessageCallback<T>, options?: SubscribeOptions): Promise<void>;
	/** Ends a subscription, and its open debounce windows; nothing when there is none. */
	unsubscribe(channel: string, callback: MessageCallback): Promise<void>;
	/**
	 * Publishes a message, which is anything that JSON can hold. Resolves when the adapter has it;
	 * without a connection it warns in the log, and resolves too.
	 *
	 * Rejects with `E_NOT_SERIALIZABLE` for what JSON cannot hold, and with what the adapter rejects with;
	 * see {@link RedisPubSubAdapter}.
	 */
	publish(channel: string, message: any, options?: PublishOptions): Promise<void>;
	private warnUnconnected;
	private forget;
	/** Sees to it that the adapter gives us the channel's texts, once. */
	private hear;
	private callbacks;
	private static heard;
	private deliver;
	private tell;
	private watch;
	/** What a callback throws or rejects with is logged, and harms nobody else. */
	private failed;
	private inTurn;
}
/** Carries texts within the process: between all apps and worker threads that name the same bus. */
export declare class MemoryPubSubAdapter extends NativePubSubAdapter {
	/** `bus`: who hears each other; default one for the process. */
	constructor(options?: {
		bus?: string;
	});
}
/** Options of {@link SyncMessageManager}. */
export interface SyncMessageManagerOptions {
	/** Milliseconds: equal messages within this time become one call. Default 1000. */
	debounce?: number;
	/** Call for the first message at once, and at the end of the debounce time only if others came. Default false. */
	leading?: boolean;
}
/** Options of {@link SyncMessageManager.subscribe}. */
export interface SyncSubscribeOptions {
	/** Called when messages may have been missed. */
	onGap?: GapCallback;
	/** Default: that of the manager. */
	leading?: boolean;
}
/** What a transaction must offer; Sequelize's does. */
export interface TransactionLike {
	/** Registers what is done after the commit. */
	afterCommit(callback: (...values: any[]) => any): unknown;
	/** Sequelize: `'commit'` or `'rollback'` once it has ended. */
	finished?: string;
	rollback?(...values: any[]): Promise<any>;
}
/** Options of {@link SyncMessageManager.publish}. */
export interface SyncPublishOptions extends PublishOptions {
	/** Publish after this transaction's commit, and never when it is rolled back. */
	transaction?: TransactionLike;
}
interface Host$2 {
	name?: string;
	logger?: Logger;
	stopped?: boolean;
	db?: {
		closed?(): boolean;
	};
	pubSubManager: Pick<PubSubManager, "publish" | "subscribe" | "unsubscribe">;
	on(event: string, listener: (...values: any[]) => any): unknown;
}
/**
 * Messages by which the nodes of an app keep in step. A plugin with `handleSyncMessage` hears those
 * that it sent with `sendSyncMessage` on other nodes.
 */
export declare class SyncMessageManager {
	private readonly app;
	private readonly debounce;
	private readonly leading;
	constructor(app: Host$2, options?: SyncMessageManagerOptions);
	/**
	 * Publishes to the other nodes (`skipSelf` is true by default). Within a `transaction`: after its
	 * commit, never on rollback; resolves when published.
	 *
	 * Rejects with `E_TRANSACTION_ROLLED_BACK` after a rollback, where the transaction can tell, and
	 * with `E_TRANSACTION_TIMEOUT` when it has not ended after 50 s.
	 */
	publish(channel: string, message: any, options?: SyncPublishOptions): Promise<void>;
	/** Calls `callback` with each message on the channel; equal ones within the debounce time once. */
	subscribe(channel: string, callback: MessageCallback, options?: SyncSubscribeOptions): Promise<void>;
	/** Ends a subscription. */
	unsubscribe(channel: string, callback: MessageCallback): Promise<void>;
	private channel;
	private subscribePlugin;
}
/** Where worker ids come from; may be written in JavaScript. */
export interface IWorkerIdAdapter {
	/** An id from 0 to 31 that no other live node of the app has. */
	getWorkerId(): Promise<number>;
	/** Gives the id back. */
	release(): Promise<void>;
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
/**
 * One node's worker id on Redis: unique among the live nodes of an app, leased, and renewed off the main
 * thread. Each adapter is a node of its own. It connects when the id is asked for, and until it is released.
 */
export declare class RedisWorkerIdAdapter implements IWorkerIdAdapter {
	private readonly node;
	private readonly logger;
	private readonly onLost;
	/** Throws a `TypeError` that names the option when one is wrong. */
	constructor(options?: string | RedisWorkerIdOptions);
	/**
	 * The node's id, from 0 to 31; the same until it is released or lost. On a server where the app has no ids yet,
	 * or that was restarted or replaced, the first takes up to 3 seconds, in which live nodes renew theirs. Where all
	 * are taken, but some of them rest, it waits for those: up to `lease` and `rest` together.
	 *
	 * Rejects with `E_WORKER_IDS_EXHAUSTED` when all 32 are held, with `E_UNAVAILABLE` or `E_TIMEOUT` when the
	 * server is away, and with `E_CLOSED` when `release` was called meanwhile.
	 */
	getWorkerId(): Promise<number>;
	/**
	 * Gives the id back, and lets go of the connection. May be repeated. Never rejects, and waits at most a second
	 * for a server that is away: what could not be given back lapses by itself.
	 */
	release(): Promise<void>;
	private keepWhileHolding;
	private static told;
}
/** Options of {@link WorkerIdAllocator}. All but `adapter` are for `'redis'`. */
export interface WorkerIdAllocatorOptions {
	/** `'redis'`, or one of yours. Default: none, and ids are random. */
	adapter?: IWorkerIdAdapter | "redis";
	/** URL or options of the server. */
	url?: string | RedisOptions;
	/** The app, whose nodes share the ids. Default `'main'`; under `createApp` and `install` the app's name. */
	app?: string;
	/** How long the id stays this node's while it cannot be renewed, in milliseconds. Default 10 000. */
	lease?: number;
	/** How long an id that was released or has lapsed is given to nobody, in milliseconds. Default 10 000. */
	rest?: number;
	/** Told when the id could not be renewed, and when it was lost. Default: the app's, else to stderr. */
	logger?: Logger;
	/** Called when another node was given the id, so that it must not be used any more: `getWorkerId` gives a new one. */
	onLost?: () => void;
}
/**
 * Gives the node a small number that tells it apart from the other nodes of its app. Without an
 * adapter it is random, and two nodes may have the same.
 */
export declare class WorkerIdAllocator {
	private adapter;
	constructor(options?: WorkerIdAllocatorOptions);
	/** Takes ids from `adapter` from now on. */
	setAdapter(adapter: IWorkerIdAdapter): void;
	/** An id from 0 to 31. */
	getWorkerId(): Promise<number>;
	/** Gives the id back. */
	release(): Promise<void>;
}
/** Options of `createApp` and `install`; each service's object goes to its manager. */
export interface AppOptions {
	/** Prefixes channels, and keys of the cache. Default `'main'`. */
	name?: string;
	/** Default: quiet below `warn`, to stderr. */
	logger?: Logger;
	/** URL or options of the Redis server for every service that runs on Redis and names none. */
	redis?: string | RedisOptions;
	cacheManager?: CacheManagerOptions;
	pubSubManager?: PubSubManagerOptions;
	syncMessageManager?: SyncMessageManagerOptions;
	eventQueue?: EventQueueOptions;
	lockManager?: LockManagerOptions;
	workerIdAllocator?: WorkerIdAllocatorOptions;
}
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
export declare class Plugin {
	readonly app: Application;
	readonly options: PluginOptions;
	constructor(app: Application, options?: PluginOptions);
	/** The name given in the options. */
	get name(): string;
	/** Called when the app loads, first, for each plugin. */
	afterAdd(): void | Promise<void>;
	/** Called for each plugin before any is loaded. */
	beforeLoad(): void | Promise<void>;
	/** Creates what the plugin needs: caches, subscriptions, queues. */
	load(): void | Promise<void>;
	/** For hosts that install their plugins once; never called by mortise itself. */
	install(): void | Promise<void>;
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
	sendSyncMessage(message: any, options?: {
		transaction?: TransactionLike;
	}): Promise<void>;
}
/** The plugins of an app. */
export declare class PluginManager {
	private readonly app;
	private readonly plugins;
	private prepared;
	constructor(app: Application);
	/** Adds a plugin; the app must not have been loaded yet. */
	add<P extends Plugin>(Class: PluginClass<P>, options?: PluginOptions): P;
	/** The plugin of that class or name; `undefined` when there is none. */
	get<P extends Plugin = Plugin>(classOrName: PluginClass<P> | string): P | undefined;
	/** All plugins, in the order in which they were added. */
	getPlugins(): readonly Plugin[];
	/** Whether every plugin has been loaded. */
	get allLoaded(): boolean;
	/** Calls the hooks of loading, for the plugins that were added since the last time. */
	load(): Promise<void>;
	private call;
}
/**
 * The services of one node, and the plugins that use them.
 *
 * `start` loads first if needed. Loading: for each plugin `afterAdd`; for each the event
 * `beforeLoadPlugin(plugin)` and `beforeLoad`; for each `load`; the event `afterLoad`. Starting:
 * the services connect; the event `afterStart`. Stopping: the event `beforeStop`; pub/sub closes
 * and delivers nothing after; the queue stops fetching and waits for running handlers; the event
 * `afterStop`; locks, caches and worker id are given back.
 */
export declare class Application extends EventEmitter {
	readonly name: string;
	readonly logger: Logger;
	readonly cacheManager: CacheManager;
	/** The default cache, named after the app. Usable as soon as the app is made. */
	readonly cache: Cache;
	readonly pubSubManager: PubSubManager;
	readonly syncMessageManager: SyncMessageManager;
	readonly eventQueue: EventQueue;
	readonly lockManager: LockManager;
	readonly workerIdAllocator: WorkerIdAllocator;
	/** The plugins. */
	readonly pm: PluginManager;
	private state;
	private everLoaded;
	/** What is being done, so that calls that come meanwhile wait their turn. */
	private turn;
	constructor(options?: AppOptions);
	/** Whether the app has been stopped, and not started again since. */
	get stopped(): boolean;
	/** Calls the listeners of an event one after the other, each awaited; the first error rejects. */
	emitAsync(event: string | symbol, ...values: unknown[]): Promise<boolean>;
	/** Adds a plugin; it is loaded with the app. */
	plugin<P extends Plugin>(Class: PluginClass<P>, options?: PluginOptions): P;
	/** Whether this node serves `key`, by `WORKER_MODE`; see {@link serving}. */
	serving(key?: string): boolean;
	/** Whether this node serves nothing, by `WORKER_MODE`. */
	isTransient(): boolean;
	/** Loads the plugins; those loaded before are not loaded again. */
	load(): Promise<void>;
	/** Loads if needed, and connects the services. Nothing when the app is started already. */
	start(): Promise<void>;
	/** Stops, and gives back all that the app holds; Node can exit then. Nothing when it is stopped already. */
	stop(): Promise<void>;
	private doLoad;
	private inTurn;
}
/** Makes the services of one node. Throws `E_UNKNOWN_OPTION` for option names that nobody knows. */
export declare function createApp(options?: AppOptions): Application;
/** An application that has services of its own, such as NocoBase's. */
export interface HostApplication {
	name?: string;
	logger?: Logger;
	on(event: string, listener: (...values: any[]) => any): unknown;
	off?(event: string, listener: (...values: any[]) => any): unknown;
	once?(event: string, listener: (...values: any[]) => any): unknown;
	[member: string]: any;
}
/** The services that {@link install} has put into a host. */
export interface InstalledServices {
	cacheManager: CacheManager;
	cache: Cache;
	pubSubManager: PubSubManager;
	syncMessageManager: SyncMessageManager;
	eventQueue: EventQueue;
	lockManager: LockManager;
	workerIdAllocator: WorkerIdAllocator;
}
/**
 * Puts the services into an application that exists: before it is started, and once; a second
 * call changes nothing. The services connect at the host's `afterStart`, and close at its
 * `beforeStop` and `afterStop`.
 *
 * A NocoBase makes its services anew when it restarts, is installed or upgraded: so do these, with the same options,
 * and the object that was returned has the new ones then.
 *
 * Publishing on pub/sub reaches this node too unless the call or `pubSubManager.skipSelf` says
 * otherwise, as in NocoBase's code.
 */
export declare function install(app: HostApplication, options?: AppOptions): InstalledServices;
/**
 * Whether this node serves `key` (a kind of work, such as a queue's); without a key, whether it
 * serves requests. `WORKER_MODE` unset or empty: everything; `-`: nothing; `*`: every key, but no
 * requests; else a list, separated by commas, of keys, with `!` for requests and `*` for every key.
 */
export declare function serving(key?: string): boolean;
/** Whether this node serves nothing: it only runs a command and ends. */
export declare function isTransient(): boolean;
/** An error of mortise: `code` is stable (`E_…`), the message names the key, channel or option. */
export declare class MortiseError extends Error {
	/** The stable code, such as `E_CLOSED`. */
	readonly code: string;
	constructor(code: string, message: string, options?: {
		cause?: unknown;
	});
}
/**
 * A lock could not be had (`lock is locked`, `lock acquire timed out`) or is not held any more
 * (`lock is not active`). Codes: `E_LOCK_LOCKED`, `E_LOCK_TIMEOUT`, `E_LOCK_NOT_ACTIVE`.
 */
export declare class LockAcquireError extends Error {
	readonly code: string;
	/** The key of the lock. */
	readonly key?: string;
	constructor(message: string, options?: {
		cause?: unknown;
		code?: string;
	});
}
/** A lock was lost, or its service closed, while it was held or waited for. Code: `E_LOCK_ABORTED`. */
export declare class LockAbortError extends Error {
	readonly code: string;
	/** The key of the lock. */
	readonly key?: string;
	constructor(message: string, options?: {
		cause?: unknown;
		code?: string;
	});
}

export {};
