'use strict';
const { execFile, spawn } = require('node:child_process');
const { once } = require('node:events');
const { readdirSync } = require('node:fs');
const net = require('node:net');
const { join } = require('node:path');
const { promisify } = require('node:util');
const { RedisServer } = require('./servers/redis');
const { ROOT, temporaryFolder, until } = require('./support');

const run = (file, ...args) => promisify(execFile)(process.execPath, [join(ROOT, 'examples', file), ...args], {
  timeout: 90_000,
  env: { ...process.env, STORAGE_PATH: temporaryFolder() },
});

test.each(readdirSync(join(ROOT, 'examples')).filter((name) => name.endsWith('.js')).map((name) => [name]))(
  '%s does what it says, and ends by itself', async (file) => {
    const { stdout, stderr } = await run(file);
    expect(stderr).toBe('');
    expect(stdout.trim().split('\n')).toHaveLength(1);
  });

const isGone = (port) => new Promise((resolve) => {
  const socket = net.connect(port, '127.0.0.1', () => { socket.destroy(); resolve(false); });
  socket.on('error', () => resolve(true));
});

function expectSuccess({ stdout, stderr }) {
  expect(stderr).toBe('');
  expect(stdout).toContain('the counts equal those of a plain walk');
  expect(stdout).toContain('E_TRANSACTION_ROLLED_BACK');
  expect(stdout).toMatch(/was cancelled over (pub\/sub|the queue)/);
}

test.each([['1'], ['3']])('the demo with %s nodes finds what a plain walk finds', async (nodes) => {
  expectSuccess(await run('demo/main.mjs', '--nodes', nodes));
}, 60_000);

test('the demo whose tasks are queued on a RabbitMQ broker of its own, which is gone afterwards', async () => {
  const result = await run('demo/main.mjs', '--nodes', '2', '--rabbitmq');
  expectSuccess(result);
  expect(result.stdout).toContain('was cancelled over the queue');
  const port = Number(/amqp:\/\/127\.0\.0\.1:(\d+)/.exec(result.stdout)[1]);
  await until(() => isGone(port));
}, 90_000);

describe('the demo in processes that share a Redis server', () => {
  /** The demo under way: `output` is all that it printed, `exit` its code. */
  const begin = (...args) => {
    const demo = spawn(process.execPath, [join(ROOT, 'examples/demo/main.mjs'), ...args], { timeout: 60_000, killSignal: 'SIGKILL' });
    const begun = { demo, output: '', errors: '', exit: once(demo, 'close').then(([code, signal]) => code ?? signal) };
    demo.stdout.on('data', (data) => { begun.output += data; });
    demo.stderr.on('data', (data) => { begun.errors += data; });
    return begun;
  };

  const expectApart = (stdout, nodes) => {
    expect(stdout).toContain(`${nodes} nodes had different worker ids`);
    const [, grants, tokens] = /granted (\d+) times, with (\d+) fencing tokens/.exec(stdout);
    expect(tokens).toBe(grants);
    expect(stdout).toContain(`  ${grants}/${grants} packages`);
  };

  /** The port of the server that the demo started. */
  const portOf = ({ output }) => Number(/\(redis:\/\/127\.0\.0\.1:(\d+)\)/.exec(output)?.[1]);

  test('on a server of its own, which is gone afterwards', async () => {
    const result = await run('demo/main.mjs', '--nodes', '3', '--redis');
    expectSuccess(result);
    expectApart(result.stdout, 3);
    expect(await isGone(portOf({ output: result.stdout }))).toBe(true);
  }, 60_000);

  test('on a server that is there, of which nothing is left but what was there before', async () => {
    const server = await RedisServer.start();
    await server.call('SET', 'audit', 'of somebody else');
    const result = await run('demo/main.mjs', '--nodes', '3', '--redis', server.url);
    expectSuccess(result);
    expectApart(result.stdout, 3);
    expect(await server.call('KEYS', '*')).toEqual(['audit']);
    await server.stop();
  }, 60_000);

  test('fails with a clear message when the server is not there', async () => {
    const server = await RedisServer.start();
    await server.kill();
    const demo = begin('--redis', server.url);
    expect(await demo.exit).toBe(1);
    expect(demo.output).toBe('');
    expect(demo.errors).toMatch(/^the demo failed: redis:.* is away: .*\n$/);
  }, 60_000);

  test('fails with a clear message when the server goes away', async () => {
    const server = await RedisServer.start();
    const demo = begin('--redis', server.url);
    await until(() => demo.output.includes('worker ids:'));
    await server.kill();
    expect(await demo.exit).toBe(1);
    expect(demo.errors).toMatch(new RegExp(`the demo failed: .*${server.url.slice(8)}.* is away`));
  }, 60_000);

  test.each([['SIGINT', 130], ['SIGTERM', 143], ['SIGKILL', 'SIGKILL']])('leaves no server behind after %s', async (signal, code) => {
    const demo = begin('--redis');
    await until(() => demo.output.includes('worker ids:'));
    demo.demo.kill(signal);
    expect(await demo.exit).toBe(code);
    await until(() => isGone(portOf(demo)));
  }, 60_000);
});
