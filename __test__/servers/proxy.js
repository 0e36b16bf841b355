'use strict';
// A TCP proxy between a client and a server, that misbehaves on order.

const net = require('node:net');

const open = new Set();
// Also after a test that failed halfway.
if (typeof afterAll === 'function') afterAll(() => Promise.all([...open].map((proxy) => proxy.close())));

/** Forwards a free port of 127.0.0.1 to `target`. */
class Proxy {
  constructor(target) {
    this.target = target;
    this.pairs = new Set();
    /**
     * `pass`; `refuse`: connections are closed at once; `blackhole`: nothing passes; `half`: what the server says
     * does not. A connection that has lost anything loses all that follows: TCP leaves nothing out.
     */
    this.mode = 'pass';
    /** A word of what a client says, with which the mode becomes `half`: the server hears it, and its answer is lost. */
    this.halfFrom = undefined;
    /** Milliseconds by which what the server says is late. */
    this.delay = 0;
    this.connections = 0;
    /** How often clients have said something that was passed on. */
    this.passed = 0;
    this.server = net.createServer((client) => this.accept(client));
  }

  static async to(target) {
    const proxy = new Proxy(target);
    await new Promise((resolve) => proxy.server.listen(0, '127.0.0.1', resolve));
    proxy.port = proxy.server.address().port;
    open.add(proxy);
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
    let [deaf, dumb] = [false, false];
    // What comes later stays behind what is late: one queue and one timer, since timers do not keep an order.
    const late = [];
    const deliver = () => {
      while (late.length > 0 && late[0].due <= performance.now()) {
        const { data } = late.shift();
        if (!client.destroyed) client.write(data);
      }
      if (late.length > 0) setTimeout(deliver, late[0].due - performance.now());
    };
    client.on('data', (data) => {
      if (this.halfFrom !== undefined && data.includes(this.halfFrom)) [this.mode, this.halfFrom] = ['half', undefined];
      deaf ||= this.mode === 'blackhole';
      if (deaf) return;
      this.passed++;
      upstream.write(data);
    });
    upstream.on('data', (data) => {
      dumb ||= this.mode === 'blackhole' || this.mode === 'half';
      if (dumb) return;
      if (this.delay === 0 && late.length === 0) return client.write(data);
      late.push({ data, due: Math.max(performance.now() + this.delay, late.at(-1)?.due ?? 0) });
      if (late.length === 1) setTimeout(deliver, this.delay);
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
    open.delete(this);
    this.cut();
    await new Promise((resolve) => this.server.close(resolve));
  }
}

module.exports = { Proxy };
