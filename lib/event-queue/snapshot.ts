// The file in which the memory adapter keeps, while it is closed, what was waiting.

import { mkdir, open, readFile, rename, unlink } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Logger } from '../app/logger';
import type { QueueMessageOptions } from './adapter';

/** A message as the file holds it. */
export interface SavedMessage {
  id: string;
  content?: any;
  options: QueueMessageOptions;
  /** Until when it is kept back, in milliseconds since 1970. */
  due?: number;
}

/** The messages that wait, by the full names of their channels. */
export type Snapshot = Record<string, SavedMessage[]>;

/** Reads the file; an unreadable one is set aside under another name, and logged. */
export async function readSnapshot(path: string, logger: Logger | undefined): Promise<Snapshot> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return {};
    throw Object.assign(error as Error, { message: `the event queue's file ${path} cannot be read: ${(error as Error).message}` });
  }
  let snapshot: Snapshot;
  try {
    snapshot = parse(text);
  } catch (error) {
    const target = `${path}.unreadable-${Date.now()}`;
    await rename(path, target);
    logger?.error(`the event queue's file ${path} is unreadable and was set aside as ${target}`, error);
    return {};
  }
  return snapshot;
}

/** The messages of both, those of `later` behind. */
export function merge(earlier: Snapshot, later: Snapshot): Snapshot {
  const both = { ...earlier };
  for (const [channel, messages] of Object.entries(later)) both[channel] = [...(both[channel] ?? []), ...messages];
  return both;
}

/** Removes the file, once what it held is elsewhere. */
export async function removeSnapshot(path: string): Promise<void> {
  await unlink(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error;
  });
}

/** Writes the file as a whole or not at all; what another has left there meanwhile is kept. */
export async function saveSnapshot(path: string, snapshot: Snapshot, logger: Logger | undefined): Promise<void> {
  const present = merge(await readSnapshot(path, logger), snapshot);
  if (Object.keys(present).length === 0) return;
  const text = `{${Object.entries(present).map(([channel, messages]) =>
    `${JSON.stringify(channel)}:[${messages.flatMap((message) => serialize(channel, message, logger)).join(',')}]`).join(',')}}`;
  await mkdir(dirname(path), { recursive: true });
  const temporary = `${path}.${process.pid}.tmp`;
  const file = await open(temporary, 'w');
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary, path);
}

function serialize(channel: string, message: SavedMessage, logger: Logger | undefined): string[] {
  try {
    return [JSON.stringify(message)];
  } catch (error) {
    logger?.error(`message ${message.id} of event queue channel ${channel} cannot be written as JSON, and is lost`, error);
    return [];
  }
}

function parse(text: string): Snapshot {
  const value = JSON.parse(text);
  const valid = isObject(value) && Object.values(value).every((messages) =>
    Array.isArray(messages) && messages.every((message) => isObject(message) && (message.options === undefined || isObject(message.options))));
  if (!valid) throw new Error('it does not hold messages by channel');
  return value as Snapshot;
}

function isObject(value: unknown): value is Record<string, any> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
