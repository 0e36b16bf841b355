// The licences that are allowed: in SQLite, changed in transactions, told to the nodes by sync message.

import { createRequire } from 'node:module';
import { DataTypes, Sequelize } from 'sequelize';

const require = createRequire(import.meta.url);

const ALLOWED = ['MIT', 'ISC', 'Apache-2.0', 'BSD-2-Clause', 'BSD-3-Clause', '0BSD'];
const ADDED = ['BlueOak-1.0.0', 'CC0-1.0', 'Python-2.0'];

export async function openPolicy(storage) {
  const database = new Sequelize({ dialect: 'sqlite', dialectModule: require('./sqlite.cjs'), storage, logging: false });
  const Policy = database.define('policy', { licence: { type: DataTypes.STRING, primaryKey: true } }, { timestamps: false });
  await database.sync();
  await Policy.bulkCreate(ALLOWED.map((licence) => ({ licence })));
  const read = async (transaction) => (await Policy.findAll({ transaction, order: ['licence'] })).map(({ licence }) => licence);
  return { database, Policy, read };
}

/** A change that commits, and one that is rolled back; what to say of them. */
export async function changePolicy(plugin, { database, Policy, read }, news, nodes) {
  await database.transaction(async (transaction) => {
    await Policy.bulkCreate(ADDED.map((licence) => ({ licence })), { transaction });
    void plugin.sendSyncMessage({ allowed: await read(transaction) }, { transaction });
  });
  await news.when('policy', nodes);
  let told;
  await database.transaction(async (transaction) => {
    await Policy.destroy({ where: {}, transaction });
    told = plugin.app.syncMessageManager.publish('audit', { allowed: [] }, { transaction });
    told.catch(() => undefined);
    throw new Error('changed our mind');
  }).catch(() => undefined);
  const code = await told.then(() => 'published', (error) => error.code);
  return `policy: ${ADDED.length} licences added in a transaction, heard by ${nodes} nodes; a change that was rolled back: ${code}`;
}
