// Redis' functions in Rust; see `src/node/redis.rs`.

declare module '../native' {
  interface Binding {
    redisOpen(options: string, listener: number): Handle;
    redisClose(redis: Handle): void;
    redisHealth(redis: Handle): HealthParts;
    redisSubmit(redis: Handle, listener: number, ...batch: BatchArguments): void;
    redisOperate(redis: Handle, listener: number, sequence: number, operation: number, words: string[]): void;
    redisShown(options: string): string;
  }
}

/** Server, state, reason, milliseconds in that state, version, protocol, eviction policy. */
export type HealthParts = [string, string, string | null, number, string, number, string];

/** What `redisOperate` can be asked for; `src/node/redis.rs` has the same numbers. */
export const Operation = {
  KEYS: 0,
  DELETE_MATCHING: 1,
  GET_MANY: 2,
  DELETE_MANY: 3,
  COUNT: 4,
  REPLACE: 5,
  TAKE_LEASE: 6,
  RELEASE_LEASE: 7,
  BLOOM_RESERVE: 8,
  BLOOM_ADD: 9,
  BLOOM_EXISTS: 10,
  RENEW_LEASE: 11,
  SET_UNDER_LEASE: 12,
} as const;

export { binding } from '../native';
