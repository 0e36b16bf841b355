// What the nodes tell, as promises of what is waited for.

export class News {
  #all = [];
  #waiting = [];

  add(message) {
    this.#all.push(message);
    this.#waiting = this.#waiting.filter(({ kind, count, resolve }) => {
      const found = this.of(kind);
      if (found.length >= count) resolve(found);
      return found.length < count;
    });
  }

  of(kind) {
    return this.#all.filter((message) => message.kind === kind);
  }

  /** All messages of a kind, once there are `count`. */
  when(kind, count) {
    const found = this.of(kind);
    if (found.length >= count) return Promise.resolve(found);
    return new Promise((resolve) => this.#waiting.push({ kind, count, resolve }));
  }
}
