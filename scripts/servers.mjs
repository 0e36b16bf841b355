// The servers that the tests need: found on the PATH, else installed with apt where that is possible,
// else named in a message.

import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';

const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/usr/lib/rabbitmq/bin'];
// Looked for and not run: rabbitmq-server has no --version, but starts.
const runs = (command) => folders.some((folder) => existsSync(join(folder, command)));

/** Makes sure that `command` of the Debian package `name` is there; `after` it was installed. Ends the process when it cannot be. */
function need(command, name, after) {
  if (runs(command)) return;
  const root = process.getuid?.() === 0;
  const sudo = !root && spawnSync('sudo', ['-n', 'true'], { stdio: 'ignore' }).status === 0;
  if (runs('apt-get') && (root || sudo)) {
    console.log(`mortise: installing ${name} for the tests (apt-get)`);
    const apt = (...args) => spawnSync(root ? 'apt-get' : 'sudo', [...(root ? [] : ['apt-get']), ...args], {
      // The tests start servers of their own; none is to be started by the installation.
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' },
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    if (apt('install', '-y', '-qq', '--no-install-recommends', name).status !== 0) {
      apt('update', '-qq');
      apt('install', '-y', '-qq', '--no-install-recommends', name);
    }
    if (runs(command)) {
      after?.();
      return;
    }
  }
  console.error(`mortise: the tests need ${command}, which is not on the PATH; install it (Debian: apt install ${name})`);
  process.exit(1);
}

need('redis-server', 'redis-server');
need('rabbitmq-server', 'rabbitmq-server', () => {
  // The package starts a broker all the same where there is an init system.
  spawnSync('service', ['rabbitmq-server', 'stop'], { stdio: 'ignore' });
});
