/** What the console is looked at with: a real producer, Redis and worker, pictures, and jobs of several kinds. */
import { cp, mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { JobView } from "../../packages/producer/src/api/schemas.ts";
import { type ApiClient, serving } from "./api.ts";
import { DEMO, type Sandbox, type TestRedis } from "./processes.ts";

/** Texts that would do harm, or leave their place, where they were more than text. */
export const HOSTILE = {
  id: `<img src=x onerror="window.harmed='id'"><script>window.harmed='script'</script>`,
  text: `\u202Egnihtemos \u2067"><svg onload=window.harmed='text'>`,
  long: "supercalifragilistic".repeat(40),
};

export interface ConsoleWorld {
  sandbox: Sandbox;
  redis: TestRedis;
  env: NodeJS.ProcessEnv;
  api: ApiClient;
  /** 24 scenes, and three files that are no pictures. */
  photos: string;
  /** Rows whose ids and texts are HOSTILE; images are scenes. */
  hostile: string;
  /** Rows with the web's texts, some of which are wrong. */
  samples: string;
}

export async function consoleWorld(sandbox: Sandbox): Promise<ConsoleWorld> {
  const redis = await sandbox.redis();
  const more = { CAPFLEET_PRICE_PER_HOUR: "0.9", CAPFLEET_API_FILES: sandbox.folder, CAPFLEET_HTTPS_HOSTS: "*" };
  const env = sandbox.env({ CAPFLEET_REDIS_URL: redis.url, ...more });
  const photos = sandbox.path("photos");
  await mkdir(photos);
  await cp(join(DEMO, "images"), photos, { recursive: true });
  const samples = sandbox.path("samples/samples.jsonl");
  await mkdir(dirname(samples));
  await cp(join(DEMO, "samples.jsonl"), samples);
  await cp(join(DEMO, "images"), sandbox.path("samples/images"), { recursive: true });
  await writeFile(join(photos, "broken.jpg"), "this is no picture");
  await writeFile(join(photos, "cut-off.png"), (await readFile(join(photos, "scene-006.png"))).subarray(0, 600));
  await writeFile(join(photos, "empty.webp"), "");
  const hostile = sandbox.path("hostile.jsonl");
  const rows = [HOSTILE.id, "plain", HOSTILE.long].map((id, n) => {
    const text = [HOSTILE.text, "a key", HOSTILE.long][n];
    return { id, image: join(photos, "scene-003.jpg"), text };
  });
  await writeFile(hostile, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  const { api } = await serving(sandbox, env);
  return { sandbox, redis, env, api, photos, hostile, samples };
}

/** Submits, and waits for the end. */
export async function jobOf({ api, sandbox }: ConsoleWorld, name: string, body: object): Promise<JobView> {
  const { body: job } = await api.submit({ output: sandbox.path(name), ...body });
  if (!job.id) throw new Error(JSON.stringify(job));
  return api.when(job.id, "finished");
}
