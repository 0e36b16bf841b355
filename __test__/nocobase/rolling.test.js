'use strict';

const { RedisServer } = require('../servers/redis');
const { HOWS, Node, onRedis } = require('./nodes');

let redis;
beforeAll(async () => { redis = await RedisServer.start(); });
afterAll(() => redis.stop());
beforeEach(() => redis.call('FLUSHALL'));

const write = async ({ app, Probe }, value) => {
  const { cache } = app.pm.get(Probe);
  await cache.set('entry', value);
  await cache.mset([['one', 1], ['two', [2]]], 600_000);
  await cache.setValueInObject('object', 'field', value);
  await app.cache.set('of the app', value, 600_000);
};

const read = async ({ app, Probe }) => {
  const { cache } = app.pm.get(Probe);
  const loaded = await cache.wrap('entry', () => 'loaded anew');
  return [loaded, await cache.mget('one', 'two', 'none'), await cache.getValueInObject('object', 'field'), await app.cache.get('of the app')];
};

const VALUE = { text: 'Grüße ✓', list: [1, null, { deep: true }], at: '2026-01-01T00:00:00.000Z' };
describe.each(HOWS)('a rolling change of the cache to mortise by %s', (how) => {
  test.each([
    ['stock', how],
    [how, 'stock'],
  ])('what a node with %s wrote, a node with %s reads', async (writer, reader) => {
    const environment = { REDIS_URL: redis.url, CACHE_DEFAULT_STORE: 'redis' };
    const a = await Node.start({ how: writer, environment });
    await a.signIn();
    await a.call(write, VALUE);
    const b = await Node.start({ how: reader, folder: a.folder, environment });
    const [loaded, several, field, ofTheApp] = await b.call(read);
    expect([loaded, field, ofTheApp]).toEqual([VALUE, VALUE, VALUE]);
    expect(several.slice(0, 2)).toEqual([1, [2]]);
    // Sessions too: nobody has to sign in again.
    b.token = a.token;
    expect((await b.request('GET', 'auth:check')).body.data.username).toBe('root');
  });
});
