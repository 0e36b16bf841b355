// Whether a deadline has passed, mostly without asking the system for the time.

import { binding } from './binding';

const face = new Float64Array(binding.clockFace());
const TIME = 0;
const READ = 1;

/**
 * How far the clock in memory may be behind, in milliseconds: its tick is 10, the rest is for a
 * machine so busy that the thread which writes it has to wait.
 */
const SLACK = 250;

/**
 * Whether `deadline`, on the scale of `performance.now()`, has passed. One that is far off is
 * compared with the clock in memory (1 ns), one that is near with the system's (35 ns).
 */
export function hasPassed(deadline: number): boolean {
  const time = face[TIME];
  if (time !== 0) {
    face[READ] = 1;
    if (deadline - time > SLACK) return false;
    return deadline <= performance.now();
  }
  const now = performance.now();
  binding.clockStart(now);
  return deadline <= now;
}
