'use strict';

/** Each test starts NocoBase nodes, some of them several times. */
module.exports = {
  testEnvironment: 'node',
  transform: {},
  roots: ['<rootDir>'],
  testMatch: ['<rootDir>/*.test.js'],
  modulePathIgnorePatterns: ['<rootDir>/node_modules/'],
  testTimeout: 180_000,
  maxWorkers: 1,
};
