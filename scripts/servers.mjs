// The servers that the tests need: found on the PATH, else installed with apt where that is possible,
// else named in a message.

import { spawnSync } from 'node:child_process';

const runs = (command) => !spawnSync(command, ['--version'], { stdio: 'ignore' }).error;

/** Makes sure that `command` of the Debian package `name` is there; ends the process when it cannot be. */
function need(command, name) {
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
    if (runs(command)) return;
  }
  console.error(`mortise: the tests need ${command}, which is not on the PATH; install it (Debian: apt install ${name})`);
  process.exit(1);
}

need('redis-server', 'redis-server');
