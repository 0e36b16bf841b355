// The Redis server of the benchmarks, started by the tests' own means.
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);
export const { RedisServer } = require('../../__test__/servers/redis.js');
export const mortise = require('../../index.js');
