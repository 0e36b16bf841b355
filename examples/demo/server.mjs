// The Redis server that the nodes share: one that is there, or one of the demo's own.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { createServer } from 'node:net';

const { RedisConnection } = createRequire(import.meta.url)('../..');

/** How long the server may be away, in milliseconds, before the demo gives up. */
const PATIENCE = 4000;

export class Server {
  /** A server that is there already. */
  static at(url) {
    return new Server(url);
  }

  /** Starts one on a free port of 127.0.0.1, which keeps nothing on disk. */
  static async own(folder) {
    // Somebody else may take the port between the look and the use.
    for (let attempt = 1; ; attempt++) {
      const port = await freePort();
      try {
        const server = new Server(`redis://127.0.0.1:${port}`);
        server.process = await startRedis(port, folder);
        return server;
      } catch (error) {
        if (error.code === 'ENOENT' || attempt === 3) throw error;
      }
    }
  }

  constructor(url) {
    this.url = url;
    this.connection = new RedisConnection(url);
  }

  /** What it is, without passwords. */
  get name() {
    return this.process ? `a redis-server of its own (${this.url})` : this.connection.server;
  }

  /** Resolves when the server answers; from then on `failed` is called when it is away for long. */
  async watch(failed) {
    await this.connection.command('PING');
    let timer;
    this.connection.on('ready', () => clearTimeout(timer));
    this.connection.on('away', ({ reason }) => {
      clearTimeout(timer);
      timer = setTimeout(() => failed(new Error(`${this.connection.server} is away: ${reason}`)), PATIENCE);
    });
  }

  /** Removes what apps of that name left behind, and ends what was begun here. */
  async close(app) {
    this.connection.removeAllListeners();
    if (!this.process) await this.#sweep(app).catch(() => undefined);
    this.connection.close();
    if (this.process?.kill('SIGKILL')) await once(this.process, 'exit');
  }

  async #sweep(app) {
    let cursor = '0';
    do {
      const [next, keys] = await this.connection.command('SCAN', cursor, 'MATCH', `*${app}*`, 'COUNT', 1000);
      await Promise.all(keys.map((key) => this.connection.command('DEL', key)));
      cursor = next;
    } while (cursor !== '0');
  }
}

function freePort() {
  return new Promise((resolve, reject) => {
    const probe = createServer().once('error', reject);
    probe.listen(0, '127.0.0.1', () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
}

/** The process of a server that is ready. */
function startRedis(port, folder) {
  const options = { port, bind: '127.0.0.1', dir: folder, save: '', appendonly: 'no', daemonize: 'no' };
  const words = Object.entries(options).flatMap(([name, value]) => [`--${name}`, String(value)]);
  const server = spawn('redis-server', words, { stdio: ['ignore', 'pipe', 'ignore'] });
  process.on('exit', () => server.kill('SIGKILL'));
  return new Promise((resolve, reject) => {
    let output = '';
    server.on('error', ({ code, message }) => {
      const text = code === 'ENOENT' ? 'there is no redis-server on the PATH; install one, or name a server: --redis redis://host:6379' : message;
      reject(Object.assign(new Error(text), { code }));
    });
    server.on('exit', () => reject(new Error(`redis-server has ended: ${output.trim().split('\n').at(-1)}`)));
    server.stdout.on('data', (data) => {
      output = (output + data).slice(-2000);
      if (output.includes('Ready to accept connections')) resolve(server);
    });
  });
}
