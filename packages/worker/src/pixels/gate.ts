/**
 * Lets any amount of work run together, and some of it alone. libvips keeps its error messages in one buffer for the
 * whole process, which every call clears when it ends: while others run, a failure's message may be theirs, or gone. (That
 * a call failed is certain; only why is not.) Where it matters why, the call is made alone.
 */
const sharing = new Set<Promise<unknown>>();
let lastAlone: Promise<unknown> = Promise.resolve();

/** Runs `work` with others, once nothing runs or waits to run alone. */
export async function together<T>(work: () => Promise<T>): Promise<T> {
  for (let seen: unknown; seen !== lastAlone; ) {
    seen = lastAlone;
    await lastAlone;
  }
  const running = work();
  sharing.add(running);
  return running.finally(() => sharing.delete(running));
}

/** Runs `work` once everything that runs has ended; what comes later waits. Not to be called from within `together`. */
export function alone<T>(work: () => Promise<T>): Promise<T> {
  const turn = lastAlone.then(async () => {
    await Promise.allSettled(sharing);
    return work();
  });
  lastAlone = turn.catch(() => undefined);
  return turn;
}
