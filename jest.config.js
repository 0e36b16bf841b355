'use strict';

/** The addon is loaded as it is shipped: nothing is transformed, and nothing is forced to exit. */
module.exports = {
  testEnvironment: 'node',
  transform: {},
  roots: ['<rootDir>/__test__'],
  testMatch: ['**/*.test.js'],
  // A package of its own, with a NocoBase in its node_modules: `npm run test:nocobase`.
  modulePathIgnorePatterns: ['<rootDir>/__test__/nocobase/'],
  testPathIgnorePatterns: process.env.MORTISE_FAULTS ? ['/node_modules/', '/__test__/nocobase/'] : ['/node_modules/', '/__test__/nocobase/', '/faults/'],
  testTimeout: process.env.MORTISE_FAULTS ? 120_000 : 30_000,
  maxWorkers: 2,
};
