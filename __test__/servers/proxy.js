'use strict';
// A TCP proxy between a client and a server, that misbehaves on order.

const net = require('node:net');

/** Forwards a free port of 127.0.0.1 to `target`. */
class Proxy {
  constructor(target) {
    this.target = target;
    this.pairs = new Set();
    /** `pass`; `refuse`: connections are closed at once; `blackhole`: nothing passes; `half`: what the server says does not. */
    this.mode = 'pass';
    /** Milliseconds by which what the server says is late. */
    this.delay = 0;
    this.connections = 0;
    this.server = net.createServer((client) => this.accept(client));
  }

  static async to(target) {
    const proxy = new Proxy(target);
    await new Promise((resolve) => proxy.server.listen(0, '127.0.0.1', resolve));
    proxy.port = proxy.server.address().port;
    return proxy;
  }

  accept(client) {
    this.connections++;
    client.on('error', () => {});
    if (this.mode === 'refuse') return client.destroy();
    const upstream = net.connect({ port: this.target, host: '127.0.0.1' });
    upstream.on('error', () => {});
    for (const socket of [client, upstream]) socket.setNoDelay(true);
    const pair = { client, upstream };
    this.pairs.add(pair);
    const end = () => {
      this.pairs.delete(pair);
      client.destroy();
      upstream.destroy();
    };
    client.on('close', end);
    upstream.on('close', end);
    client.on('data', (data) => { if (this.mode !== 'blackhole') upstream.write(data); });
    let last = 0;
    upstream.on('data', (data) => {
      if (this.mode === 'blackhole' || this.mode === 'half') return;
      // What comes later stays behind what is late.
      last = Math.max(last, Date.now() + this.delay);
      if (last <= Date.now()) client.write(data);
      else setTimeout(() => { if (!client.destroyed) client.write(data); }, last - Date.now() + 1);
    });
  }

  /** Ends all connections; new ones are made as the mode says. */
  cut() {
    for (const { client, upstream } of [...this.pairs]) {
      client.destroy();
      upstream.destroy();
    }
  }

  async close() {
    this.cut();
    await new Promise((resolve) => this.server.close(resolve));
  }
}

module.exports = { Proxy };
