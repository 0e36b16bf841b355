// A published message is on its way until the bus has delivered it; Node stays alive so long.

import { hold, listen, release } from '../native';

/** Who is told that what was published has been delivered; see {@link publishing}. */
export const delivered = listen(release);

/** Calls `publish`, which says whether {@link delivered} will be told, and keeps Node alive until then. */
export function publishing(publish: () => boolean): boolean {
  hold();
  let underWay = false;
  try {
    underWay = publish();
  } finally {
    if (!underWay) release();
  }
  return underWay;
}
