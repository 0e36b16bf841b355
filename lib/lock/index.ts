export type { ExclusiveContext, ILock, ILockAdapter, Releaser } from './adapter';
export { LocalLockAdapter, type LocalLockAdapterOptions, type LockLogger } from './local-adapter';
export { LockManager, type LockAdapterConfig, type LockManagerOptions } from './manager';
