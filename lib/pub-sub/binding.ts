// Pub/sub's functions in Rust; see `src/node/pub_sub.rs`.

declare module '../native' {
  interface Binding {
    pubSubNew(publisherId: string, listener: number): Handle;
    pubSubSubscribe(manager: Handle, channel: string, id: number, window: number, leading: boolean): void;
    pubSubUnsubscribe(manager: Handle, channel: string, id: number): void;
    pubSubReceive(manager: Handle, channel: string, text: string): void;
    pubSubOpenWindows(manager: Handle): number;
    pubSubCancelWindows(manager: Handle): void;
    pubSubHear(manager: Handle, member: Handle, channel: string): void;
    pubSubPublish(manager: Handle, member: Handle, listener: number, ...batch: BatchArguments): void;
    memoryBusJoin(bus: string): Handle;
    memoryBusConnect(member: Handle): void;
    memoryBusClose(member: Handle): void;
    memoryBusSubscribe(member: Handle, channel: string, listener: number, id: number): void;
    memoryBusUnsubscribe(member: Handle, channel: string): void;
    memoryBusPublish(member: Handle, listener: number, channel: string, text: string): boolean;
  }
}

export { binding } from '../native';
