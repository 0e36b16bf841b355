'use strict';

const { EventQueue } = require('..');
const { eventQueueFaults } = require('./event-queue-faults');
const { eventQueueRules } = require('./event-queue-rules');
const { redis } = require('./servers/brokers');
const { RedisServer } = require('./servers/redis');

let server;
beforeAll(async () => { server = await RedisServer.start(); });
afterAll(() => server.stop());

eventQueueRules('Redis', ({ name, logger, ...options }) => new EventQueue({ name, logger }, { adapter: 'redis', url: server.url, ...options }), {});
eventQueueFaults('Redis', redis);
