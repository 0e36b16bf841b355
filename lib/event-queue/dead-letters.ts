import type { DeadLetter } from './adapter';

/** Dead letters that a channel keeps; the oldest go first. */
const MOST = 10_000;

/** The dead letters of a channel: to look at, to replay, to drop. */
export class DeadLetters {
  private readonly letters = new Map<string, DeadLetter & { seq: number }>();

  constructor(
    private readonly publishAgain: (letter: DeadLetter) => Promise<unknown>,
    private readonly forget: (seq: number) => void,
  ) {}

  /** How many there are. */
  get size(): number {
    return this.letters.size;
  }

  /** All of them, the oldest first. */
  list(): DeadLetter[] {
    return [...this.letters.values()].map(({ id, content, options }) => ({ id, content, options }));
  }

  /** Publishes one (or all, without an id) again, with its retries before it. Resolves to how many. */
  async replay(id?: string): Promise<number> {
    const chosen = id === undefined ? [...this.letters.values()] : [this.letters.get(id)];
    let count = 0;
    for (const letter of chosen) {
      if (!letter) continue;
      await this.publishAgain(letter);
      this.remove(letter.id);
      count++;
    }
    return count;
  }

  /** Forgets one, or all without an id. Returns how many. */
  drop(id?: string): number {
    const chosen = id === undefined ? [...this.letters.keys()] : [id];
    return chosen.filter((one) => this.remove(one)).length;
  }

  /** Adds one; returns the one that had to go for it. @internal */
  add(letter: DeadLetter & { seq: number }): DeadLetter | undefined {
    this.letters.set(letter.id, letter);
    if (this.letters.size <= MOST) return undefined;
    const [oldest] = this.letters.values();
    this.remove(oldest.id);
    return oldest;
  }

  private remove(id: string): boolean {
    const letter = this.letters.get(id);
    if (!letter) return false;
    this.letters.delete(id);
    if (letter.seq > 0) this.forget(letter.seq);
    return true;
  }
}
