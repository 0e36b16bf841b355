// Publishing with confirmation, consuming and acknowledging on one broker and quorum queues, 100 publishes in flight:
// ours and amqplib, each with a consumer of 100 at once.

import amqplib from 'amqplib';
import { createRequire } from 'node:module';
import { compare } from '../harness.mjs';
import { mortise } from '../servers.mjs';

const { RabbitMQServer } = createRequire(import.meta.url)('../../__test__/servers/rabbitmq.js');
const IN_FLIGHT = 100;
const MESSAGES = Number(process.env.MESSAGES ?? 20_000);
const message = { id: 1, name: 'x'.repeat(80) };
const quiet = { trace() {}, debug() {}, info() {}, warn: console.warn, error: console.error };
const server = await RabbitMQServer.start();
let names = 0;

/** Publishes all, so many in flight, and waits until all are processed. */
const through = async (publish, processed) => {
  let left = MESSAGES;
  const begun = process.hrtime.bigint();
  await Promise.all(Array.from({ length: IN_FLIGHT }, async () => {
    while (left-- > 0) await publish();
  }));
  await processed;
  return { ops: MESSAGES, nanoseconds: Number(process.hrtime.bigint() - begun) };
};

const counter = () => {
  let count = 0;
  let finish;
  const all = new Promise((resolve) => { finish = resolve; });
  return { all, one: () => { if (++count === MESSAGES) finish(); } };
};

const ours = async () => {
  const queue = new mortise.EventQueue({ name: `bench-${names++}`, logger: quiet }, { adapter: 'rabbitmq', url: server.url });
  await queue.connect();
  const { all, one } = counter();
  queue.subscribe('c', { concurrency: 100, process: async () => one() });
  await queue.publish('c', message);
  await new Promise((resolve) => setTimeout(resolve, 200));
  const result = await through(() => queue.publish('c', message), all);
  await queue.close();
  return result;
};

const theirs = async () => {
  const connection = await amqplib.connect(server.url);
  const [publisher, consumer] = [await connection.createConfirmChannel(), await connection.createChannel()];
  const queue = `bench-${names++}`;
  await publisher.assertQueue(queue, { durable: true, arguments: { 'x-queue-type': 'quorum' } });
  await consumer.prefetch(100);
  const { all, one } = counter();
  await consumer.consume(queue, async (delivery) => {
    JSON.parse(delivery.content);
    one();
    consumer.ack(delivery);
  });
  const publish = () => new Promise((resolve, reject) => {
    const body = Buffer.from(JSON.stringify([{ timeout: 15_000, maxRetries: 0, timestamp: Date.now() }, message]));
    publisher.publish('', queue, body, { persistent: true, mandatory: true }, (error) => (error ? reject(error) : resolve()));
  });
  await publish();
  await new Promise((resolve) => setTimeout(resolve, 200));
  const result = await through(publish, all);
  await connection.close();
  return result;
};

await compare({
  name: `RabbitMQ: publish, confirm, consume, acknowledge, ${IN_FLIGHT} in flight`,
  target: ['amqplib', 1.5],
  peers: { mortise: ours, amqplib: theirs },
});
await server.stop();
process.exit();
