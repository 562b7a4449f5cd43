/** `npm run demo`, as it is, twice. */
import { execFile } from "node:child_process";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { DEMO } from "../support/processes.ts";

const root = join(DEMO, "../..");

test("labels the samples, shows what is right, writes jobs and gallery, and does so again", async () => {
  for (let time = 0; time < 2; time++) {
    const { stdout } = await promisify(execFile)("npm", ["run", "demo"], { cwd: root });
    expect(stdout).toContain("24 of 24 captions are exactly right");
    expect(stdout).toContain("23 of 24 answers are right");
    expect(stdout).toContain("24 of 24 web texts are judged right");
    expect(stdout).toContain("images/scene-000.webp  a clock on a gray background");
    expect(stdout).toContain("  how many clocks are there? 1\n");
    expect(stdout).toMatch(/ {2}0\.0\d\d for "a mushroom on a gray background"\n/);
    for (const place of ["demo-output/{captions,answers,matches}/", "demo-output/gallery.html"]) {
      expect(stdout).toContain(place);
    }
  }
  for (const job of ["captions", "answers", "matches"]) {
    expect((await stat(join(root, `demo-output/${job}/_SUCCESS`))).isFile()).toBe(true);
  }
  const page = await readFile(join(root, "demo-output/gallery.html"), "utf8");
  expect(page.match(/<figure>/g)).toHaveLength(24);
  // One file: nothing in it is fetched from anywhere.
  expect(page).not.toMatch(/(src|href)="(?!data:)/);
});
