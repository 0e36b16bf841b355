'use strict';
// SQLite for Sequelize without a compiler or a download: node-sqlite3-wasm, behind the callbacks
// that Sequelize's dialect calls. Its `dialectModule` option takes this module.

const { Database: Engine } = require('node-sqlite3-wasm');

/** Sequelize names a bind parameter `$1` and gives an object; the engine wants values. */
const bind = (parameters) => {
  if (!parameters || Array.isArray(parameters)) return parameters ?? [];
  return Object.fromEntries(Object.entries(parameters).map(([name, value]) => [name.startsWith('$') ? name : `$${name}`, value]));
};

class Database {
  constructor(file, _mode, callback) {
    try {
      this.engine = new Engine(file);
      setImmediate(callback, null);
    } catch (error) {
      setImmediate(callback, error);
    }
  }

  serialize(action) {
    action();
  }

  run(sql, parameters, callback) {
    this.#answer(callback ?? parameters, () => {
      const { changes, lastInsertRowId } = this.engine.run(sql, callback ? bind(parameters) : []);
      return { that: { changes, lastID: Number(lastInsertRowId) } };
    });
  }

  all(sql, parameters, callback) {
    this.#answer(callback ?? parameters, () => ({ that: {}, rows: this.engine.all(sql, callback ? bind(parameters) : []) }));
  }

  close(callback) {
    this.#answer(callback, () => ({ that: this.engine.close() }));
  }

  #answer(callback = () => undefined, work) {
    let result;
    try {
      result = work();
    } catch (error) {
      setImmediate(() => callback.call({}, Object.assign(error, { code: 'SQLITE_ERROR' })));
      return;
    }
    setImmediate(() => callback.call(result.that, null, result.rows));
  }
}

module.exports = { Database, OPEN_READONLY: 1, OPEN_READWRITE: 2, OPEN_CREATE: 4, OPEN_FULLMUTEX: 0x10000 };
