export interface EventQueueOptions { adapter?: any; url?: unknown; channelPrefix?: string; journal?: boolean; storagePath?: string; closeTimeout?: number }
export class EventQueue { constructor(_app: unknown, _o?: EventQueueOptions) {} async connect() {} async close() {} }
