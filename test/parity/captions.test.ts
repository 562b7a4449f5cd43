/** Captions against transformers', on the same pixels. See README.md for where the answers come from. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { BUNDLED_MODELS } from "@capfleet/shared/config";
import { compileEngine, loadEngine } from "@capfleet/worker/blip";
import { expect, test } from "vitest";
import { Folder, readGolden, readPixels, ref } from "../../packages/worker/test/blip/checkpoints.ts";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));
const BATCH = 5;
/**
 * Both sides compute in float32 with sums in different orders. The largest difference met is 1.1e-6, on scores around -3;
 * another processor may round otherwise, but a wrong epsilon, scale or GELU shows above 1e-4.
 */
const TOLERANCE = 1e-4;

const cases = readdirSync(here("cases")).map((name) => ({
  name,
  checkpoint: here(`cases/${name}`),
  golden: here(`cases/${name}`),
}));
cases.push({ name: "demo-caption", checkpoint: join(BUNDLED_MODELS, "demo-caption"), golden: here("demo") });

test.each(cases)("$name captions as transformers does", async ({ checkpoint, golden: folder }) => {
  await using made = await Folder.make();
  await compileEngine(checkpoint, ref, made.at("engine"));
  const engine = await loadEngine(made.at("engine"), { threads: 2 });
  const golden = await readGolden(folder);
  expect(golden.length).toBeGreaterThan(0);
  for (let i = 0; i < golden.length; i += BATCH) {
    const rows = golden.slice(i, i + BATCH);
    const pixels = await readPixels(
      folder,
      rows.map(({ id }) => id),
    );
    const outputs = await engine.caption(pixels, rows.length, { maxNewTokens: rows[0]!.max_new_tokens });
    // transformers' ids begin with the start token.
    expect(outputs.map(({ ids, text }) => ({ ids, text }))).toEqual(
      rows.map(({ ids, text }) => ({ ids: ids.slice(1), text })),
    );
    const differences = outputs.map(({ score }, j) => Math.abs(score - rows[j]!.score));
    expect(Math.max(...differences)).toBeLessThan(TOLERANCE);
  }
  await engine.release();
});
