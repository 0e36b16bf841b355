'use strict';

/** Each test starts NocoBase nodes, some of them several times: most of what it takes is their start, on one core. */
module.exports = {
  testEnvironment: 'node',
  transform: {},
  roots: ['<rootDir>'],
  testMatch: ['<rootDir>/*.test.js'],
  modulePathIgnorePatterns: ['<rootDir>/node_modules/'],
  globalSetup: '<rootDir>/set-up.js',
  globalTeardown: '<rootDir>/tear-down.js',
  testTimeout: 180_000,
  maxWorkers: 2,
};
