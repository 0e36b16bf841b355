// Runs the same work on all peers, alternating, and prints ratios: the machine is shared, and an
// absolute says little.

/** The number below which a share of them is. */
export const quantile = (numbers, share) => [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length * share)];
export const median = (numbers) => quantile(numbers, 0.5);
const rounded = (number, places) => Math.round(number * 10 ** places) / 10 ** places;

/**
 * One case. `peers` maps a label to a function that does the work once and returns how many
 * operations it did (or `{ ops, milliseconds }` when it times itself). After a round to warm up,
 * `rounds` rounds are measured, each peer once a round. Prints the medians, each peer's time as a
 * multiple of ours with the least and the greatest of the rounds, and a JSON line.
 */
export async function compare({ name, peers, rounds = 5, ours, target }) {
  const times = Object.fromEntries(Object.keys(peers).map((label) => [label, []]));
  for (let round = 0; round <= rounds; round++) {
    for (const [label, work] of Object.entries(peers)) {
      globalThis.gc?.();
      const begun = process.hrtime.bigint();
      const result = await work();
      const elapsed = Number(process.hrtime.bigint() - begun);
      const { ops, nanoseconds = elapsed } = typeof result === 'number' ? { ops: result } : result;
      if (round > 0) times[label].push(nanoseconds / ops);
    }
  }
  return report({ name, values: times, ours, target });
}

/**
 * Prints what was measured of each peer, a number a round, all smaller the better: the medians, each peer's as
 * a multiple of ours with the least and the greatest of the rounds (`ratios: false`: the least and the
 * greatest number), and a JSON line. `target`: a peer, and the least multiple that is wanted.
 * `atMost`: what ours is to stay within.
 */
export function report({ name, unit = 'ns', values, ours = 'mortise', ratios = true, target, atMost }) {
  console.log(`\n${name}`);
  const result = { case: name, rounds: values[ours].length, [unit]: {}, ratio: {} };
  for (const [label, list] of Object.entries(values)) {
    result[unit][label] = rounded(median(list), 1);
    let against = '';
    if (!ratios) {
      against = `   (${rounded(Math.min(...list), 1)} to ${rounded(Math.max(...list), 1)})`;
    } else {
      const of = list.map((value, round) => value / values[ours][round]);
      result.ratio[label] = [median(of), Math.min(...of), Math.max(...of)].map((ratio) => rounded(ratio, 2));
      const [middle, least, most] = result.ratio[label];
      if (label !== ours) against = `   ${middle.toFixed(2)} x ours (${least.toFixed(2)} to ${most.toFixed(2)})`;
    }
    console.log(`  ${label.padEnd(26)} ${String(result[unit][label]).padStart(12)} ${unit}${against}`);
  }
  if (target) {
    const [peer, wanted] = target;
    result.target = { peer, wanted, reached: result.ratio[peer] ? result.ratio[peer][0] >= wanted : null };
    console.log(`  wanted: ${peer} takes ${wanted} x ours or more: ${result.target.reached === null ? 'not run' : result.target.reached ? 'reached' : 'MISSED'}`);
  }
  if (atMost !== undefined) {
    result.atMost = { wanted: atMost, reached: result[unit][ours] <= atMost };
    console.log(`  wanted: ours at most ${atMost} ${unit}: ${result.atMost.reached ? 'reached' : 'MISSED'}`);
  }
  console.log(JSON.stringify(result));
  return result;
}
