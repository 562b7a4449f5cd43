/** How work in hand ends when the worker stops. */

/** The worker is stopping, and the time that the work had is up. */
export class Stopping extends Error {}

/** The promise, or the signal's reason as soon as it is aborted: work that hangs can be given back as well. */
export function orAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    signal.addEventListener("abort", abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}
