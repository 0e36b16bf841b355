// The cache's functions in Rust; see `src/node/cache.rs` and `src/node/clock.rs`.

declare module '../native' {
  interface Binding {
    clockFace(): ArrayBuffer;
    clockStart(now: number): void;
    memoryNew(max: number): Handle;
    memoryCells(store: Handle, slots: number): ArrayBuffer;
    memoryInsert(store: Handle, now: number, deadline: number): number;
    memorySooner(store: Handle, slot: number, deadline: number): void;
    memoryRemove(store: Handle, slot: number): void;
    memoryClear(store: Handle): void;
    memoryExpire(store: Handle, now: number): number[];
    memoryNextExpiry(store: Handle): number;
    globNew(pattern: string): Handle;
    globMatches(glob: Handle, key: string): boolean;
    bloomNew(errorRate: number, capacity: number): Handle;
    bloomAdd(filter: Handle, value: string): void;
    bloomContains(filter: Handle, value: string): boolean;
  }
}

export { binding } from '../native';
