/**
 * Lets any amount of work run together, and some of it alone. libvips keeps its error messages in one buffer for the
 * whole process, which every call clears when it ends: while others run, a failure's message may be theirs, or gone. (That
 * a call failed is certain; only why is not.) Where it matters why, the call is made alone.
 */
const running = new Set<Promise<unknown>>();
/** Settles when the last one that is to run alone has ended; undefined when there is none. */
let lastAlone: Promise<unknown> | undefined;

/** Runs `work` with others, once nothing runs or waits to run alone. */
export async function together<T>(work: () => Promise<T>): Promise<T> {
  while (lastAlone) await lastAlone;
  const result = work();
  running.add(result);
  return result.finally(() => running.delete(result));
}

/** Runs `work` once everything that runs has ended; what comes later waits. Not to be called from within `together`. */
export async function alone<T>(work: () => Promise<T>): Promise<T> {
  const previous = lastAlone;
  const { promise: ended, resolve: end } = Promise.withResolvers<void>();
  lastAlone = ended;
  try {
    await previous;
    await Promise.allSettled(running);
    return await work();
  } finally {
    if (lastAlone === ended) lastAlone = undefined;
    end();
  }
}
