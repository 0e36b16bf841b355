export type { DeadLetter, IEventQueueAdapter, ProcessContext, QueueEventOptions, QueueMessageOptions } from './adapter';
export type { DeadLetters } from './dead-letters';
export { MemoryEventQueueAdapter, type MemoryEventQueueOptions } from './memory-adapter';
export { EventQueue, type EventQueueOptions } from './queue';
