// Built from lib/ by `npm run build:lib`; do not edit.
'use strict';
"use strict";
var __defProp = Object.defineProperty;
var __getOwnPropDesc = Object.getOwnPropertyDescriptor;
var __getOwnPropNames = Object.getOwnPropertyNames;
var __hasOwnProp = Object.prototype.hasOwnProperty;
var __export = (target, all) => {
  for (var name in all)
    __defProp(target, name, { get: all[name], enumerable: true });
};
var __copyProps = (to, from, except, desc) => {
  if (from && typeof from === "object" || typeof from === "function") {
    for (let key of __getOwnPropNames(from))
      if (!__hasOwnProp.call(to, key) && key !== except)
        __defProp(to, key, { get: () => from[key], enumerable: !(desc = __getOwnPropDesc(from, key)) || desc.enumerable });
  }
  return to;
};
var __toCommonJS = (mod) => __copyProps(__defProp({}, "__esModule", { value: true }), mod);

// lib/index.ts
var index_exports = {};
__export(index_exports, {
  LockAbortError: () => LockAbortError,
  LockAcquireError: () => LockAcquireError,
  MortiseError: () => MortiseError
});
module.exports = __toCommonJS(index_exports);

// lib/errors.ts
var MortiseError = class extends Error {
  /** The stable code, such as `E_CLOSED`. */
  code;
  constructor(code, message, options) {
    super(message, options);
    this.name = "MortiseError";
    this.code = code;
  }
};
var LockAcquireError = class extends Error {
  code;
  constructor(message, options) {
    super(message, options);
    this.name = "LockAcquireError";
    this.code = options?.code ?? "E_LOCK_ACQUIRE";
  }
};
var LockAbortError = class extends Error {
  code;
  constructor(message, options) {
    super(message, options);
    this.name = "LockAbortError";
    this.code = options?.code ?? "E_LOCK_ABORTED";
  }
};
// Annotate the CommonJS export names for ESM import in node:
0 && (module.exports = {
  LockAbortError,
  LockAcquireError,
  MortiseError
});
