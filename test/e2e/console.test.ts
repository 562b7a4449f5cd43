/** The console as it is used: a real Chromium, producer, Redis and worker, with the demo's models. */
import { execFileSync } from "node:child_process";
import { cp, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import type { JobView } from "../../packages/producer/src/api/schemas.ts";
import type { AnswerError } from "../support/api.ts";
import { findChromium, openBrowser } from "../support/browser.ts";
import { type ConsoleWorld, consoleWorld, HOSTILE, jobOf } from "../support/console.ts";
import { faintTexts, widerThanWindow } from "../support/looks.ts";
import { capfleet, DEMO, Sandbox, until } from "../support/processes.ts";

const WIDE = { width: 1280, height: 900 };
const PHONE = { width: 390, height: 844 };

const chromium = findChromium();
if (typeof chromium !== "string") {
  if (process.env.CI) throw new Error(`the console's tests can't run: ${chromium.skipped}`);
  console.error(`SKIPPED the console's tests: ${chromium.skipped}`);
}

let sandbox: Sandbox;
let world: ConsoleWorld;
let browser: Browser;
let page: Page;
/** The job that the form makes, and those that are looked at beside it. */
let captions: JobView;
let hostile: JobView;
let waiting: JobView;
const at = (name: string) => sandbox.path(name);
/** What must never be there: requests to other places, and what the browser refused or met. */
const foreign: string[] = [];
const complaints: string[] = [];

async function open(context: BrowserContext, hash = "/"): Promise<Page> {
  const opened = await context.newPage();
  opened.setDefaultTimeout(60_000);
  opened.on("request", (request) => {
    const url = request.url();
    if (!url.startsWith(`${world.api.url}/`) && !url.startsWith("blob:")) foreign.push(url);
  });
  opened.on("pageerror", (error) => complaints.push(String(error)));
  opened.on("console", (message) => {
    // That an answer was an error is part of what is tested.
    if (message.type() === "error" && !message.text().startsWith("Failed to load resource"))
      complaints.push(message.text());
  });
  await opened.goto(`${world.api.url}/#${hash}`);
  return opened;
}

const soon = <T>(value: () => T) => expect.poll(value, { timeout: 60_000 });
const go = (hash: string) => page.goto(`${world.api.url}/#${hash}`);
const heading = (name: string) => page.getByRole("heading", { level: 1, name }).waitFor();
const button = (name: string | RegExp) => page.getByRole("button", { name, exact: typeof name === "string" });
const field = (name: string) => page.locator(`[name=${name}]`);
const badge = (state: string) => page.locator(".page-head .badge", { hasText: state }).waitFor();
const textsOf = (selector: string) => page.locator(selector).allInnerTexts();

describe.skipIf(typeof chromium !== "string")("the console", () => {
  beforeAll(async () => {
    sandbox = await Sandbox.create();
    world = await consoleWorld(sandbox);
    browser = await openBrowser(chromium as string);
    sandbox.atEnd(() => browser.close());
    page = await open(await browser.newContext({ viewport: WIDE }));
  });
  afterAll(() => sandbox?.cleanUp());
  afterEach(() => {
    expect({ foreign: foreign.splice(0), complaints: complaints.splice(0) }).toEqual({ foreign: [], complaints: [] });
  });

  test("the page and its files: small, compressed, cached by what is in them, with a policy", async () => {
    const { url } = world.api;
    const whole = await fetch(`${url}/`, { headers: { "accept-encoding": "br" } });
    const html = await whole.text();
    expect(whole.headers.get("content-security-policy")).toContain("default-src 'none'");
    expect(whole.headers.get("content-security-policy")).toContain("frame-ancestors 'none'");
    for (const [name, value] of [
      ["x-content-type-options", "nosniff"],
      ["referrer-policy", "no-referrer"],
      ["cache-control", "no-cache"],
      ["content-encoding", "br"],
    ] as const)
      expect(whole.headers.get(name)).toBe(value);
    const etag = whole.headers.get("etag")!;
    expect((await fetch(`${url}/`, { headers: { "if-none-match": etag } })).status).toBe(304);

    let bytes = Number(whole.headers.get("content-length"));
    const files = [...html.matchAll(/(?:src|href)="(\/console\/[^"]+)"/g)].map(([, path]) => path!);
    expect(files.map((path) => path.split(".").at(-1)).sort()).toEqual(["css", "js", "svg"]);
    for (const path of files) {
      const sizes = await Promise.all(
        ["br", "gzip", "identity"].map(async (encoding) => {
          const file = await fetch(url + path, { headers: { "accept-encoding": encoding } });
          expect(file.headers.get("cache-control")).toContain("immutable");
          return Number(file.headers.get("content-length"));
        }),
      );
      bytes += sizes[0]!;
      expect(sizes[0]).toBeLessThan(sizes[2]!);
      expect(sizes[1]).toBeLessThan(sizes[2]!);
    }
    console.info(`the console: ${bytes} bytes`);
    expect(bytes).toBeLessThan(150_000);
    expect((await fetch(`${url}/console/main-OLD.js`)).status).toBe(404);
  });

  test("a form that says what is wrong, where; a job that waits, and is watched to its end", async () => {
    await heading("Jobs");
    await page.getByRole("link", { name: "Submit a job" }).click();
    await heading("Submit a job");
    await button("Submit the job").click();
    const focused = () => page.evaluate(() => (document.activeElement as HTMLInputElement).name);
    await page.locator(".wrong-text", { hasText: "Say where the images are" }).waitFor();
    await soon(focused).toBe("input");

    await field("input").fill(at("not-there"));
    await field("output").fill(at("captions"));
    await button("Submit the job").click();
    await page.locator(".field.wrong", { hasText: "does not exist" }).waitFor();
    await soon(focused).toBe("input");
    await expect(field("input").getAttribute("aria-invalid")).resolves.toBe("true");

    // Two fields that contradict each other: the first that the message names.
    await field("input").fill(world.photos);
    await field("num_captions").fill("3");
    await button("Submit the job").click();
    await page.locator(".field.wrong", { hasText: "num_captions 3 needs num_beams 3" }).waitFor();
    await soon(focused).toBe("num_captions");
    await page.getByText("How texts are made").click();
    await field("num_beams").fill("3");
    // A field that is hidden is shown when it is the wrong one.
    await field("max_new_tokens").fill("100000");
    await page.getByText("How texts are made").click();
    await button("Submit the job").click();
    await soon(focused).toBe("max_new_tokens");
    await field("max_new_tokens").fill("");
    await button("Submit the job").click();

    await heading("Captions");
    await page.getByText("no worker for demo-caption").waitFor();
    sandbox.worker(world.env, "--models", "demo-caption,demo-vqa,demo-itm");
    // A worker that has never run its models compiles them first.
    await page.locator(".page-head .badge", { hasText: "finished" }).waitFor({ timeout: 150_000 });
    captions = (await world.api.get<{ jobs: JobView[] }>("/v1/jobs")).body.jobs[0]!;
    expect(captions).toMatchObject({ state: "finished", counts: { total: 27, done: 27, failed: 3 } });
    await page.locator(".figure", { hasText: "Cost" }).waitFor();
  });

  test("rows with pictures; those that failed by their code, those that are searched, those of a score", async () => {
    await soon(() => page.locator(".gallery article").count()).toBe(24);
    await button("More rows").click();
    await soon(() => page.locator(".gallery article").count()).toBe(27);
    const picture = page.locator("article", { hasText: "scene-003.jpg" }).locator("img");
    await picture.scrollIntoViewIfNeeded();
    await soon(() => picture.evaluate((image: HTMLImageElement) => image.naturalWidth)).toBeGreaterThan(90);

    await button(/^IMAGE_EMPTY/).click();
    await page.getByText("1 row found in all 27 rows").waitFor();
    expect(await textsOf(".row-id")).toEqual(["empty.webp"]);
    await button(/^IMAGE_EMPTY/).click();
    await page.getByLabel("Which rows").selectOption("failed");
    await page.getByText("3 rows found in all 27 rows").waitFor();
    await page.getByLabel("Which rows").selectOption("all");

    await page.getByRole("searchbox").fill("TWO SUNFLOWERS ON A YELLOW");
    await page.getByRole("searchbox").press("Enter");
    await page.getByText("1 row found in all 27 rows").waitFor();
    expect((await textsOf(".said .best .text"))[0]).toBe("two sunflowers on a yellow background");
    await button("Show all").click();

    // Every labelled row is in one bar, and a bar shows its rows.
    const bars = page.getByRole("button", { name: /^Only scores from/, disabled: false });
    let inBars = 0;
    for (let bar = 0; bar < (await bars.count()); bar++) {
      const wanted = Number(/: (\d+)$/.exec((await bars.nth(bar).getAttribute("aria-label"))!)![1]);
      inBars += wanted;
      await bars.nth(bar).click();
      await page.getByText(`${wanted} row${wanted === 1 ? "" : "s"} found in all 27 rows`).waitFor();
      await bars.nth(bar).click();
    }
    expect(inBars).toBe(24);
  });

  test("a model is tried on a picture: several captions with scores, answers, texts by how well they match", async () => {
    await go("/try");
    await heading("Try a model");
    expect(await button("Choose a picture first").isDisabled()).toBe(true);
    await page.setInputFiles("input[type=file]", join(DEMO, "images", "scene-003.jpg"));
    const ask = async () => {
      await button("Ask the model").click();
      await page.locator(".answer").waitFor();
      return textsOf(".answer .text");
    };
    const found = await ask();
    expect(found).toHaveLength(3);
    expect(found[0]).toBe("three houses and a key on an orange background");
    const scores = (await textsOf(".answer .score")).map(Number);
    expect(scores).toEqual(scores.toSorted((a, b) => b - a));

    await page.getByText("questions about it").click();
    await field("question").fill("how many keys are there?\nis there a key?");
    expect(await ask()).toEqual(["1", "yes"]);

    // Another picture, dropped.
    await page.locator(".drop").evaluate(async (zone, source) => {
      const files = new DataTransfer();
      files.items.add(new File([await (await fetch(source)).blob()], "dropped.jpg", { type: "image/jpeg" }));
      zone.dispatchEvent(new DragEvent("drop", { dataTransfer: files, bubbles: true }));
    }, `/v1/jobs/${captions.id}/thumbnail?position=0.5`);
    await page.getByAltText("The chosen picture, dropped.jpg").waitFor();
    await page.getByText("which texts fit").click();
    await field("text").fill("three houses and a key on an orange background\ntwo clocks on a purple background");
    expect((await ask())[0]).toBe("two clocks on a purple background");

    // What is no picture gets an answer as well.
    await page.setInputFiles("input[type=file]", join(world.photos, "broken.jpg"));
    await button("Ask the model").click();
    await page.locator(".notice", { hasText: "IMAGE_UNREADABLE" }).waitFor();
  });

  test("a job is held, goes on, and is cancelled once that is confirmed", async () => {
    const body = { task: "caption", input: world.photos, output: at("waiting"), precision: "fp32" };
    waiting = (await world.api.submit(body)).body;
    await go(`/jobs/${waiting.id}`);
    await button("Pause").click();
    await badge("paused");
    await button("Resume").click();
    await badge("running");
    await button("Cancel").click();
    await button("No, leave it").click();
    expect(await page.getByRole("dialog").count()).toBe(0);
    await go("/fleet");
    await page.locator("td", { hasText: /^27$/ }).waitFor();
    await page.locator(".workers", { hasText: "demo-vqa int8" }).waitFor();
    await page.getByRole("img", { name: /Images a second, the last hour/ }).waitFor();
    await go(`/jobs/${waiting.id}`);
    await button("Cancel").click();
    await button("Yes, cancel").click();
    await badge("cancelled");
    expect(await button("Pause").count()).toBe(0);
  });

  test("a schedule is made, run, held and deleted", async () => {
    await go("/submit");
    await field("input").fill(world.photos);
    await field("output").fill(at("nightly"));
    await page.getByText("On a schedule").click();
    await field("name").fill("nightly");
    await field("cron").fill("at two");
    await button("Make the schedule").click();
    await page.locator(".field.wrong", { hasText: "Cron pattern" }).waitFor();
    await field("cron").fill("0 2 * * *");
    await button("Make the schedule").click();
    await heading("Schedules");
    await button("Run now").click();
    await page.locator("summary .badge", { hasText: "finished" }).waitFor({ timeout: 60_000 });
    await button("Pause").click();
    await page.locator("article .badge", { hasText: "paused" }).waitFor();
    await button("Delete").click();
    await button("Yes, delete").click();
    await page.getByText("No schedules.").waitFor();
  });

  test("texts that would do harm are texts, and stay where they are", async () => {
    const asked = { task: "itm", input: world.hostile, text_column: "text" };
    hostile = await jobOf(world, "hostile", asked);
    await go(`/jobs/${hostile.id}`);
    await soon(() => page.locator(".gallery article").count()).toBe(3);
    expect(await textsOf(".row-id")).toContain(HOSTILE.id);
    await page.locator(".row-open").first().click();
    await page.getByRole("dialog").getByText("The row as it is stored").click();
    await page.keyboard.press("Escape");
    await page.getByRole("searchbox").fill(HOSTILE.id);
    await page.getByRole("searchbox").press("Enter");
    await page.getByText("1 row found in all 3 rows").waitFor();
    const harm = await page.evaluate(() => [
      (window as { harmed?: string }).harmed,
      document.querySelectorAll("img[src=x], main script, [onload], [onerror]").length,
    ]);
    expect(harm).toEqual([undefined, 0]);
  });

  test("the keyboard alone: to the form, through it, to a row and back", async () => {
    await go("/");
    await page.reload();
    await heading("Jobs");
    const focus = () =>
      page.evaluate(() => {
        const { tagName, textContent, ariaLabel, name } = document.activeElement as HTMLInputElement;
        return `${tagName} ${name || ariaLabel || textContent}`;
      });
    const tabTo = async (wanted: string, key = "Tab") => {
      for (let n = 0; n < 60 && (await focus()) !== wanted; n++) await page.keyboard.press(key);
      expect(await focus()).toBe(wanted);
    };
    await tabTo("A Submit", "Shift+Tab");
    await page.keyboard.press("Enter");
    await heading("Submit a job");
    await soon(focus).toBe("H1 Submit a job");
    await tabTo("INPUT task");
    await page.keyboard.press("ArrowRight");
    await tabTo("INPUT input");
    await page.keyboard.type(join(DEMO, "samples.jsonl"));
    await tabTo("INPUT output");
    await page.keyboard.type(at("answers"));
    await tabTo("INPUT question_column");
    await page.keyboard.type("question");
    await page.keyboard.press("Enter");
    await heading("Answers");
    await page.locator(".gallery article").first().waitFor();
    await tabTo("BUTTON Row scene-000, all of it");
    await page.keyboard.press("Enter");
    await page.getByRole("dialog").getByText("how many clocks are there?").waitFor();
    await page.keyboard.press("Escape");
    await soon(focus).toBe("BUTTON Row scene-000, all of it");
  });

  test("on a phone and in the dark: nothing is wider than the window, every text can be read", async () => {
    for (const [viewport, colorScheme] of [
      [PHONE, "light"],
      [WIDE, "dark"],
    ] as const) {
      const context = await browser.newContext({ viewport, colorScheme });
      const looked = await open(context);
      const ids = [captions.id, hostile.id, waiting.id].map((id) => `/jobs/${id}`);
      for (const hash of ["/", ...ids, "/try", "/submit", "/schedules", "/fleet"]) {
        await looked.goto(`${world.api.url}/#${hash}`);
        await looked.locator("main .card, main .empty").first().waitFor();
        if (ids.includes(hash)) await looked.locator(".gallery article, main .empty").first().waitFor();
        expect({ hash, wider: await looked.evaluate(widerThanWindow) }).toEqual({ hash, wider: [] });
        expect({ hash, colorScheme, faint: await looked.evaluate(faintTexts) }).toEqual({
          hash,
          colorScheme,
          faint: [],
        });
      }
      await context.close();
    }
  });

  test("a picture in a tar is the same as outside of it; what is on the web is the operator's to allow", async () => {
    await mkdir(at("tars"));
    execFileSync("tar", ["-cf", at("tars/0.tar"), "-C", join(DEMO, "images"), "scene-003.jpg", "scene-004.jpg"]);
    const tars = await jobOf(world, "from-tars", { task: "caption", input: at("tars/0.tar") });
    const bytesOf = async (job: string, position: string) => {
      const answer = await fetch(`${world.api.url}/v1/jobs/${job}/thumbnail?position=${position}&size=64`);
      expect([answer.status, answer.headers.get("content-type")]).toEqual([200, "image/jpeg"]);
      return Buffer.from(await answer.arrayBuffer());
    };
    const plain = (
      await world.api.get<{ rows: { id: string }[]; positions: string[] }>(`/v1/jobs/${captions.id}/results`)
    ).body;
    const same = plain.positions[plain.rows.findIndex(({ id }) => id === "scene-004.jpg")]!;
    expect(await bytesOf(tars.id, "0.1")).toEqual(await bytesOf(captions.id, same));

    const web = { id: "web", image: "https://127.0.0.1/secret.jpg" };
    await writeFile(at("web.jsonl"), `${JSON.stringify(web)}\n`);
    const job = await jobOf(world, "web", { task: "caption", input: at("web.jsonl") });
    const refused = await world.api.get<AnswerError>(`/v1/jobs/${job.id}/thumbnail?position=0.0`);
    expect(refused).toMatchObject({ status: 422, body: { error: { code: "IMAGE_HTTPS_FORBIDDEN" } } });
    for (const position of ["0.1", "7.0"])
      expect(await world.api.get(`/v1/jobs/${job.id}/thumbnail?position=${position}`)).toMatchObject({ status: 404 });
  });

  // From here on the server wants keys.
  test("with keys: the page asks for one; it shows no picture that the key may not read, and no other's job", async () => {
    await mkdir(at("team-photos"));
    await cp(join(DEMO, "images", "scene-000.webp"), at("team-photos/own.webp"));
    const images = [
      at("team-photos/own.webp"),
      join(world.photos, "scene-003.jpg"),
      at("team-photos/../photos/scene-004.jpg"),
    ];
    await writeFile(
      at("mixed.jsonl"),
      images.map((image, id) => `${JSON.stringify({ id: `row ${id}`, image })}\n`).join(""),
    );
    const mixed = await jobOf(world, "team/mixed", { task: "caption", input: at("mixed.jsonl") });
    const prefixes = ["--read", at("team-photos"), "--write", at("team")];
    const made = await capfleet(world.env, "keys", "create", "--name", "team", "--scope", "submit", ...prefixes);
    const key = /cf_\S+/.exec(made.stdout)![0];
    await until("keys to be needed", async () => (await world.api.get("/v1/jobs")).status === 401, 10);

    await go(`/jobs/${mixed.id}`);
    await page.reload();
    await heading("A key, please");
    await field("key").fill("cf_wrong");
    await button("Go on").click();
    await page.getByText("The key is unknown or revoked").waitFor();
    await field("key").fill(key);
    await button("Go on").click();
    await heading("Captions");
    await soon(() => page.locator(".gallery img").count()).toBe(1);
    await soon(() => page.getByText("Your key may not see this picture").count()).toBe(2);
    const [download] = await Promise.all([page.waitForEvent("download"), button("Download rows").click()]);
    expect(download.suggestedFilename()).toBe(`${mixed.id}.jsonl`);
    const rows = (await readFile(await download.path(), "utf8")).trimEnd().split("\n");
    expect(rows.map((row) => JSON.parse(row).id)).toEqual(["row 0", "row 1", "row 2"]);
    await go("/");
    await soon(() => page.locator(".job-line").count()).toBe(1);
    await go(`/jobs/${captions.id}`);
    await page.getByText("JOB_NOT_FOUND").waitFor();

    const team = world.api.as(key);
    const thumbnail = (id: string, position: string) =>
      team.get<AnswerError>(`/v1/jobs/${id}/thumbnail?position=${position}`);
    expect(await thumbnail(mixed.id, "0.0")).toMatchObject({ status: 200 });
    expect(await thumbnail(mixed.id, "0.1")).toMatchObject({
      status: 403,
      body: { error: { code: "LOCATION_FORBIDDEN" } },
    });
    expect(await thumbnail(captions.id, "0.3")).toMatchObject({
      status: 404,
      body: { error: { code: "JOB_NOT_FOUND" } },
    });
    expect((await world.api.get(`/v1/jobs/${mixed.id}/thumbnail?position=0.0`)).status).toBe(401);

    const kept = () => page.evaluate(() => [sessionStorage.length, localStorage.length, document.cookie]);
    expect(await kept()).toEqual([1, 0, ""]);
    await button("Forget the key").click();
    await heading("A key, please");
    expect(await kept()).toEqual([0, 0, ""]);
  });
});
