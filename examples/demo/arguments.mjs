// The arguments of the demo: `--nodes N`, `--redis [URL]`, `--rabbitmq [URL]`.

const USAGE = 'usage: npm run demo -- [--nodes N] [--redis [URL]] [--rabbitmq [URL]], N from 1 to 32';

/** `{ nodes, redis, rabbitmq }`; a server is a URL, '' for one of the demo's own, or undefined. */
export function readArguments(words) {
  const found = { nodes: 2, redis: undefined, rabbitmq: undefined };
  const rest = words.flatMap((word) => word.split(/(?<=^--\w+)=/));
  while (rest.length > 0) {
    const option = rest.shift();
    const value = rest.length > 0 && !rest[0].startsWith('--') ? rest.shift() : '';
    if (option === '--nodes' && /^\d+$/.test(value) && value >= 1 && value <= 32) found.nodes = Number(value);
    else if (option === '--redis' || option === '--rabbitmq') found[option.slice(2)] = value;
    else throw Object.assign(new Error(USAGE), { exitCode: 2 });
  }
  return found;
}
