'use strict';
// Finds the packages below node_modules, and says under which licence each is.

const { createHash } = require('node:crypto');
const { readdirSync, readFileSync } = require('node:fs');
const { join } = require('node:path');

/** The folders of all packages below `modules`, nested ones too. */
function findPackages(modules) {
  const found = [];
  for (const entry of readdirSync(modules, { withFileTypes: true })) {
    if (!entry.isDirectory() || entry.name.startsWith('.')) continue;
    const folder = join(modules, entry.name);
    if (entry.name.startsWith('@')) {
      found.push(...findPackages(folder));
      continue;
    }
    const files = readdirSync(folder);
    if (files.includes('package.json')) found.push(folder);
    if (files.includes('node_modules')) found.push(...findPackages(join(folder, 'node_modules')));
  }
  return found;
}

/** The package's licence text, or '' when it has none, and what its package.json says. */
function readLicence(folder) {
  const file = readdirSync(folder).find((name) => /^(licen[cs]e|copying)(\.|$|-)/i.test(name));
  let text = '';
  try {
    if (file) text = readFileSync(join(folder, file), 'utf8');
  } catch {
    // A folder of that name: the package says it in package.json only.
  }
  const { license, licenses } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  const declared = typeof license === 'string' ? license : license?.type ?? licenses?.[0]?.type ?? '';
  return { text, declared };
}

const TEXTS = [
  ['Apache-2.0', /Apache License\s+Version 2\.0/i],
  ['MPL-2.0', /Mozilla Public License,? Version 2\.0/i],
  ['BlueOak-1.0.0', /Blue Oak Model License/i],
  ['Python-2.0', /PYTHON SOFTWARE FOUNDATION LICENSE/i],
  ['CC-BY-4.0', /Creative Commons Attribution 4\.0/i],
  ['CC0-1.0', /CC0 1\.0 Universal/i],
  ['Unlicense', /free and unencumbered software released into the public domain/i],
  ['BSD-3-Clause', /Redistribution and use[\s\S]*Neither the name/i],
  ['BSD-2-Clause', /Redistribution and use in source and binary forms/i],
  ['0BSD', /Permission to use, copy, modify, and\/or distribute this software(?![\s\S]*copyright notice and this permission)/i],
  ['ISC', /Permission to use, copy, modify, and(\/or)? distribute this software/i],
  ['MIT', /Permission is hereby granted, free of charge/i],
];

/** The licence that a text is; what package.json declares where the text says nothing. */
function classify({ text, declared }) {
  const [found] = TEXTS.find(([, pattern]) => pattern.test(text)) ?? [];
  return found ?? (declared || 'unknown');
}

/** Equal for what is classified equally. */
const keyOf = ({ text, declared }) => createHash('sha256').update(declared).update('\0').update(text).digest('hex');

module.exports = { classify, findPackages, keyOf, readLicence };
