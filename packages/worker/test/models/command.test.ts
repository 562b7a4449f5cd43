import { once } from "node:events";
import { readFile, writeFile } from "node:fs/promises";
import { afterEach, beforeEach, expect, test } from "vitest";
import { DEMO, Sandbox, until } from "../../../../test/support/processes.ts";
import { bundledFiles, World } from "./world.ts";

let world: World;
beforeEach(async () => {
  world = await World.create();
});
afterEach(() => world.end());

test("pull: a hub model into the cache; then it is listed, compiled and verified", async () => {
  world.hub.push({ id: "somebody/demo", files: await bundledFiles("demo-caption") });
  const pulled = await world.models(["pull", "somebody/demo"]);
  expect(pulled).toMatchObject({ code: 0, stdout: expect.stringContaining(world.path("cache/checkpoints/")) });
  expect(pulled.stderr).toMatch(/: 5\.\d of 5\.\d MB/);

  const compiled = await world.models(["compile", "somebody/demo", "--precision", "int8"]);
  expect(compiled.stdout).toMatch(/^engine +[0-9a-f]{16} \(somebody\/demo, int8; compiled\)$/m);
  for (const figure of ["size", "seconds", "memory"])
    expect(compiled.stdout).toMatch(new RegExp(`^${figure} +[0-9.]+`, "m"));

  const { stdout } = await world.models(["list"]);
  expect(stdout).toMatch(/^checkpoint {2}somebody\/demo {2}- {2}caption {2}\d+ bytes {2}complete/m);
  expect(stdout).toMatch(/^engine {2}somebody\/demo {2}int8 {2}caption {2}\d+ bytes {2}complete/m);

  const golden = world.path("golden.jsonl");
  const sample = JSON.parse((await readFile(`${DEMO}samples.jsonl`, "utf8")).split("\n")[0]!);
  const row = { image: sample.image, caption: sample.truth.caption };
  await writeFile(golden, `${JSON.stringify(row)}\n`);
  const verify = ["verify", "somebody/demo", "--golden", golden, "--images", DEMO];
  expect(await world.models(verify)).toMatchObject({ code: 0, stdout: expect.stringContaining("1 of 1 texts agree") });
});

test("pull: a model that nothing here can use is refused, and its weights are not downloaded", async () => {
  const config = { architectures: ["Blip2ForConditionalGeneration"], text_config: { model_type: "t5" } };
  const files = { ...(await bundledFiles("demo-caption")), "config.json": Buffer.from(JSON.stringify(config)) };
  world.hub.push({ id: "somebody/flan", files });
  expect(await world.models(["pull", "somebody/flan"])).toMatchObject({
    code: 2,
    stdout: "",
    stderr: expect.stringMatching(/^MODEL_UNSUPPORTED: .*somebody\/flan\/config\.json: the language model "t5"/m),
  });
  expect(world.hub.asked.some(({ name }) => name === "model.safetensors")).toBe(false);
});

test("list: a download that was interrupted is incomplete", async () => {
  world.hub.push({ id: "somebody/demo", files: await bundledFiles("demo-caption") });
  world.hub.fault = ({ name }) => (name === "vocab.txt" ? { status: 404 } : null);
  expect(await world.models(["pull", "somebody/demo"])).toMatchObject({ code: 2, stdout: "" });
  expect((await world.models(["list"])).stdout).toMatch(/^checkpoint {2}.* incomplete/m);
});

test("verify: the bundled models answer as transformers does, in fp32", async () => {
  for (const name of ["demo-caption", "demo-vqa", "demo-itm"]) {
    const { code, stdout } = await world.models(["verify", name, "--precision", "fp32"]);
    expect([name, code, stdout]).toEqual([name, 0, expect.stringContaining("24 rows")]);
  }
});

