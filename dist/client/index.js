// What a NocoBase in a browser loads of each plugin: of this one, nothing.
define('mortise', ['@nocobase/client'], function (client) {
  return { __esModule: true, default: class MortisePlugin extends client.Plugin {} };
});
