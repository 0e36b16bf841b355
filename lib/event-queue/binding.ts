// The event queue's functions in Rust; see `src/node/event_queue.rs`.

declare module '../native' {
  interface Binding {
    queueNew(listener: number): Handle;
    queueCells(queue: Handle): ArrayBuffer;
    queueAddChannel(queue: Handle): number;
    queueSetConcurrency(queue: Handle, channel: number, concurrency: number): void;
    queuePublish(queue: Handle, channel: number, retried: number, maxRetries: number, timeout: number): number;
    queuePublishLater(queue: Handle, channel: number, retried: number, maxRetries: number, timeout: number, delay: number): number;
    queueClaim(queue: Handle, channel: number, limit: number): number;
    queueSucceed(queue: Handle, slot: number): boolean;
    queueFail(queue: Handle, slot: number, backoff: string): number;
    queueRemove(queue: Handle, slot: number): boolean;
    queueDrain(queue: Handle, channel: number): number[];
    queueCounts(queue: Handle, channel: number): [waiting: number, delayed: number, running: number, first: number];
    journalOpen(path: string): Handle;
    journalEntries(journal: Handle): string;
    journalAppend(journal: Handle, listener: number, ...batch: BatchArguments): void;
    journalChange(journal: Handle, ...batch: BatchArguments): void;
    journalClose(journal: Handle, listener: number, sequence: number): void;
  }
}

export { binding } from '../native';
