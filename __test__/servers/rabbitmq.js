'use strict';
// RabbitMQ brokers that the tests start, on free ports of 127.0.0.1 with data in temporary folders, and
// stop: each with an Erlang port mapper of its own.

const { execFile, spawn } = require('node:child_process');
const { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } = require('node:fs');
const net = require('node:net');
const { tmpdir } = require('node:os');
const { delimiter, join } = require('node:path');
const { promisify } = require('node:util');

/** The script that starts a broker as whoever calls it; Debian's on the PATH changes to a user of its own. */
const BINARY = [process.env.MORTISE_RABBITMQ_SERVER, '/usr/lib/rabbitmq/bin/rabbitmq-server',
  ...(process.env.PATH ?? '').split(delimiter).map((folder) => join(folder, 'rabbitmq-server'))]
  .find((file) => file && existsSync(file)) ?? 'rabbitmq-server';
const DEADLINE = 90_000;
/** Writes down which queues there are, as a broker does some seconds after each was declared. */
const REGISTER = '[dets:sync(Table) || Table <- dets:all()].';

const run = promisify(execFile);

/** All that was started and not stopped. */
const running = new Set();
// Also after a test that failed halfway.
if (typeof afterAll === 'function') afterAll(() => Promise.all([...running].map((server) => server.stop())), 30_000);
process.on('exit', () => running.forEach((server) => server.killGroup()));

/**
 * Holds a broker and its port mapper in its own process group, and ends the group when its standard input ends: also
 * when whoever started it was killed.
 */
const WATCH = `
  const { spawn } = require('node:child_process');
  const [epmd, port, server] = process.argv.slice(1);
  const children = [spawn(epmd, ['-port', port, '-address', '127.0.0.1'], { stdio: 'ignore' })];
  children[0].on('error', () => undefined);
  // The group is gone with the next line, this process too.
  const end = () => process.kill(-process.pid, 'SIGKILL');
  process.on('SIGTERM', end);
  process.stdin.on('end', end).on('error', end).resume();
  const broker = spawn(server, [], { stdio: ['ignore', 'inherit', 'inherit'] });
  broker.on('error', (error) => { console.error(error.message); end(); });
  broker.on('exit', end);
`;

async function freePort() {
  for (let i = 0; i < 200; i++) {
    const port = 10_000 + Math.floor(Math.random() * 20_000);
    if (await isFree(port)) return port;
  }
  throw new Error('no free port');
}

