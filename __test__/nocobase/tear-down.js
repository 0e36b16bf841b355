'use strict';

module.exports = () => globalThis.removeTemplate();
