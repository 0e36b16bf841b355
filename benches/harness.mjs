// Runs the same work on all peers, alternating, and prints ratios: the machine is shared, and an
// absolute says little.

const median = (numbers) => [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)];

/**
 * One case. `peers` maps a label to a function that does the work once and returns how many
 * operations it did (or `{ ops, milliseconds }` when it times itself). After a round to warm up,
 * `rounds` rounds are measured, each peer once a round. Prints the medians, each peer's time as a
 * multiple of ours with the least and the greatest of the rounds, and a JSON line.
 */
export async function compare({ name, peers, rounds = 5, ours = 'mortise', target }) {
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
  console.log(`\n${name}`);
  const result = { case: name, rounds, ns: {}, ratio: {} };
  for (const [label, list] of Object.entries(times)) {
    const ratios = list.map((time, round) => time / times[ours][round]);
    result.ns[label] = Math.round(median(list) * 10) / 10;
    result.ratio[label] = [median(ratios), Math.min(...ratios), Math.max(...ratios)].map((ratio) => Math.round(ratio * 100) / 100);
    const [middle, least, most] = result.ratio[label];
    const against = label === ours ? '' : `   ${middle.toFixed(2)} x our time (${least.toFixed(2)} to ${most.toFixed(2)})`;
    console.log(`  ${label.padEnd(20)} ${String(result.ns[label]).padStart(12)} ns${against}`);
  }
  if (target) {
    const [peer, wanted] = target;
    result.target = { peer, wanted, reached: result.ratio[peer] ? result.ratio[peer][0] >= wanted : null };
    console.log(`  wanted: ${peer} takes ${wanted} x our time or more: ${result.target.reached === null ? 'not run' : result.target.reached ? 'reached' : 'MISSED'}`);
  }
  console.log(JSON.stringify(result));
  return result;
}
