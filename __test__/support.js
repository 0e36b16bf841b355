'use strict';
// What the tests share: events with deadlines instead of sleeping, temporary folders, children.

const { spawn } = require('node:child_process');
const { mkdtempSync, rmSync } = require('node:fs');
const { tmpdir } = require('node:os');
const { join } = require('node:path');

const ROOT = join(__dirname, '..');

/** Resolves when `condition` is truthy; rejects after `deadline` milliseconds. */
async function until(condition, deadline = 15_000) {
  const end = Date.now() + deadline;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > end) throw new Error(`deadline passed: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** What a promise rejects with; an error when it does not. */
function rejection(promise) {
  return Promise.resolve(promise).then(
    (value) => { throw new Error(`resolved with ${value}`); },
    (error) => error,
  );
}

/** A promise with its ends outside. */
function gate() {
  const ends = {};
  ends.promise = new Promise((resolve, reject) => Object.assign(ends, { resolve, reject }));
  return ends;
}

/** A logger that keeps what it is told. */
function recorder() {
  const lines = [];
  const at = (level) => (message, details) => lines.push({ level, message, details });
  return { lines, debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') };
}

const folders = [];

/** A new temporary folder, removed after the tests of the file. */
function temporaryFolder() {
  const folder = mkdtempSync(join(tmpdir(), 'mortise-test-'));
  folders.push(folder);
  return folder;
}

if (typeof afterAll === 'function') {
  afterAll(() => folders.splice(0).forEach((folder) => rmSync(folder, { recursive: true, force: true })));
}

/**
 * A child process that runs `code` (CommonJS, with `mortise` in scope). `lines` grows with its
 * output; `exit` resolves to `{ code, signal }`. It is killed when it outlives `deadline`.
 */
function child(code, { environment = {}, deadline = 60_000, shell, stdin = 'ignore' } = {}) {
  const program = `const mortise = require(${JSON.stringify(ROOT)});\n${code}`;
  const args = ['-e', program];
  const options = { env: { ...process.env, ...environment }, stdio: [stdin, 'pipe', 'pipe'], cwd: ROOT };
  const handle = shell
    ? spawn('bash', ['-c', `${shell}; exec "$0" "$@"`, process.execPath, ...args], options)
    : spawn(process.execPath, args, options);
  const result = { handle, lines: [], errors: '' };
  let rest = '';
  handle.stdout.on('data', (data) => {
    const parts = (rest + data).split('\n');
    rest = parts.pop();
    result.lines.push(...parts);
  });
  handle.stderr.on('data', (data) => { result.errors += data; });
  const timer = setTimeout(() => handle.kill('SIGKILL'), deadline);
  result.exit = new Promise((resolve) => handle.on('close', (code, signal) => {
    clearTimeout(timer);
    resolve({ code, signal, errors: result.errors });
  }));
  return result;
}

module.exports = { ROOT, child, gate, recorder, rejection, temporaryFolder, until };
