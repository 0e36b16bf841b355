export type { IPubSubAdapter, PubSubCallback } from './adapter';
export {
  type MessageCallback, PubSubManager, type PubSubManagerOptions, type PublishOptions, type SubscribeOptions,
} from './manager';
export { MemoryPubSubAdapter } from './memory-adapter';
