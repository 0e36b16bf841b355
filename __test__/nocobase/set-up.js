'use strict';

const { mkdtempSync, rmSync } = require('node:fs');
const { tmpdir } = require('node:os');
const { join } = require('node:path');
const { install } = require('./nodes');

/** One database for all suites, which each node that starts on one copies. */
module.exports = async () => {
  const folder = mkdtempSync(join(tmpdir(), 'mortise-test-'));
  process.env.PROBE_TEMPLATE = await install(folder);
  // Called by the tear-down.
  globalThis.removeTemplate = () => rmSync(folder, { recursive: true, force: true });
};
