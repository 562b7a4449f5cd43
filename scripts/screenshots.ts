/** `npm run screenshots [folder]`: the console's pages, wide and as on a phone, light and dark, with the demo's models. */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { Page } from "playwright-core";
import { findChromium, openBrowser } from "../test/support/browser.ts";
import { type ConsoleWorld, consoleWorld, jobOf } from "../test/support/console.ts";
import { Sandbox, until } from "../test/support/processes.ts";

const SIZES = { wide: { width: 1280, height: 860 }, phone: { width: 390, height: 844 } } as const;
const SCHEMES = ["light", "dark"] as const;

const folder = process.argv[2] ?? "screenshots";
const chromium = findChromium();
if (typeof chromium !== "string") throw new Error(chromium.skipped);
await mkdir(folder, { recursive: true });
const sandbox = await Sandbox.create();
try {
  await takeAll(await consoleWorld(sandbox), chromium);
} finally {
  await sandbox.cleanUp();
}

async function takeAll(world: ConsoleWorld, path: string): Promise<void> {
  const { api, photos, samples, env, hostile } = world;
  sandbox.worker(env, "--models", "demo-caption,demo-vqa,demo-itm");
  await until("the worker", async () => (await api.get<{ workers: [] }>("/v1/fleet")).body.workers.length > 0);
  const captions = { task: "caption", input: photos, num_captions: 3, num_beams: 3 };
  const done = await jobOf(world, "captions", captions);
  const cleaned = await jobOf(world, "cleaned", {
    task: "capfilt",
    input: samples,
    text_column: "alt",
    num_captions: 2,
  });
  const answers = { task: "vqa", input: samples, question_column: "question" };
  await jobOf(world, "answers", answers);
  const strange = await jobOf(world, "hostile", { task: "itm", input: hostile, text_column: "text" });
  const nightly = { name: "nightly", cron: "0 2 * * *", time_zone: "Europe/Berlin" };
  await api.post("/v1/schedules", { ...nightly, job: { ...captions, output: sandbox.path("all"), incremental: true } });
  await api.post("/v1/schedules/nightly/run");
  await api
    .submit({ ...answers, output: sandbox.path("held") })
    .then(({ body }) => api.post(`/v1/jobs/${body.id}/pause`));

  const browser = await openBrowser(path);
  for (const [size, viewport] of Object.entries(SIZES)) {
    for (const scheme of SCHEMES) {
      const context = await browser.newContext({ viewport, colorScheme: scheme, deviceScaleFactor: 1 });
      const page = await context.newPage();
      const take = async (name: string, whole = true) => {
        await settled(page);
        await page.screenshot({ path: join(folder, `${name}-${size}-${scheme}.png`), fullPage: whole });
      };
      const open = async (hash: string) => {
        await page.goto(`${api.url}/#${hash}`);
      };
      await open("/");
      await page.waitForSelector(".job-line");
      await take("jobs");
      await open(`/jobs/${done.id}`);
      await page.waitForSelector(".row");
      await take("job");
      await take("job-top", false);
      await page.locator(".row-open").nth(3).click();
      await page.waitForSelector("dialog img");
      await take("row", false);
      await page.keyboard.press("Escape");
      await page.getByRole("button", { name: /IMAGE_EMPTY/ }).click();
      await take("errors", false);
      await open(`/jobs/${cleaned.id}`);
      await page.waitForSelector(".row");
      await take("cleaned");
      await open(`/jobs/${strange.id}`);
      await page.waitForSelector(".row");
      await take("hostile");
      await open("/try");
      await take("try-empty", false);
      await page.setInputFiles("input[type=file]", join(photos, "scene-003.jpg"));
      await page.getByRole("button", { name: "Ask the model" }).click();
      await page.waitForSelector(".answer");
      await take("try", false);
      await open("/submit");
      await page.getByLabel("Input", { exact: true }).fill(join(photos, "not-there"));
      await page.getByLabel("Output", { exact: true }).fill(sandbox.path("never"));
      await page.getByRole("button", { name: "Submit the job" }).click();
      await page.waitForSelector(".wrong-text");
      await take("submit");
      await open("/schedules");
      await page.waitForSelector(".schedules article");
      await page.locator(".schedules summary").first().click();
      await take("schedules");
      await open("/fleet");
      await page.waitForSelector(".workers li");
      await take("fleet");
      await context.close();
      console.log(`${size} ${scheme}`);
    }
  }
  await browser.close();
}

/** Pictures are there, and nothing moves. */
async function settled(page: Page): Promise<void> {
  await page.waitForLoadState("networkidle").catch(() => {});
  await page.waitForTimeout(500);
}
