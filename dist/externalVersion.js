'use strict';

/** What NocoBase compares with itself before it calls the plugin compatible. */
module.exports = { '@nocobase/client': '2.2.15', '@nocobase/server': '2.2.15' };
