'use strict';
// A NocoBase node without a front end, driven by messages of the process that started it: each brings a function,
// which is called with what is here, and its result goes back.

const { createServer } = require('node:http');
const { join } = require('node:path');
const vm = require('node:vm');

// Where `nocobase install` and `nocobase start` are called, too.
process.chdir(join(__dirname, '..'));
Object.assign(process.env, { NODE_MODULES_PATH: join(process.cwd(), 'node_modules'), API_BASE_PATH: '/api/' });

const server = require('@nocobase/server');
const { Probe } = require('./probe');

const { PROBE_FOLDER: folder, PROBE_NAME: name = 'main', PROBE_HOW: how } = process.env;
const here = { server, Probe, require, how };

/** As `@nocobase/app` does: static imports, then the application with the built-in plugins. */
async function construct(options = {}) {
  if (how === 'plugin') await server.runPluginStaticImports();
  const cache = process.env.CACHE_REDIS_URL || process.env.REDIS_URL;
  here.app = new server.Application({
    name,
    database: {
      dialect: 'sqlite',
      storage: join(folder, 'db.sqlite'),
      logging: false,
      // Several processes write to one file: they wait for each other, which servers of databases do by themselves.
      transactionType: 'IMMEDIATE',
      retry: { match: ['SQLITE_BUSY'], max: 100, backoffBase: 20, backoffExponent: 1.05 },
    },
    resourcer: { prefix: '/api' },
    acl: true,
    plugins: [...await server.findBuiltInPlugins(), [Probe, { name: 'probe' }]],
    cacheManager: {
      defaultStore: process.env.CACHE_DEFAULT_STORE || 'memory',
      stores: { memory: { store: 'memory', max: 2000 }, ...(cache ? { redis: { url: cache } } : {}) },
    },
    ...options,
  });
  return here.app;
}

async function start({ install = false } = {}) {
  if (!here.app) await construct();
  const { app } = here;
  if (install) await app.install();
  await app.load();
  await app.start();
  here.http = createServer((request, response) => app.callback()(request, response));
  await new Promise((resolve) => here.http.listen(0, '127.0.0.1', resolve));
  return here.http.address().port;
}

async function stop() {
  here.http?.closeAllConnections();
  here.http?.close();
  await here.app.stop();
  // Nothing else may keep the process alive.
  process.disconnect();
}

Object.assign(here, { construct, start, stop });

process.on('message', async ({ id, source, values }) => {
  try {
    const result = await vm.runInThisContext(`(${source})`)(here, ...values);
    if (process.connected) process.send({ id, result });
  } catch (error) {
    process.send?.({ id, error: { message: String(error?.message ?? error), code: error?.code, name: error?.constructor?.name, stack: error?.stack } });
  }
});
process.send({ event: 'up' });
