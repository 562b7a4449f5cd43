/** `npm run demo`, as it is, twice. */
import { execFile } from "node:child_process";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { DEMO } from "../support/processes.ts";

const root = join(DEMO, "../..");

test("captions the samples, shows what is right, writes job and gallery, and does so again", async () => {
  for (let time = 0; time < 2; time++) {
    const { stdout } = await promisify(execFile)("npm", ["run", "demo"], { cwd: root });
    expect(stdout).toContain("24 of 24 captions are exactly right");
    expect(stdout).toContain("images/scene-000.webp  a clock on a gray background");
    for (const place of ["demo-output/job/", "demo-output/gallery.html"]) expect(stdout).toContain(place);
  }
  expect((await stat(join(root, "demo-output/job/_SUCCESS"))).isFile()).toBe(true);
  const page = await readFile(join(root, "demo-output/gallery.html"), "utf8");
  expect(page.match(/<figure>/g)).toHaveLength(24);
  // One file: nothing in it is fetched from anywhere.
  expect(page).not.toMatch(/(src|href)="(?!data:)/);
});
