/** A real Chromium: Debian's, or the one that CAPFLEET_TEST_CHROMIUM names. */
import { existsSync } from "node:fs";
import { type Browser, chromium } from "playwright-core";

const NAMES = ["chromium", "chromium-browser", "google-chrome"];

/** Its path, or why there is none. */
export function findChromium(): string | { skipped: string } {
  const given = process.env.CAPFLEET_TEST_CHROMIUM;
  if (given) return given;
  const folders = (process.env.PATH ?? "").split(":").filter(Boolean);
  const found = NAMES.flatMap((name) => folders.map((folder) => `${folder}/${name}`)).find((path) => existsSync(path));
  return found ?? { skipped: "no chromium on PATH; `npm run setup -- --test` as root installs Debian's" };
}

export const openBrowser = (path: string): Promise<Browser> =>
  chromium.launch({
    executablePath: path,
    // In a container there is neither a user namespace nor much of /dev/shm.
    args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
  });
