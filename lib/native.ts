// The binding: loads the addon, and delivers the events that it posts.

import { join } from 'node:path';
import { pardon } from './away';

/** A value that Rust owns; JavaScript only passes it back. */
export type Handle = { readonly __handle: unique symbol };

/** What an event listener is called with: subject, value, payload (see `src/node/mailbox.rs`). */
export type Listener = (subject: number, value: number, payload: unknown) => void;

/**
 * The addon's functions. Each service adds its own by declaration merging:
 * `declare module './native' { interface Binding { … } }`.
 */
export interface Binding {
  listen(dispatch: (count: number, payloads?: unknown[]) => void): [ArrayBuffer, number];
  listener(instance: number): number;
  keepAlive(instance: number, yes: boolean): void;
  postLast(listener: number, subject: number): void;
}

/** The name of the prebuilt addon for this platform, as `napi build` gives it. */
function target(): string {
  const { platform, arch } = process;
  if (platform !== 'linux') return platform === 'win32' ? `win32-${arch}-msvc` : `${platform}-${arch}`;
  const report = process.report?.getReport() as { header?: { glibcVersionRuntime?: string } } | undefined;
  return `linux-${arch}-${report?.header?.glibcVersionRuntime ? 'gnu' : 'musl'}`;
}

function load(): Binding {
  const name = target();
  const file = process.env.MORTISE_NATIVE ?? join(__dirname, `mortise.${name}.node`);
  try {
    return require(file);
  } catch (cause) {
    const message = `mortise has no addon for ${name}: ${file} cannot be loaded; build it with \`npm run build:native\``;
    throw Object.assign(new Error(message, { cause }), { code: 'E_NO_ADDON' });
  }
}

export const binding = load();

/** This module may be loaded more than once in a process, and the addon then serves all of these instances. */
const [memory, instance] = binding.listen(dispatch);
const NUMBERS = 3;
const numbers = new Float64Array(memory);

const listeners: (Listener | undefined)[] = [];
const free: number[] = [];

/** Registers a listener and returns the number under which Rust posts to it. */
export function listen(listener: Listener): number {
  const id = free.pop() ?? binding.listener(instance);
  listeners[id] = listener;
  return id;
}

/** No listener's subject. */
const LAST = -1.5;

/** Ends a listener. Its number is used again only when what was posted to it has been delivered. */
export function unlisten(id: number): void {
  listeners[id] = (subject) => {
    if (subject !== LAST) return;
    listeners[id] = undefined;
    setImmediate(() => setImmediate(() => free.push(id))).unref();
  };
  binding.postLast(id, LAST);
}

/**
 * Registers a listener that does not keep `owner` from being collected, and ends with it. `listener`
 * is a static method or a function of the module: a closure made in a method would hold the method's `this`.
 */
export function listenWeakly<T extends object>(owner: T, listener: (owner: T, subject: number, value: number, payload: unknown) => void): number {
  const held = new WeakRef(owner);
  const id = listen((subject, value, payload) => {
    const alive = held.deref();
    if (alive) listener(alive, subject, value, payload);
  });
  collected.register(owner, id);
  return id;
}

const collected = new FinalizationRegistry<number>(unlisten);

function dispatch(count: number, payloads?: unknown[]): void {
  for (let i = 0; i < count; i++) {
    const at = i * NUMBERS;
    try {
      listeners[numbers[at]]?.(numbers[at + 1], numbers[at + 2], payloads?.[i]);
    } catch (error) {
      // Listeners hand users' errors on themselves; what comes here is a bug of ours, and must
      // not keep the events behind it from being delivered.
      process.emitWarning(String((error as Error)?.stack ?? error), 'MortiseWarning');
    }
  }
}

let held = 0;

/** Keeps Node alive until as many calls of {@link release} have been made. */
export function hold(): void {
  if (held++ === 0) binding.keepAlive(instance, true);
}

/** Takes one {@link hold} back. */
export function release(): void {
  if (--held === 0) binding.keepAlive(instance, false);
}

type Resolve = (value: unknown) => void;

let newResolve: Resolve;
let newReject: Resolve;
/** One for all promises: a closure for each would be a fifth of what a waiting promise costs. */
const executor = (resolve: Resolve, reject: Resolve): void => {
  newResolve = resolve;
  newReject = reject;
};

/** What becomes of a promise whose event has come. */
export interface Ending {
  /** Gives what it resolves to, or throws what it rejects with. `subject` is what the promise is about. */
  convert(value: number, payload: unknown, subject: string): unknown;
  /** As `convert`, for an error. Without it the error rejects. */
  recover?(error: unknown, subject: string): unknown;
}

const NOTHING: Ending = { convert: () => undefined };

/**
 * Promises that Rust settles, many to a wake: {@link Completions.wait} gives a sequence number for
 * the call into Rust, which posts an event with that number as its subject.
 *
 * Node stays alive while one is waiting.
 */
export class Completions {
  readonly listener: number;
  private readonly resolvers: (Resolve | undefined)[] = [];
  private readonly rejecters: (Resolve | undefined)[] = [];
  private readonly promises: (Promise<unknown> | undefined)[] = [];
  private readonly endings: (Ending | undefined)[] = [];
  private readonly subjects: string[] = [];
  private readonly free: number[] = [];
  private waiting = 0;
  private ending = false;

  constructor(private readonly usual: Ending = NOTHING) {
    this.listener = listen((sequence, value, payload) => this.settle(sequence, value, payload));
  }

