export { RedisConnection, type RedisHealth, type RedisReply } from './connection';
export type { RedisNode, RedisOptions, RedisTls } from './options';
