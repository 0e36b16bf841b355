'use strict';
// The rules of every event queue, and those of one on a server when something fails, on Redis.

const { EventQueue } = require('..');
const { eventQueueFaults } = require('./event-queue-faults');
const { eventQueueRules } = require('./event-queue-rules');
const { redis } = require('./servers/brokers');
const { RedisServer } = require('./servers/redis');

let server;
beforeAll(async () => { server = await RedisServer.start(); });
afterAll(() => server.stop());

// A message that is tried again is fetched before those that wait.
eventQueueRules('Redis', ({ name, logger, ...options }) => new EventQueue({ name, logger }, { adapter: 'redis', url: server.url, ...options }), { retriesStandBehind: false });
eventQueueFaults('Redis', redis);
