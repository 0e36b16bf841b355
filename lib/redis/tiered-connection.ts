import { invalid } from '../errors';
import { Batch, type Ending, type Handle } from '../native';
import { binding } from './binding';
import { RedisConnection } from './connection';
import type { RedisOptions } from './options';

declare module '../native' {
  interface Binding {
    tieredOpen(options: string, maxBytes: number, listener: number): Handle;
    tieredCells(tiered: Handle): ArrayBuffer;
    tieredGet(tiered: Handle, key: string): string | undefined;
    tieredFill(tiered: Handle, listener: number, ...batch: BatchArguments): void;
    tieredInvalidate(tiered: Handle, key: string): void;
    tieredFlush(tiered: Handle): void;
    tieredIsTracking(tiered: Handle): boolean;
    tieredSize(tiered: Handle): [entries: number, bytes: number];
  }
}

/** The default of the near cache's size: 64 MiB. */
const MAX_BYTES = 64 * 2 ** 20;

// The cells that Rust writes; `src/node/tiered.rs` has the same numbers. Counts are the lower half of a cell.
const BUCKETS = 16384;
const VERSIONS = 1;
const BUCKET = VERSIONS + BUCKETS;
const VERSION = BUCKET + 1;
const LEFT = BUCKET + 2;

/** A text found in the near cache, with what tells whether it is still the newest. */
export interface Found {
  text: string;
  /** Milliseconds. */
  left: number;
  bucket: number;
  version: number;
  epoch: number;
}

/** A connection whose reads are kept in the process, and whose server tells of changes to them. */
export class TieredConnection extends RedisConnection {
  private numbers!: Float64Array;
  private counts!: Uint32Array;
  private fills!: Batch;
  private readonly found: Found = { text: '', left: 0, bucket: 0, version: 0, epoch: 0 };
  private told = false;

  constructor(options: RedisOptions | undefined, private readonly maxBytes = MAX_BYTES) {
    super(options);
    if (typeof maxBytes !== 'number' || !(maxBytes >= 0)) throw invalid(`maxBytes of a tiered store is a number of bytes: ${String(maxBytes)}`);
  }

  protected override makeHandle(options: string, listener: number): Handle {
    const handle = binding.tieredOpen(options, this.maxBytes, listener);
    const cells = binding.tieredCells(handle);
    this.numbers = new Float64Array(cells);
    this.counts = new Uint32Array(cells);
    this.fills = new Batch((...batch) => binding.tieredFill(handle, this.replies.listener, ...batch));
    return handle;
  }

  /** Looks into the near cache. The object is good until the next call. */
  look(key: string): Found | undefined {
    const handle = this.handle ?? this.open();
    const epoch = this.counts[0];
    const text = binding.tieredGet(handle, key);
    if (text === undefined) return undefined;
    const { found, numbers } = this;
    found.text = text;
    found.bucket = numbers[BUCKET];
    found.version = numbers[VERSION];
    found.left = numbers[LEFT];
    found.epoch = epoch;
    return found;
  }

  /** Whether nothing that concerns the bucket has changed since. */
  isCurrent(bucket: number, version: number, epoch: number): boolean {
    const { counts } = this;
    return counts[(VERSIONS + bucket) * 2] === version && counts[0] === epoch;
  }

  /** Reads a key from the server, and keeps what is found. After all that was sent before. */
  fill<T = string | null>(key: string, ending?: Ending): Promise<T> {
    if (this.handle === undefined) this.open();
    this.batch.flush();
    const promise = this.replies.promise<T>(key, ending);
    this.fills.addWords(this.replies.last, [key]);
    return promise;
  }

  override send<T = any>(words: readonly string[], subject?: string, ending?: Ending): Promise<T> {
    this.fills?.flush();
    return super.send(words, subject, ending);
  }

  override operate<T = any>(operation: number, words: string[]): Promise<T> {
    this.fills?.flush();
    return super.operate(operation, words);
  }

  override close(): void {
    this.fills?.flush();
    super.close();
  }

  /** This process changes the key, or has done so. */
  invalidate(key: string): void {
    binding.tieredInvalidate(this.handle ?? this.open(), key);
  }

  /** Everything may have changed. */
  flush(): void {
    binding.tieredFlush(this.handle ?? this.open());
  }

  /** Whether the server tells of changes. Without that the near cache stays empty. */
  get tracking(): boolean {
    return this.handle !== undefined && binding.tieredIsTracking(this.handle);
  }

  /** What the near cache holds; `bytes` counts keys, texts and what goes with them. */
  size(): { entries: number; bytes: number } {
    if (!this.handle) return { entries: 0, bytes: 0 };
    const [entries, bytes] = binding.tieredSize(this.handle);
    return { entries, bytes };
  }

  protected override becameReady(): void {
    if (this.told || this.tracking) return;
    this.told = true;
    const why = 'the server cannot tell of changed keys (CLIENT TRACKING over RESP3, Redis 6 or newer)';
    this.onLine?.('warn', `${this.server}: ${why}, so the tiered store works as a plain redis store`);
  }
}
