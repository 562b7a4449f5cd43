/** `npm run screenshots [folder]`: the console's pages, wide and as on a phone, light and dark, with the demo's models. */
import { mkdir, mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import type { Page } from "playwright-core";
import sharp from "sharp";
import { findChromium, openBrowser } from "../test/support/browser.ts";
import { type ConsoleWorld, consoleWorld, jobOf } from "../test/support/console.ts";
import { Sandbox, until } from "../test/support/processes.ts";

const SIZES = { wide: { width: 1280, height: 1160 }, phone: { width: 390, height: 844 } } as const;
const SCHEMES = ["light", "dark"] as const;

interface Shot {
  name: string;
  hash: string;
  /** What has to be there. */
  shows: string;
  prepare?(page: Page): Promise<void>;
  /** Down to its end; otherwise what a window shows. */
  whole?: boolean;
}

const given = process.argv[2];
const folder = given ? resolve(given) : await mkdtemp(join(tmpdir(), "capfleet-screenshots-"));
const chromium = findChromium();
if (typeof chromium !== "string") throw new Error(chromium.skipped);
await mkdir(folder, { recursive: true });
const sandbox = await Sandbox.create();
try {
  const world = await consoleWorld(sandbox);
  await takeAll(await shotsOf(world), world.api.url, chromium);
  console.log(folder);
} finally {
  await sandbox.cleanUp();
}

async function shotsOf(world: ConsoleWorld): Promise<Shot[]> {
  const { api, photos, samples, env, hostile } = world;
  sandbox.worker(env, "--models", "demo-caption,demo-vqa,demo-itm");
  await until("the worker", async () => (await api.get<{ workers: [] }>("/v1/fleet")).body.workers.length > 0);
  const captions = { task: "caption", input: photos, num_captions: 3, num_beams: 3 };
  const answers = { task: "vqa", input: samples, question_column: "question" };
  const capfilt = { task: "capfilt", input: samples, text_column: "alt", num_captions: 2 };
  const done = await jobOf(world, "captions", captions);
  const asked = await jobOf(world, "answers", answers);
  const cleaned = await jobOf(world, "cleaned", capfilt);
  const strange = await jobOf(world, "hostile", { task: "itm", input: hostile, text_column: "text" });
  const nightly = { name: "nightly", cron: "0 2 * * *", time_zone: "Europe/Berlin" };
  await api.post("/v1/schedules", { ...nightly, job: { ...captions, output: sandbox.path("all"), incremental: true } });
  await api.post("/v1/schedules/nightly/run");
  const { body: held } = await api.submit({ ...captions, output: sandbox.path("held"), precision: "fp32" });
  await api.post(`/v1/jobs/${held.id}/pause`);

  const job = { hash: `/jobs/${done.id}`, shows: ".row" };
  const openRow = async (page: Page) => {
    await page.locator(".row-open").nth(3).click();
    await page.waitForSelector("dialog img");
  };
  const tryIt = async (page: Page) => {
    await page.setInputFiles("input[type=file]", join(photos, "scene-003.jpg"));
    await page.getByRole("button", { name: "Ask the model" }).click();
    await page.waitForSelector(".answer");
  };
  const wrongInput = async (page: Page) => {
    await page.locator("[name=input]").fill("s3://Photos_of 2026");
    await page.locator("[name=output]").fill("s3://labels/2026/");
    await page.getByRole("button", { name: "Submit the job" }).click();
    await page.waitForSelector(".wrong-text");
  };
  return [
    { name: "jobs", hash: "/", shows: ".job-line", whole: true },
    { ...job, name: "job" },
    { ...job, name: "job-row", prepare: openRow },
    { ...job, name: "job-error", prepare: (page) => page.getByRole("button", { name: /IMAGE_EMPTY/ }).click() },
    { name: "job-answers", hash: `/jobs/${asked.id}`, shows: ".row" },
    { name: "job-cleaned", hash: `/jobs/${cleaned.id}`, shows: ".row" },
    { name: "job-hostile", hash: `/jobs/${strange.id}`, shows: ".row", whole: true },
    { name: "job-held", hash: `/jobs/${held.id}`, shows: ".figures", whole: true },
    { name: "try", hash: "/try", shows: ".drop", whole: true, prepare: tryIt },
    { name: "submit", hash: "/submit", shows: "form", whole: true, prepare: wrongInput },
    {
      name: "schedules",
      hash: "/schedules",
      shows: "article summary",
      prepare: (page) => page.locator("summary").click(),
    },
    { name: "fleet", hash: "/fleet", shows: ".workers li", whole: true },
  ];
}

async function takeAll(shots: readonly Shot[], url: string, path: string): Promise<void> {
  const browser = await openBrowser(path);
  for (const [size, viewport] of Object.entries(SIZES)) {
    for (const colorScheme of SCHEMES) {
      const context = await browser.newContext({ viewport, colorScheme });
      for (const { name, hash, shows, prepare, whole = false } of shots) {
        const page = await context.newPage();
        await page.goto(`${url}/#${hash}`);
        await page.waitForSelector(shows);
        await prepare?.(page);
        await until("the pictures", () => arePicturesThere(page, viewport.height));
        const png = await page.screenshot({ fullPage: whole });
        await sharp(png)
          .webp({ quality: 82 })
          .toFile(join(folder, `${name}-${size}-${colorScheme}.webp`));
        await page.close();
      }
      await context.close();
    }
  }
  await browser.close();
}

/** Those that the window shows; others are not even asked for. */
async function arePicturesThere(page: Page, height: number): Promise<boolean> {
  const empty = await page.locator(".thumbnail:empty").all();
  const boxes = await Promise.all(empty.map((one) => one.boundingBox({ timeout: 1_000 }).catch(() => null)));
  return boxes.every((box) => !box || box.y >= height);
}
