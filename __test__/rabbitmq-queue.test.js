'use strict';

const { EventQueue } = require('..');
const { eventQueueRules } = require('./event-queue-rules');
const { RabbitMQServer } = require('./servers/rabbitmq');

jest.setTimeout(60_000);

let server;
beforeAll(async () => { server = await RabbitMQServer.start(); }, 100_000);

eventQueueRules('RabbitMQ', ({ name, logger, ...options }) => new EventQueue({ name, logger }, { ...options, adapter: 'rabbitmq', url: server.url }), {
  dedupes: false,
  cancelsWaiting: false,
  oldestAge: false,
  countsDelayed: false,
});
