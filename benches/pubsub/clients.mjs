// One way to publish and subscribe for each of us and our peers. All carry the same text, and parse it.

import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { Redis } from 'ioredis';
import { createClient } from 'redis';
import { mortise } from '../servers.mjs';

const publisherId = randomUUID();
const textOf = (message) => JSON.stringify({ publisherId, skipSelf: true, message });

/** What a subscriber of a peer does with a text; its own messages are to be skipped, as ours are. */
const hearing = (callback) => (text) => {
  const envelope = JSON.parse(text);
  if (envelope.publisherId !== publisherId || !envelope.skipSelf) callback(envelope.message);
};

const quiet = { debug() {}, info() {}, warn() {}, error() {} };

async function ours(delivery, port) {
  const manager = new mortise.PubSubManager({ name: 'bench', logger: quiet }, { adapter: 'redis', url: `redis://127.0.0.1:${port}`, skipSelf: true, delivery });
  await manager.connect();
  return {
    publish: (channel, message) => manager.publish(channel, message),
    subscribe: (channel, callback) => manager.subscribe(channel, callback),
  };
}

async function ioredis(port) {
  const publisher = new Redis({ port, host: '127.0.0.1', enableAutoPipelining: true });
  const subscriber = new Redis({ port, host: '127.0.0.1' });
  for (const client of [publisher, subscriber]) client.on('error', () => undefined);
  // A subscription that goes out before its INFO is answered makes ioredis connect anew, and is not made again.
  await Promise.all([publisher, subscriber].map((client) => once(client, 'ready')));
  const callbacks = new Map();
  subscriber.on('message', (channel, text) => callbacks.get(channel)?.(text));
  return {
    publish: (channel, message) => publisher.publish(channel, textOf(message)),
    subscribe: (channel, callback) => {
      callbacks.set(channel, hearing(callback));
      return subscriber.subscribe(channel);
    },
  };
}

async function nodeRedis(port) {
  const [publisher, subscriber] = [createClient({ url: `redis://127.0.0.1:${port}` }), createClient({ url: `redis://127.0.0.1:${port}` })];
  for (const client of [publisher, subscriber]) await client.on('error', () => undefined).connect();
  return {
    publish: (channel, message) => publisher.publish(channel, textOf(message)),
    subscribe: (channel, callback) => subscriber.subscribe(channel, hearing(callback)),
  };
}

export const CLIENTS = {
  mortise: (port) => ours('log', port),
  'mortise, volatile': (port) => ours('volatile', port),
  ioredis,
  'node-redis 4': nodeRedis,
};
