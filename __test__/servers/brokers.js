'use strict';
// The brokers that event queues are tested on: how one is started, and how a queue reaches it.
//
// A broker keeps what it has acknowledged when it is killed; `start` gives a server with `port`, `kill`, `shutDown`, `up`,
// `pause`, `resume` and `stop`. `url` gives the option `url` of a queue that reaches it, or a proxy before it, on that port: quick to
// give up, so that a test need not wait. Those that differ in `nth` share no connection, as different processes. `lease`
// gives the option of that name, where there are leases; a broker that `redelivers` gives what it has lost with a connection
// to somebody at once.

const { RabbitMQServer } = require('./rabbitmq');
const { RedisServer } = require('./redis');

const QUICK = { commandTimeout: 2000, connectTimeout: 2000, reconnectGrace: 200, heartbeatTimeout: 500 };

const redis = {
  adapter: 'redis',
  lease: (lease) => ({ lease }),
  countsDelayed: true,
  redelivers: false,
  start: () => RedisServer.start(['appendonly yes', 'appendfsync always']),
  url: (port, nth = 0) => ({ port, ...QUICK, heartbeat: 200 + nth }),
  /** What a refused connection and a server that does not answer are told by. */
  away: ['E_UNAVAILABLE', 'E_TIMEOUT'],
  /** What is left when all messages are processed and all queues closed, beside empty streams. */
  left: async (server) => {
    const keys = await server.call('KEYS', '*');
    const lengths = await Promise.all(keys.map(async (key) => (key.endsWith(':stream') ? server.call('XLEN', key) : 1)));
    return keys.filter((_, i) => lengths[i] > 0);
  },
};

const rabbitmq = {
  adapter: 'rabbitmq',
  /** The broker notices by itself that a node is gone: there are no leases, and a lost connection loses what runs. */
  lease: () => ({}),
  countsDelayed: false,
  redelivers: true,
  start: () => RabbitMQServer.start(),
  url: (port) => ({ url: `amqp://guest:guest@127.0.0.1:${port}`, commandTimeout: 2000, connectTimeout: 2000, heartbeat: 1000 }),
  away: ['E_UNAVAILABLE', 'E_TIMEOUT'],
  /** Queues that hold messages, beside those in which pauses are noted. */
  left: async (server) => {
    const queues = (await server.control('list_queues', '--no-table-headers', 'name', 'messages')).trim().split('\n');
    return queues.filter((line) => !/\.delays\t|\t0$/.test(line));
  },
};

module.exports = { rabbitmq, redis };
