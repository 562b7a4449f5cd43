/**
 * One process at a time does a piece of work whose result is a file or folder; the others wait for it. The lease is a
 * file that its holder touches every second. Whoever sees it untouched for STALE_MS, by its own clock, takes it over:
 * its holder has been killed. A holder that was only suspended notices, when it goes on, that the lease is another's.
 *
 * For a moment there can be two holders then, or after two take-overs at once. The work must bear that: here both write
 * the same bytes to the same places, and the last step is a rename that one of them wins.
 */
import { randomUUID } from "node:crypto";
import { readFile, rename, rm, stat, utimes, writeFile } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";

const TOUCH_MS = 1_000;
const STALE_MS = 6_000;
const LOOK_MS = 100;

export interface Work {
  /** The lease's file, in a folder that exists. */
  path: string;
  /** Whether nothing is left to do, whoever did it. */
  isDone(): Promise<boolean>;
  /** `signal` is aborted where the lease has been lost. */
  act(signal: AbortSignal): Promise<void>;
  /** Called once if somebody else is at it. */
  waiting?(): void;
}

/** Returns when the work is done, by this process or another. Throws what `act` throws. */
export async function doOnce(work: Work): Promise<void> {
  while (!(await work.isDone())) {
    const token = await take(work);
    if (token === null) return;
    const lost = new AbortController();
    const heart = setInterval(() => {
      keep(work.path, token).then(
        (isMine) => isMine || lost.abort(),
        () => lost.abort(),
      );
    }, TOUCH_MS);
    try {
      if (!(await work.isDone())) await work.act(lost.signal);
    } catch (thrown) {
      if (!lost.signal.aborted && (await isHeldBy(work.path, token))) throw thrown;
    } finally {
      clearInterval(heart);
      if (await isHeldBy(work.path, token)) await rm(work.path, { force: true });
    }
  }
}

/** The new lease's token; null where the work has been done meanwhile. */
async function take({ path, isDone, waiting }: Work): Promise<string | null> {
  const token = randomUUID();
  let met = { lease: "", since: 0 };
  for (;;) {
    const isMine = await writeFile(path, token, { flag: "wx" }).then(
      () => true,
      (thrown: NodeJS.ErrnoException) => {
        if (thrown.code !== "EEXIST") throw thrown;
        return false;
      },
    );
    if (isMine) return token;
    const status = await stat(path, { bigint: true }).catch(() => null);
    const lease = status ? `${status.ino} ${status.mtimeNs}` : "";
    if (lease !== met.lease) {
      if (met.lease === "") waiting?.();
      met = { lease, since: performance.now() };
    } else if (lease !== "" && performance.now() - met.since > STALE_MS) {
      await writeFile(`${path}.${token}`, token);
      await rename(`${path}.${token}`, path);
      return token;
    }
    await delay(LOOK_MS);
    if (await isDone()) return null;
  }
}

async function keep(path: string, token: string): Promise<boolean> {
  if (!(await isHeldBy(path, token))) return false;
  const now = new Date();
  await utimes(path, now, now);
  return true;
}

const isHeldBy = async (path: string, token: string) => (await readFile(path, "utf8").catch(() => null)) === token;
