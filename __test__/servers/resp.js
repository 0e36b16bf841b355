'use strict';
// A client of Redis that is none of ours, to look at what is on a server: one command at a time.

const net = require('node:net');

/** Sends commands to `target` (a port, or what `net.connect` takes) and gives the replies; errors reject. */
class Resp {
  constructor(target) {
    this.socket = net.connect(typeof target === 'number' ? { port: target, host: '127.0.0.1' } : target);
    this.socket.setNoDelay(true);
    this.data = Buffer.alloc(0);
    this.waiting = [];
    this.failure = null;
    this.socket.on('data', (chunk) => {
      this.data = Buffer.concat([this.data, chunk]);
      for (;;) {
        const parsed = parse(this.data, 0);
        if (!parsed) return;
        this.data = this.data.subarray(parsed.end);
        const { resolve, reject } = this.waiting.shift() ?? {};
        if (parsed.value instanceof Error) reject?.(parsed.value);
        else resolve?.(parsed.value);
      }
    });
    const fail = (error) => {
      this.failure ??= error ?? new Error('the connection was closed');
      for (const { reject } of this.waiting.splice(0)) reject(this.failure);
    };
    this.socket.on('error', fail);
    this.socket.on('close', () => fail());
  }

  call(...words) {
    if (this.failure) return Promise.reject(this.failure);
    const parts = words.map((word) => Buffer.from(String(word)));
    const head = Buffer.from(`*${parts.length}\r\n`);
    this.socket.write(Buffer.concat([head, ...parts.flatMap((part) => [Buffer.from(`$${part.length}\r\n`), part, Buffer.from('\r\n')])]));
    return new Promise((resolve, reject) => this.waiting.push({ resolve, reject }));
  }

  close() {
    this.socket.destroy();
  }
}

function parse(data, at) {
  const line = data.indexOf('\r\n', at);
  if (line < 0) return null;
  const text = data.toString('utf8', at + 1, line);
  const next = line + 2;
  switch (String.fromCharCode(data[at])) {
    case '+': return { value: text, end: next };
    case '-': return { value: new Error(text), end: next };
    case ':': return { value: Number(text), end: next };
    case '$': {
      const length = Number(text);
      if (length < 0) return { value: null, end: next };
      if (data.length < next + length + 2) return null;
      return { value: data.toString('utf8', next, next + length), end: next + length + 2 };
    }
    case '*': {
      if (Number(text) < 0) return { value: null, end: next };
      const value = [];
      let end = next;
      for (let i = 0; i < Number(text); i++) {
        const item = parse(data, end);
        if (!item) return null;
        value.push(item.value);
        ({ end } = item);
      }
      return { value, end };
    }
    default: throw new Error(`not RESP: ${text}`);
  }
}

module.exports = { Resp };
