// Child processes that do what they are asked.

import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** Microseconds by a clock that all processes of the machine share. */
export const now = () => Number(process.hrtime.bigint()) / 1000;

export const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** A process that runs `program`, which calls `serve`. */
export class Child {
  #open = new Map();
  #last = 0;

  static async start(program, ...args) {
    const child = new Child(program, args);
    await child.ask('ready');
    return child;
  }

  constructor(program, args) {
    this.process = fork(fileURLToPath(program), args.map(String));
    this.process.on('message', ({ id, result, error }) => {
      const open = this.#open.get(id);
      this.#open.delete(id);
      if (error) open?.reject(new Error(error));
      else open?.resolve(result);
    });
    this.ended = new Promise((resolve) => this.process.on('exit', resolve));
    this.ended.then((code) => this.#open.forEach(({ reject }) => reject(new Error(`a process ended with ${code}`))));
  }

  /** What the program's function of that name gives. */
  ask(name, ...args) {
    return new Promise((resolve, reject) => {
      const id = ++this.#last;
      this.#open.set(id, { resolve, reject });
      this.process.send({ id, name, args });
    });
  }

  /** What was asked and is not answered stays so. */
  async end() {
    this.#open.clear();
    this.process.kill('SIGKILL');
    await this.ended;
  }
}

/** In a child: answers what is asked by the functions given. */
export function serve(functions) {
  const all = { ready: () => undefined, ...functions };
  process.on('message', async ({ id, name, args }) => {
    try {
      process.send({ id, result: await all[name](...args) });
    } catch (error) {
      process.send({ id, error: String(error?.stack ?? error) });
    }
  });
}

// A child does not outlive who started it.
process.on('disconnect', () => process.exit());
