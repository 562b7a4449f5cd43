/** Everything that can be wrong with a request: one clear line, a stable code, what to do, and nothing half-created. */
import { existsSync } from "node:fs";
import { cp, mkdir, readdir, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { command } from "../support/command.ts";
import { capfleet, DEMO, freePort, Sandbox } from "../support/processes.ts";

let sandbox: Sandbox;
let env: NodeJS.ProcessEnv;

beforeAll(async () => {
  sandbox = await Sandbox.create();
  env = sandbox.env();
  for (const folder of ["empty", "photos/deep", "taken"]) await mkdir(sandbox.path(folder), { recursive: true });
  await cp(join(DEMO, "images/scene-003.jpg"), sandbox.path("photos/a.jpg"));
  await writeFile(sandbox.path("empty/readme.txt"), "no image");
  await writeFile(sandbox.path("taken/other.txt"), "mine");
  await writeFile(sandbox.path("bad.jsonl"), '{"image":"photos/a.jpg"}\nnot json\n');
  await writeFile(sandbox.path("lacks.jsonl"), '{"id":"x"}\n');
  await writeFile(sandbox.path("nothing.jsonl"), "");
  const lines = [{ question: "what?", alts: ["a dog"] }, { alts: ["a dog", 7] }];
  const list = lines.map((line) => JSON.stringify({ image: "photos/a.jpg", ...line })).join("\n");
  await writeFile(sandbox.path("list.jsonl"), list);
  await mkdir(sandbox.path("half-model"));
  await writeFile(sandbox.path("half-model/config.json"), '{"architectures":["BlipForConditionalGeneration"]}');
  await mkdir(sandbox.path("other-model"));
  await writeFile(sandbox.path("other-model/config.json"), '{"architectures":["LlamaForCausalLM"]}');
});
afterAll(() => sandbox.cleanUp());

const at = (name: string) => sandbox.path(name);
const run = (...args: string[]) => capfleet(env, "run", ...args);

describe("usage: exit code 2, before anything exists", () => {
  const cases: [string, string, string, () => string[]][] = [
    ["an unknown task", "UNKNOWN_TASK", "caption", () => ["segment", at("photos"), "--out", at("o")]],
    ["an unknown option", "USAGE", "--colour", () => ["caption", at("photos"), "--out", at("o"), "--colour", "red"]],
    ["no output", "USAGE", "--out", () => ["caption", at("photos")]],
    ["a limit of none", "USAGE", "limit", () => ["caption", at("photos"), "--out", at("o"), "--limit", "0"]],
    [
      "a shard size beyond bounds",
      "USAGE",
      "10000",
      () => ["caption", at("photos"), "--out", at("o"), "--shard-size", "10001"],
    ],
    [
      "more tokens than the model has",
      "INVALID_OPTION",
      "64",
      () => ["caption", at("photos"), "--out", at("o"), "--max-new-tokens", "65"],
    ],
    ["an input that is not there", "INPUT_NOT_FOUND", "nowhere", () => ["caption", at("nowhere"), "--out", at("o")]],
    [
      "a manifest that is not there",
      "INPUT_NOT_FOUND",
      "no.jsonl",
      () => ["caption", at("no.jsonl"), "--out", at("o")],
    ],
    ["an image as input", "INPUT_NOT_FOUND", "is a file", () => ["caption", at("photos/a.jpg"), "--out", at("o")]],
    ["another scheme", "INVALID_URI", "gs://", () => ["caption", "gs://bucket/x/", "--out", at("o")]],
    ["no images below the input", "INPUT_EMPTY", "empty", () => ["caption", at("empty"), "--out", at("o")]],
    ["an empty manifest", "INPUT_EMPTY", "nothing.jsonl", () => ["caption", at("nothing.jsonl"), "--out", at("o")]],
    ["a line that is not JSON", "MANIFEST_INVALID", "line 2", () => ["caption", at("bad.jsonl"), "--out", at("o")]],
    ["a line without image", "MANIFEST_INVALID", "line 1", () => ["caption", at("lacks.jsonl"), "--out", at("o")]],
    [
      "output inside input",
      "OUTPUT_INSIDE_INPUT",
      "inside",
      () => ["caption", at("photos"), "--out", at("photos/deep/o")],
    ],
    ["output is the input", "OUTPUT_INSIDE_INPUT", "inside", () => ["caption", at("photos"), "--out", at("photos")]],
    ["an output in use", "OUTPUT_IN_USE", "other.txt", () => ["caption", at("photos"), "--out", at("taken")]],
    ["no such model", "MODEL_NOT_FOUND", "blap", () => ["caption", at("photos"), "--out", at("o"), "--model", "blap"]],
    [
      "another architecture",
      "MODEL_UNSUPPORTED",
      "Llama",
      () => ["caption", at("photos"), "--out", at("o"), "--model", at("other-model")],
    ],
    [
      "an option of another task",
      "INVALID_OPTION",
      '--num-beams: the task "itm"',
      () => ["itm", at("photos"), "--out", at("o"), "--text", "a dog", "--num-beams", "3"],
    ],
    [
      "beams and sampling",
      "INVALID_OPTION",
      "--num-beams 3 and --top-p",
      () => ["caption", at("photos"), "--out", at("o"), "--num-beams", "3", "--top-p", "0.9"],
    ],
    [
      "more captions than beams",
      "INVALID_OPTION",
      "--num-captions 4",
      () => ["caption", at("photos"), "--out", at("o"), "--num-beams", "3", "--num-captions", "4"],
    ],
    ["a value beyond its range", "USAGE", "top-p", () => ["caption", at("photos"), "--out", at("o"), "--top-p", "2"]],
    ["no question", "INVALID_OPTION", "--question or --question-column", () => ["vqa", at("photos"), "--out", at("o")]],
    [
      "two sources of questions",
      "INVALID_OPTION",
      "--question and --question-column",
      () => ["vqa", at("list.jsonl"), "--out", at("o"), "--question", "what?", "--question-column", "question"],
    ],
    ["no text", "INVALID_OPTION", "--text or --text-column", () => ["itc", at("photos"), "--out", at("o")]],
    [
      "answers that are not there",
      "INVALID_OPTION",
      "answers.txt: no such file",
      () => ["vqa", at("photos"), "--out", at("o"), "--question", "what?", "--answers", at("answers.txt")],
    ],
    [
      "a column of a folder",
      "INVALID_OPTION",
      '"alt" needs a manifest',
      () => ["itm", at("photos"), "--out", at("o"), "--text-column", "alt"],
    ],
    [
      "a column that a line lacks",
      "MANIFEST_INVALID",
      "line 2: no `question`",
      () => ["vqa", at("list.jsonl"), "--out", at("o"), "--question-column", "question"],
    ],
    [
      "a column that holds no text",
      "MANIFEST_INVALID",
      "line 2: text 2 of `alts` is not text",
      () => ["itm", at("list.jsonl"), "--out", at("o"), "--text-column", "alts"],
    ],
    ["no such precision", "USAGE", "int2", () => ["caption", at("photos"), "--out", at("o"), "--precision", "int2"]],
    ["no such device", "INVALID_OPTION", "tpu", () => ["caption", at("photos"), "--out", at("o"), "--device", "tpu"]],
    [
      "a model that can't caption",
      "TASK_UNSUPPORTED",
      "demo-itm",
      () => ["caption", at("photos"), "--out", at("o"), "--model", "demo-itm"],
    ],
  ];
  test.each(cases)("%s: %s", async (_, code, word, args) => {
    const { code: exit, stdout, stderr } = await command(env, "run", ...args());
    expect(stderr.split("\n")[0]).toMatch(new RegExp(`^${code}: .*${word}`));
    // One line that says what is wrong, one that says what to do, and no stack trace.
    expect(stderr.trimEnd().split("\n")).toHaveLength(2);
    expect({ exit, stdout }).toEqual({ exit: 2, stdout: "" });
    expect(await readdir(sandbox.folder)).not.toContain("o");
  });

  test("a job that is not there", async () => {
    for (const name of ["status", "pause", "resume", "results", "watch", "cancel"]) {
      const { code, stderr } = await command(env, name, at("photos"));
      expect({ name, code, word: stderr.split(":")[0] }).toEqual({ name, code: 2, word: "JOB_NOT_FOUND" });
    }
  });

  test("a setting that can't be", async () => {
    const bad = { CAPFLEET_REDIS_URL: "localhost:6379" };
    const { code, stderr } = await capfleet(sandbox.env(bad), "status");
    expect(stderr).toMatch(/^INVALID_CONFIG: CAPFLEET_REDIS_URL/);
    expect(code).toBe(2);
  });
});

test("a checkpoint without weights: the worker finds it, and its word is the command's", async () => {
  const { code, stderr } = await run("caption", at("photos"), "--out", at("half-out"), "--model", at("half-model"));
  expect(stderr).toMatch(/^MODEL_INVALID: .*half-model/m);
  expect(code).toBe(2);
});

describe("surroundings: exit code 1", () => {
  test("no Redis", async () => {
    const away = sandbox.env({ CAPFLEET_REDIS_URL: `redis://:secret@127.0.0.1:${await freePort()}` });
    for (const args of [["serve"], ["run", "caption", at("photos"), "--out", at(`redis-${Math.random()}`)]]) {
      const { code, stderr } = await capfleet(away, ...args);
      expect(stderr).toMatch(/^REDIS_UNREACHABLE: .*127\.0\.0\.1/m);
      expect(stderr).not.toContain("secret");
      expect(code).toBe(1);
    }
  });

  test.skipIf(existsSync("/dev/nvidia0"))("a GPU that is not there: never silently replaced", async () => {
    const { code, stderr } = await run("caption", at("photos"), "--out", at("gpu-out"), "--device", "cuda");
    expect(stderr).toMatch(/^DEVICE_UNAVAILABLE: .*CUDA/m);
    expect(code).toBe(1);
    expect(await readdir(at("gpu-out"))).not.toContain("results");
  });

  test("a Redis that may evict keys", async () => {
    const redis = await sandbox.redis();
    await redis.kill();
    await redis.start("--maxmemory-policy", "allkeys-lru");
    const { code, stderr } = await capfleet(sandbox.env({ CAPFLEET_REDIS_URL: redis.url }), "serve");
    expect(stderr).toMatch(/^REDIS_UNSUITABLE: .*allkeys-lru/);
    expect(code).toBe(1);
  });

  test("wrong credentials, from a server that refuses them", async () => {
    // A fake that answers as S3 does: the code path of wrong credentials must not need an account to be wrong with.
    const body = "<Error><Code>InvalidAccessKeyId</Code><Message>The key does not exist.</Message></Error>";
    const server = createServer((_, answer) => answer.writeHead(403, { "content-type": "application/xml" }).end(body));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    sandbox.atEnd(async () => server.close());
    const s3 = {
      AWS_ENDPOINT_URL_S3: `http://127.0.0.1:${(server.address() as { port: number }).port}`,
      AWS_ACCESS_KEY_ID: "wrong",
      AWS_SECRET_ACCESS_KEY: "wrong",
      AWS_REGION: "us-east-1",
    };
    const { code, stderr } = await capfleet(sandbox.env(s3), "run", "caption", "s3://photos/", "--out", at("denied"));
    expect(stderr).toMatch(/^STORE_CREDENTIALS: .*photos/);
    expect(code).toBe(1);
    expect(await readdir(sandbox.folder)).not.toContain("denied");
  });
});

test("without a command there is help, and no words of a library", async () => {
  for (const args of [[], ["schedule"], ["keys"]]) {
    const { code, stderr } = await command(env, ...args);
    expect({ code, stderr }).toEqual({ code: 2, stderr: expect.stringMatching(/^Usage: capfleet(.|\n)*Examples:/) });
    expect(stderr).not.toContain("outputHelp");
  }
});

test("every command has a help text with an example", async () => {
  const { stdout } = await capfleet(env, "--help");
  const commands = [...stdout.matchAll(/^ {2}([a-z]+) /gm)].map(([, name]) => name!).filter((name) => name !== "help");
  expect(commands).toEqual(expect.arrayContaining(["run", "submit", "serve", "status", "doctor", "results"]));
  for (const name of commands) {
    const help = await command(env, name, "--help");
    expect(help.code).toBe(0);
    expect(help.stdout).toMatch(/Examples?:/);
  }
});
