// Pub/sub's functions in Rust; see `src/node/pub_sub.rs`. Those that give a boolean are done when it is
// true; else the listener is told of the outcome, with `sequence` as subject.

declare module '../native' {
  interface Binding {
    pubSubNew(publisherId: string, listener: number): Handle;
    pubSubSubscribe(manager: Handle, channel: string, id: number, window: number, leading: boolean): void;
    pubSubUnsubscribe(manager: Handle, channel: string, id: number): void;
    pubSubReceive(manager: Handle, channel: string, text: string): void;
    pubSubGap(manager: Handle, channel: string, gap: number): void;
    pubSubOpenWindows(manager: Handle): number;
    pubSubCancelWindows(manager: Handle): void;
    pubSubHear(manager: Handle, member: Handle, channel: string, listener: number, sequence: number): boolean;
    pubSubPublish(manager: Handle, member: Handle, listener: number, sequence: number, ...batch: BatchArguments): void;
    memoryBusJoin(bus: string): Handle;
    redisBusJoin(options: string, app: string, volatile: boolean, maxLength: number, maxAge: number, listener: number): Handle;
    busConnect(member: Handle, listener: number, sequence: number): boolean;
    busClose(member: Handle, listener: number, sequence: number): boolean;
    busSubscribe(member: Handle, channel: string, hearing: number, id: number, listener: number, sequence: number): boolean;
    busUnsubscribe(member: Handle, channel: string, listener: number, sequence: number): boolean;
    busPublish(member: Handle, listener: number, sequence: number, ...batch: BatchArguments): void;
  }
}

export { binding } from '../native';
