'use strict';

/** The addon is loaded as it is shipped: nothing is transformed, and nothing is forced to exit. */
module.exports = {
  testEnvironment: 'node',
  transform: {},
  roots: ['<rootDir>/__test__'],
  testMatch: ['**/*.test.js'],
  testPathIgnorePatterns: process.env.MORTISE_FAULTS ? ['/node_modules/'] : ['/node_modules/', '/faults/'],
  testTimeout: process.env.MORTISE_FAULTS ? 120_000 : 30_000,
  maxWorkers: 2,
};
