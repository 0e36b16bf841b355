'use strict';
// Starts NocoBase nodes as child processes, and talks to them.

const { fork } = require('node:child_process');
const { cpSync } = require('node:fs');
const { join } = require('node:path');
const { ROOT, temporaryFolder, until } = require('../support');

const PROGRAM = join(__dirname, 'program', 'node.js');
/** How mortise comes into the node. */
const HOWS = ['plugin', 'register'];

const running = new Set();
if (typeof afterEach === 'function') afterEach(() => running.forEach((node) => { if (!node.shared) node.child.kill('SIGKILL'); }));
process.on('exit', () => running.forEach((node) => node.child.kill('SIGKILL')));

const BY_HOW = {
  stock: () => ({ environment: {}, execArgv: [] }),
  plugin: () => ({ environment: { APPEND_PRESET_BUILT_IN_PLUGINS: 'mortise' }, execArgv: [] }),
  register: () => ({ environment: {}, execArgv: ['--require', join(ROOT, 'register.js')] }),
};

/** All services on a Redis server. */
function onRedis(url) {
  return {
    REDIS_URL: url,
    CACHE_DEFAULT_STORE: 'redis',
    PUBSUB_ADAPTER_REDIS_URL: url,
    LOCK_ADAPTER_DEFAULT: 'redis',
    QUEUE_ADAPTER: 'redis',
  };
}

class Node {
  /** Resolves when the process is up; no application is made yet. It is killed after the test, unless tests share it. */
  static async up({ how = 'plugin', folder = temporaryFolder(), environment = {}, execArgv = [], shared = false } = {}) {
    const node = new Node();
    node.shared = shared;
    const ways = BY_HOW[how]();
    node.folder = folder;
    node.events = [];
    node.output = '';
    node.waiting = new Map();
    node.child = fork(PROGRAM, {
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
      execArgv: [...ways.execArgv, ...execArgv],
      env: {
        ...clean(process.env),
        APP_ENV: 'production', APP_KEY: 'key-of-the-tests', CDN_BASE_URL: '', LOGGER_LEVEL: 'error', LOGGER_TRANSPORT: 'console',
        INIT_ROOT_EMAIL: 'root@example.com', INIT_ROOT_PASSWORD: 'admin123', INIT_ROOT_NICKNAME: 'Root', INIT_ROOT_USERNAME: 'root',
        STORAGE_PATH: folder, PROBE_FOLDER: folder, PROBE_HOW: how,
        ...ways.environment, ...environment,
      },
    });
    running.add(node);
    for (const stream of [node.child.stdout, node.child.stderr]) stream.on('data', (data) => { node.output += data; });
    node.child.on('message', (message) => node.told(message));
    node.exit = new Promise((resolve) => node.child.on('exit', (code, signal) => {
      running.delete(node);
      for (const { reject } of node.waiting.values()) reject(new Error(`the node has ended (${code ?? signal})\n${node.output}`));
      resolve({ code, signal });
    }));
    await node.event('up');
    return node;
  }

  /** A node with a started application, on the database of `folder`, else on one of its own. With `install` it makes that itself. */
  static async start({ install = false, folder, ...options } = {}) {
    const node = await Node.up({ folder: folder ?? (install ? undefined : await installed()), ...options });
    node.port = await node.call(({ start }, how) => start(how), { install });
    return node;
  }

  told({ id, result, error, ...event }) {
    if (id === undefined) {
      this.events.push(event);
      return;
    }
    const { resolve, reject } = this.waiting.get(id);
    this.waiting.delete(id);
    if (error) reject(Object.assign(new Error(error.message), { code: error.code, className: error.name, remote: error.stack }));
    else resolve(result);
  }

  /** Calls a function in the node, with what is there and the values, which pass as JSON. */
  call(action, ...values) {
    const id = Node.next++;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.child.send({ id, source: String(action), values });
    });
  }

  /** Resolves to the first event of that kind. */
  event(event, deadline = 60_000) {
    return until(() => {
      if (this.child.exitCode !== null) throw new Error(`the node has ended\n${this.output}`);
      return this.events.find((each) => each.event === event);
    }, deadline);
  }

  /** Stops the application; the process has to end by itself. */
  async stop() {
    this.child.send({ id: Node.next++, source: '({ stop }) => stop()', values: [] });
    return this.exit;
  }

  /** Ends the process at once, as a crash does. */
  async kill() {
    this.child.kill('SIGKILL');
    return this.exit;
  }

  /** A request to the node's API: `{ status, body }`. */
  async request(method, path, body, token = this.token) {
    const response = await fetch(`http://127.0.0.1:${this.port}/api/${path}`, {
      method,
      headers: { 'content-type': 'application/json', 'x-authenticator': 'basic', ...(token ? { authorization: `Bearer ${token}` } : {}) },
      body: body && JSON.stringify(body),
    });
    const text = await response.text();
    return { status: response.status, body: text.startsWith('{') ? JSON.parse(text) : text };
  }

  async signIn() {
    const { body } = await this.request('POST', 'auth:signIn', { account: 'root', password: 'admin123' });
    this.token = body.data?.token;
    return body;
  }
}

Node.next = 0;

let template = process.env.PROBE_TEMPLATE;

/** A folder with a database that a stock NocoBase has installed; each call gives another. */
async function installed() {
  template ??= await install(temporaryFolder());
  const folder = temporaryFolder();
  cpSync(template, folder, { recursive: true });
  return folder;
}

/** Lets a stock NocoBase install its database in a folder. */
async function install(folder) {
  const node = await Node.start({ how: 'stock', install: true, folder });
  await node.stop();
  return folder;
}

/** Without variables that concern the services, so that a test has those it gives. */
function clean(environment) {
  const concerned = /REDIS_URL|^QUEUE_|^LOCK_|^CACHE_|^WORKER_MODE|^NODE_OPTIONS|^JEST/;
  return Object.fromEntries(Object.entries(environment).filter(([name]) => !concerned.test(name)));
}

module.exports = { HOWS, install, installed, Node, onRedis, until };
