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
    redisQueueOpen(options: string, settings: string, listener: number, now: number): Handle;
    rabbitQueueCheck(options: string): void;
    rabbitQueueOpen(options: string, settings: string, listener: number, now: number): Handle;
    serverQueueCells(queue: Handle): ArrayBuffer;
    serverQueueConnect(queue: Handle, listener: number, sequence: number): void;
    serverQueuePublish(queue: Handle, listener: number, ...batch: BatchArguments): void;
    serverQueueSubscribe(queue: Handle, channel: string, concurrency: number, listener: number, number: number): number;
    serverQueueUnsubscribe(queue: Handle, subscription: number): void;
    serverQueueTurn(queue: Handle, subscription: number, fetch: boolean, ...batch: BatchArguments): void;
    serverQueueStanding(queue: Handle, subscription: number, ticket: number): number;
    serverQueueBeat(queue: Handle): void;
    serverQueueStop(queue: Handle): void;
    serverQueueClose(queue: Handle, listener: number, sequence: number): void;
    serverQueueCancel(queue: Handle, listener: number, sequence: number, channel: string, id: string): void;
    serverQueuePause(queue: Handle, listener: number, sequence: number, channel: string, paused: boolean): void;
    serverQueueCounts(queue: Handle, listener: number, sequence: number, channel: string): void;
    serverQueueDeadLetters(queue: Handle, listener: number, sequence: number, channel: string): void;
    serverQueueReplay(queue: Handle, listener: number, sequence: number, channel: string, id: string): void;
    serverQueueDrop(queue: Handle, listener: number, sequence: number, channel: string, id: string): void;
    serverQueueHealth(queue: Handle): [state: string, reason: string | null, silent: number];
    queueCounts(queue: Handle, channel: number): [waiting: number, delayed: number, running: number, first: number];
    journalOpen(path: string): Handle;
    journalEntries(journal: Handle): string;
    journalAppend(journal: Handle, listener: number, ...batch: BatchArguments): void;
    journalChange(journal: Handle, ...batch: BatchArguments): void;
    journalClose(journal: Handle, listener: number, sequence: number): void;
  }
}

export { binding } from '../native';