function isFree(port) {
  return new Promise((resolve) => {
    const server = net.createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}

class RabbitMQServer {
  /** `settings`: lines of its configuration; `advanced`: what only its Erlang configuration can say. */
  constructor(settings = [], { advanced } = {}) {
    this.settings = settings;
    this.advanced = advanced;
    this.folder = mkdtempSync(join(tmpdir(), 'mortise-rabbitmq-'));
  }

  static async start(settings, options) {
    const server = new RabbitMQServer(settings, options);
    // Somebody else may take a port between the look and the use.
    for (let attempt = 0; ; attempt++) {
      [server.port, server.distPort, server.mapperPort] = [await freePort(), await freePort(), await freePort()];
      try {
        await server.up();
        return server;
      } catch (error) {
        if (attempt === 2) throw error;
      }
    }
  }

  get url() {
    return `amqp://guest:guest@127.0.0.1:${this.port}`;
  }

  get environment() {
    const { folder } = this;
    return {
      PATH: process.env.PATH,
      LANG: 'C.UTF-8',
      HOME: folder,
      RABBITMQ_NODENAME: `mortise-${process.pid}-${this.port}@localhost`,
      RABBITMQ_NODE_IP_ADDRESS: '127.0.0.1',
      RABBITMQ_NODE_PORT: String(this.port),
      RABBITMQ_DIST_PORT: String(this.distPort),
      RABBITMQ_MNESIA_BASE: join(folder, 'data'),
      RABBITMQ_LOG_BASE: join(folder, 'log'),
      RABBITMQ_LOGS: '-',
      RABBITMQ_ENABLED_PLUGINS_FILE: join(folder, 'plugins'),
      RABBITMQ_CONFIG_FILE: join(folder, 'rabbitmq.conf'),
      RABBITMQ_CONF_ENV_FILE: join(folder, 'none'),
      RABBITMQ_ADVANCED_CONFIG_FILE: join(folder, 'advanced.config'),
      RABBITMQ_PID_FILE: join(folder, 'pid'),
      // One thread each, which sleeps when there is nothing to do.
      RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: '+S 1:1 +SDcpu 1:1 +SDio 4 +A 4 +sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}',
      ERL_EPMD_PORT: String(this.mapperPort),
      ERL_EPMD_ADDRESS: '127.0.0.1',
      ERL_CRASH_DUMP: '/dev/null',
    };
  }

  async up() {
    for (const name of ['data', 'log']) mkdirSync(join(this.folder, name), { recursive: true });
    writeFileSync(join(this.folder, 'plugins'), '[].\n');
    // What the machine has little of must not stop publishers.
    const lines = ['disk_free_limit.absolute = 1MB', 'vm_memory_high_watermark.absolute = 1GB', 'log.console.level = info', ...this.settings];
    writeFileSync(join(this.folder, 'rabbitmq.conf'), `${lines.join('\n')}\n`);
    if (this.advanced) writeFileSync(join(this.folder, 'advanced.config'), this.advanced);
    this.output = '';
    const arguments_ = ['-e', WATCH, mapper(), String(this.mapperPort), BINARY];
    const child = spawn(process.execPath, arguments_, { stdio: ['pipe', 'pipe', 'pipe'], detached: true, env: this.environment, cwd: this.folder });
    this.process = child;
    running.add(this);
    child.stdin.on('error', () => undefined);
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (data) => { this.output = (this.output + data).slice(-200_000); });
    }
    let ended = null;
    this.ended = new Promise((resolve) => {
      child.on('error', (error) => { ended = error.message; resolve(); });
      child.on('close', (code, signal) => { ended ??= `it ended with ${code ?? signal}`; running.delete(this); resolve(); });
    });
    const end = Date.now() + DEADLINE;
    while (!this.output.includes('Server startup complete')) {
      if (ended) throw new Error(`${BINARY} did not start: ${ended}\n${this.output.slice(-2000)}`);
      if (Date.now() > end) {
        this.killGroup();
        await this.ended;
        throw new Error(`${BINARY} did not start in time\n${this.output.slice(-2000)}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /**
   * Ends all its processes at once; `up` starts it again on the same ports, with its data.
   *
   * Version 3.10 has the list of its quorum queues in a file that it writes up to three seconds late. A queue that is
   * not in it comes back empty and without a leader, whatever was confirmed. So that no test loses to this, the list is
   * written first, and nobody should declare a queue meanwhile.
   */
  async kill() {
    await this.control('eval', REGISTER);
    this.killGroup();
    await this.ended;
  }

  /** Stops it as operators do, which takes some seconds; `up` starts it again. */
  async shutDown() {
    await this.control('stop');
    await this.ended;
  }

  killGroup(signal = 'SIGKILL') {
    try {
      process.kill(-this.process.pid, signal);
    } catch (error) {
      if (error.code !== 'ESRCH') throw error;
    }
  }

  pause() {
    this.killGroup('SIGSTOP');
  }

  resume() {
    this.killGroup('SIGCONT');
  }

  async stop() {
    if (this.process) {
      this.killGroup();
      await this.ended;
    }
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** What `rabbitmqctl` says; it takes about a second. */
  async control(...args) {
    const { stdout } = await run(join(BINARY, '..', 'rabbitmqctl'), ['-q', ...args], { env: this.environment, timeout: DEADLINE });
    return stdout;
  }
}

/** Erlang's port mapper; it is started by us, or Erlang would start one that is nobody's child. */
function mapper() {
  const found = (process.env.PATH ?? '').split(delimiter).map((folder) => join(folder, 'epmd')).find(existsSync);
  return found ?? 'epmd';
}

module.exports = { BINARY, RabbitMQServer };