test("verify: what differs is listed, and fails", async () => {
  const golden = world.path("golden.jsonl");
  const wrong = { image: `${DEMO}images/scene-000.webp`, caption: "a dog on a gray background" };
  await writeFile(golden, `${JSON.stringify(wrong)}\n`);
  const { code, stdout, stderr } = await world.models(["verify", "demo-caption", "--golden", golden]);
  expect(code).toBe(1);
  expect(stdout).toContain(`golden.jsonl:1: "a clock on a gray background" instead of "a dog on a gray background"`);
  expect(stderr).toContain("VERIFY_FAILED");
});

test("verify: --tolerance is the largest difference of a score", async () => {
  const golden = world.path("golden.jsonl");
  const row = { image: `${DEMO}images/scene-000.webp`, text: "a mushroom on a gray background", itm: 0.4 };
  await writeFile(golden, `${JSON.stringify(row)}\n`);
  const verify = ["verify", "demo-itm", "--golden", golden];
  expect(await world.models(verify)).toMatchObject({
    code: 1,
    stderr: expect.stringContaining("itm: a score differs"),
  });
  expect((await world.models([...verify, "--tolerance", "0.5"])).code).toBe(0);
});

test.each([
  [["verify", "demo-caption", "--golden", "no-such-file"], 2, "INPUT_NOT_FOUND"],
  [["verify", "somebody/demo"], 2, "INVALID_OPTION"],
  [["compile", "no-such-model"], 2, "MODEL_NOT_FOUND"],
  [["compile", "demo-caption", "--device", "tpu"], 2, "INVALID_OPTION"],
  [["compile", "demo-caption", "--precision", "fp64"], 2, "USAGE"],
  [["compile", "demo-caption", "--precision", "int4"], 2, "INVALID_OPTION"],
  [["compile", "demo-caption", "--precision", "int8", "--device", "cuda"], 2, "INVALID_OPTION"],
  [["bench", "demo-caption", "--task", "vqa"], 2, "TASK_UNSUPPORTED"],
  [["pull", "no/such-model"], 1, "HUB_ACCESS_DENIED"],
  [["pull", "somebody/else", "extra"], 2, "USAGE"],
  [["nothing"], 2, "USAGE"],
  [[], 2, "USAGE"],
])("models %s is refused", async (args, code, error) => {
  expect(await world.models(args as string[])).toMatchObject({
    code,
    stdout: "",
    stderr: expect.stringMatching(`^${error}: `),
  });
});

test("a worker without models is told so", async () => {
  expect(await world.start([]).ended).toMatchObject({ code: 2, stderr: expect.stringContaining("--models") });
});

test("a worker that is stopped while it downloads ends in good order, and the download goes on from there", async () => {
  const sandbox = await Sandbox.create();
  try {
    const redis = await sandbox.redis();
    world.hub.push({ id: "somebody/demo", files: await bundledFiles("demo-caption") });
    const isWeights = (kind: string, name: string) => kind === "lfs" && name === "model.safetensors";
    world.hub.fault = ({ kind, name, headers }) =>
      isWeights(kind, name) && headers.range !== "bytes=0-0" ? { holdAfter: 1_000_000 } : null;
    const { child, ended } = world.start(["--models", "somebody/demo"], { CAPFLEET_REDIS_URL: redis.url });
    await until("the weights to be asked for", () => world.hub.asked.filter(({ kind }) => kind === "lfs").length > 1);
    child.kill("SIGTERM");
    expect(await ended).toMatchObject({ code: 0 });

    world.hub.fault = () => null;
    const again = world.start(["--models", "somebody/demo"], { CAPFLEET_REDIS_URL: redis.url });
    await until("the worker", async () => {
      const [chunk] = await once(again.child.stderr!, "data");
      return String(chunk).includes('"ready"');
    });
    again.child.kill("SIGTERM");
    const { code, stderr } = await again.ended;
    expect(code).toBe(0);
    expect(stderr).toMatch(/"precision":"int8","how":"compiled"/);
  } finally {
    await sandbox.cleanUp();
  }
});
