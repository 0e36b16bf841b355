export * from './app';
export * from './cache';
export * from './event-queue';
export * from './lock';
export * from './pub-sub';
export * from './redis';
export * from './sync-message';
export * from './worker-id';
export { LockAbortError, LockAcquireError, MortiseError } from './errors';
/** For the entries beside this one. @internal */
export { NO_QUEUE } from './app/host-services';
/** For the entries beside this one. @internal */
export { useLockErrorClasses } from './lock/failures';
/** For the entries beside this one. @internal */
export { hostModule, hostServer } from './nocobase/host';
/** For the entries beside this one. @internal */
export { HostWorkerId } from './nocobase/worker-id';
