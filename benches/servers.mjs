// The Redis server of the benchmarks, and the proxy before it, by the tests' own means.
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);
export const { RedisServer } = require('../__test__/servers/redis.js');
export const { Proxy } = require('../__test__/servers/proxy.js');
export const mortise = require('../index.js');
