// The RabbitMQ broker on which the tasks are queued: one that is there, or one of the demo's own.

import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);

export class Broker {
  /** Starts one as the tests do, with its data in a temporary folder. It ends with this process, however that ends. */
  static async own(say) {
    const { RabbitMQServer } = require('../../__test__/servers/rabbitmq.js');
    say('mortise: starting a RabbitMQ broker, which takes some seconds');
    try {
      const server = await RabbitMQServer.start();
      return new Broker(server.url, server);
    } catch (error) {
      const text = 'RabbitMQ cannot be started; install rabbitmq-server, or name a broker: --rabbitmq amqp://host';
      throw new Error(`${text} (${error.message.split('\n')[0]})`);
    }
  }

  constructor(url, server) {
    this.url = url;
    this.server = server;
  }

  /** What it is, without passwords. */
  get name() {
    const { host } = new URL(this.url);
    return this.server ? `a RabbitMQ broker of its own (amqp://${host})` : `RabbitMQ at ${host}`;
  }

  async close() {
    await this.server?.stop();
  }
}
