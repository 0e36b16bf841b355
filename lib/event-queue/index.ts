export type {
  DeadLetter, DeadLetters, IEventQueueAdapter, ProcessContext, QueueBackoff, QueueCounts, QueueEventOptions, QueueHealth, QueueMessageOptions,
} from './adapter';
export { MemoryEventQueueAdapter, type MemoryEventQueueOptions } from './memory-adapter';
export { EventQueue, type EventQueueOptions } from './queue';
export { RabbitMQEventQueueAdapter, type RabbitMQEventQueueOptions, type RabbitMQOptions, type RabbitMQTls } from './rabbitmq-adapter';
export { RedisEventQueueAdapter, type RedisEventQueueOptions } from './redis-adapter';
export type { ServerQueueAdapter } from './server-adapter';
export type { ServerQueueSettings } from './server-settings';