  /** Called when no promise is waiting any more. */
  whenSettled: (() => void) | undefined;

  /** The number of promises not settled yet. */
  get size(): number {
    return this.waiting;
  }

  /** Makes a promise; `start` is called with its sequence number at once, and when it throws the promise rejects. */
  wait<T>(start: (sequence: number) => void): Promise<T> {
    const promise = this.promise<T>();
    const sequence = this.last;
    try {
      start(sequence);
    } catch (error) {
      this.settle(sequence, 0, error);
    }
    return promise;
  }

  /** The sequence number of the promise that {@link promise} gave last. */
  last = 0;

  /** A promise about `subject`, such as a key. Its number is {@link last} then. */
  promise<T>(subject = '', ending = this.usual): Promise<T> {
    const promise = new Promise<unknown>(executor);
    const sequence = this.free.pop() ?? this.resolvers.length;
    this.resolvers[sequence] = newResolve;
    this.rejecters[sequence] = newReject;
    this.promises[sequence] = promise;
    this.subjects[sequence] = subject;
    this.endings[sequence] = ending;
    this.last = sequence;
    this.waiting++;
    hold();
    return promise as Promise<T>;
  }

  /** Gives the listener up, when nothing waits any more; nothing more may be waited for. */
  end(): void {
    this.ending = true;
    if (this.waiting === 0) unlisten(this.listener);
  }

  /** Settles a promise from JavaScript's side; nothing when it has been settled. */
  settle(sequence: number, value: number, payload: unknown): void {
    const resolve = this.resolvers[sequence];
    if (resolve === undefined) return;
    const reject = this.rejecters[sequence] as Resolve;
    const promise = this.promises[sequence] as Promise<unknown>;
    const subject = this.subjects[sequence];
    const ending = this.endings[sequence] as Ending;
    this.resolvers[sequence] = this.rejecters[sequence] = this.promises[sequence] = undefined;
    this.free.push(sequence);
    if (--this.waiting === 0) this.whenSettled?.();
    if (this.ending) this.end();
    release();
    try {
      if (!isError(payload)) resolve(ending.convert(value, payload, subject));
      else if (ending.recover) resolve(ending.recover(payload, subject));
      else throw payload;
    } catch (error) {
      pardon(promise, error);
      reject(error);
    }
  }
}

/** By its looks and not by `instanceof`: an error made by the addon may be of another realm. */
function isError(value: unknown): boolean {
  return typeof value === 'object' && value !== null && Object.prototype.toString.call(value) === '[object Error]';
}

/** What a {@link Batch} hands over; `units` is the length of `text`. */
export type BatchArguments = [commands: number, text: string, numbers: Float64Array, filled: number, units: number];

/**
 * Parts of a turn's commands: the first is small, so that the other side begins while JavaScript goes on.
 * Measured on Redis with 50 and 100 in flight: 1.2 times the throughput of one part a turn.
 */
const FIRST_PART = 8;
const LARGEST_PART = 64;

/**
 * Commands for Rust, gathered while the current turn of JavaScript runs and handed over in a few
 * calls, the last by a microtask: their strings joined to one, which N-API reads in one go, and their
 * numbers in one typed array. Measured on Redis GETs: 2 to 7 times the throughput of a call a command,
 * at a quarter of the main thread's time.
 */
export class Batch {
  private text = '';
  private numbers = new Float64Array(64);
  private filled = 0;
  private commands = 0;
  /** The commands after which the next part is handed over; it grows from part to part of one turn. */
  private part = FIRST_PART;
  private scheduled = false;
  private readonly handOver = (): void => {
    this.scheduled = false;
    this.part = FIRST_PART;
    this.flush();
  };

  /** `numbers[0..filled]` holds, for each command, what {@link Batch.add} was given. */
  constructor(private readonly submit: (...batch: BatchArguments) => void) {}

  /** Adds a command: any count of numbers, then its strings, whose lengths in UTF-16 units are appended to the numbers. */
  add(values: readonly number[], ...strings: string[]): void {
    this.reserve(values.length + strings.length);
    for (const value of values) this.numbers[this.filled++] = value;
    for (const string of strings) {
      this.numbers[this.filled++] = string.length;
      this.text += string;
    }
    this.count();
  }

  /** As {@link add}, for one number, the strings' count and the strings, which are in an array already. */
  addWords(value: number, words: readonly string[]): void {
    const { length } = words;
    this.reserve(length + 2);
    const { numbers } = this;
    let at = this.filled;
    numbers[at++] = value;
    numbers[at++] = length;
    for (let i = 0; i < length; i++) {
      const word = words[i];
      numbers[at++] = word.length;
      this.text += word;
    }
    this.filled = at;
    this.count();
  }

  /** Hands over what has been gathered, without waiting for the microtask. */
  flush(): void {
    if (this.commands === 0) return;
    const { commands, text, numbers, filled } = this;
    this.commands = 0;
    this.text = '';
    this.filled = 0;
    this.submit(commands, text, numbers, filled, text.length);
  }

  private reserve(numbers: number): void {
    const needed = this.filled + numbers;
    if (needed <= this.numbers.length) return;
    const larger = new Float64Array(needed * 2);
    larger.set(this.numbers);
    this.numbers = larger;
  }

  private count(): void {
    if (!this.scheduled) {
      this.scheduled = true;
      queueMicrotask(this.handOver);
    }
    if (++this.commands < this.part) return;
    this.part = Math.min(this.part * 2, LARGEST_PART);
    this.flush();
  }
}
