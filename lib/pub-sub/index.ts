export type { AdapterSubscribeOptions, IPubSubAdapter, PubSubCallback } from './adapter';
export type { GapReason, PubSubGap } from './gap';
export {
  type GapCallback, type MessageCallback, PubSubManager, type PubSubManagerOptions, type PublishOptions, type SubscribeOptions,
} from './manager';
export { MemoryPubSubAdapter } from './memory-adapter';
export { type RedisDeliveryOptions, RedisPubSubAdapter, type RedisPubSubAdapterOptions } from './redis-adapter';
