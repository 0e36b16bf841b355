import type { DeadLetter, DeadLetters } from './adapter';

/** Dead letters that a channel keeps; the oldest go first. */
const MOST = 10_000;

/** The dead letters of a channel of the memory adapter. */
export class MemoryDeadLetters implements DeadLetters {
  private readonly letters = new Map<string, DeadLetter & { seq: number }>();

  constructor(
    private readonly publishAgain: (letter: DeadLetter) => Promise<unknown>,
    private readonly forget: (seq: number) => void,
  ) {}

  async count(): Promise<number> {
    return this.letters.size;
  }

  async list(): Promise<DeadLetter[]> {
    return [...this.letters.values()].map(({ id, content, options }) => ({ id, content, options }));
  }

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

  async drop(id?: string): Promise<number> {
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
