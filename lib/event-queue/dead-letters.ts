import type { DeadLetter, DeadLetters } from './adapter';

/** Dead letters that a channel keeps; the oldest go first. */
const MOST = 10_000;

/** A dead letter, with its number in the journal; 0 without one. */
export interface BuriedLetter extends DeadLetter {
  seq: number;
}

/** The dead letters of a channel of the memory adapter. */
export class MemoryDeadLetters implements DeadLetters {
  private readonly letters = new Set<BuriedLetter>();
  private readonly replaying = new Set<BuriedLetter>();

  /** `publishAgain` tells whether the message was queued: not while another with its id is in the channel. */
  constructor(
    private readonly publishAgain: (letter: DeadLetter) => Promise<boolean>,
    private readonly forget: (seq: number) => void,
  ) {}

  async count(): Promise<number> {
    return this.size;
  }

  /** How many there are. @internal */
  get size(): number {
    return this.letters.size;
  }

  async list(): Promise<DeadLetter[]> {
    return [...this.letters].map(({ id, content, options, error }) => ({ id, content, options, error }));
  }

  async replay(id?: string): Promise<number> {
    const results = await Promise.allSettled(this.chosen(id).map((letter) => this.replayOne(letter)));
    for (const result of results) if (result.status === 'rejected') throw result.reason;
    return results.filter((result) => result.status === 'fulfilled' && result.value).length;
  }

  private async replayOne(letter: BuriedLetter): Promise<boolean> {
    if (this.replaying.has(letter)) return false;
    this.replaying.add(letter);
    try {
      const queued = await this.publishAgain(letter);
      if (queued) this.remove(letter);
      return queued;
    } finally {
      this.replaying.delete(letter);
    }
  }

  async drop(id?: string): Promise<number> {
    return this.chosen(id).filter((letter) => this.remove(letter)).length;
  }

  /** Adds one; returns the one that had to go for it. @internal */
  add(letter: BuriedLetter): DeadLetter | undefined {
    this.letters.add(letter);
    if (this.letters.size <= MOST) return undefined;
    const [oldest] = this.letters;
    this.remove(oldest);
    return oldest;
  }

  private chosen(id: string | undefined): BuriedLetter[] {
    return [...this.letters].filter((letter) => id === undefined || letter.id === id);
  }

  private remove(letter: BuriedLetter): boolean {
    if (!this.letters.delete(letter)) return false;
    if (letter.seq > 0) this.forget(letter.seq);
    return true;
  }
}
