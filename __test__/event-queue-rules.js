'use strict';
// The rules of an event queue as its users see them, whatever adapter it is on.

const { gate, recorder, until } = require('./support');

/** The rules, in the order in which they are tried. */
const GROUPS = [
  require('./event-queue-rules/publishing'),
  require('./event-queue-rules/processing'),
  require('./event-queue-rules/timeouts'),
  require('./event-queue-rules/retries'),
  require('./event-queue-rules/delays'),
  require('./event-queue-rules/ids'),
  require('./event-queue-rules/cancelling'),
  require('./event-queue-rules/pausing'),
  require('./event-queue-rules/counts'),
  require('./event-queue-rules/dead-letters'),
  require('./event-queue-rules/closing'),
  require('./event-queue-rules/nodes'),
];

/** What an adapter can do unless its tests say otherwise. */
const CAPABILITIES = {
  /** The message object itself arrives, not a copy. */
  passesObjects: false,
  /** What JSON cannot hold is rejected. */
  serializes: true,
  /** A message is not queued while another with its id is in the channel. */
  dedupes: true,
  /** A message that waits or is kept back can be cancelled. */
  cancelsWaiting: true,
  /** `counts` tells how long the oldest has waited. */
  oldestAge: true,
  /** `counts` tells how many are kept back. */
  countsDelayed: true,
  /** `counts` tells how many run. */
  countsRunning: true,
  /** Dead letters are still there after close and connect. */
  keepsDeadLetters: true,
  /** A message that is tried again comes after those that waited when it was due. */
  retriesStandBehind: true,
  /** Several queues can be open on one store at once. */
  sharedStore: true,
};

let apps = 0;

/**
 * Declares the tests of one adapter. `makeQueue({ name, logger, ...options })` makes an `EventQueue` of the app `name`
 * with these options (`channelPrefix`, `closeTimeout`), not connected yet, or a promise of one. Queues of one test are
 * on one store: the next queue of an app finds what the one before has left; where the store is shared, also
 * while that is open. Each test has apps of its own.
 */
function eventQueueRules(name, makeQueue, capabilities = {}) {
  const can = { ...CAPABILITIES, ...capabilities };
  const nothing = () => undefined;
  const testIf = (condition) => (condition ? test : nothing);
  const describeIf = (condition) => (condition ? describe : nothing);
  let app;
  let logger;
  let queues;
  let gates;

  beforeEach(() => {
    app = `rules-${process.pid}-${apps++}`;
    logger = recorder();
    queues = [];
    gates = [];
  });
  afterEach(async () => {
    gates.forEach(({ resolve }) => resolve());
    await Promise.all(queues.map((queue) => queue.close()));
  });

  const make = async (options) => {
    const queue = await makeQueue({ name: app, logger, closeTimeout: 5000, ...options });
    queues.push(queue);
    return queue;
  };
  const open = async (options) => {
    const queue = await make(options);
    await queue.connect();
    return queue;
  };
  /** A gate that the end of the test opens. */
  const held = () => {
    const made = gate();
    gates.push(made);
    return made;
  };
  /** Subscribes with a handler that keeps what it gets. */
  const collect = (queue, channel, event = {}) => {
    const got = [];
    queue.subscribe(channel, { process: async (message) => { got.push(message); }, ...event });
    return got;
  };
  /** Subscribes with a handler that holds what it gets until its gate opens; `runs` are in the order of their begin. */
  const holding = (queue, channel, event = {}) => {
    const runs = [];
    const process = (message, context) => {
      const run = { message, context, ...held() };
      runs.push(run);
      return run.promise;
    };
    queue.subscribe(channel, { process, ...event });
    return runs;
  };
  /** Gives a queue that works time to show that it does something it must not do: other messages go through it. */
  const others = async (queue) => {
    const got = collect(queue, `others of ${apps++}`);
    for (let n = 0; n < 20; n++) await queue.publish(`others of ${apps - 1}`, n);
    await until(() => got.length === 20);
  };
  const logged = (level, text) => logger.lines.some((line) => line.level === level && line.message.includes(text));
  const fail = (text = 'no') => async () => { throw new Error(text); };
  const numbers = (count) => Array.from({ length: count }, (_, n) => n);

  const rules = {
    get app() { return app; },
    get logger() { return logger; },
    can, testIf, describeIf, make, open, held, collect, holding, others, logged, fail, numbers,
  };

  describe(`an event queue on ${name}`, () => {
    for (const group of GROUPS) group(rules);
  });
}

module.exports = { eventQueueRules };
