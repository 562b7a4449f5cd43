/** The Helm chart, by the real helm: what it makes of values, and which values it refuses. */
import { execFileSync } from "node:child_process";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parseAllDocuments, stringify } from "yaml";
import { Sandbox } from "../support/processes.ts";
import { REPO } from "./files.ts";
import { CHART, findHelm, helm } from "./helm.ts";

const program = await findHelm();
if (!program) console.error("SKIPPED the chart's tests: no helm for this machine; install it");

interface Manifest {
  apiVersion: string;
  kind: string;
  metadata: { name: string };
  // biome-ignore lint/suspicious/noExplicitAny: of any kind; `problems` holds it against its type
  spec: any;
}

/** The least that there must be. */
const LEAST = {
  image: { registry: "registry.example.com/ml" },
  state: "s3://labels/.capfleet/",
  redis: { producer: { secret: { name: "redis-producer" } }, worker: { secret: { name: "redis-worker" } } },
};
const POOL = { name: "caption", models: ["Salesforce/blip-image-captioning-base"] };
const KEY = { apiKey: { secret: { name: "capfleet-api-key" } } };
/** All that there is. */
const ALL = {
  ...LEAST,
  ...KEY,
  engines: "s3://labels/.capfleet/engines/",
  caBundle: { configMap: { name: "authorities" } },
  s3: {
    endpoint: "https://s3.example.com",
    region: "eu-central-1",
    producer: { secretName: "s3-producer" },
    worker: { secretName: "s3-worker" },
    stores: { secret: { name: "stores" } },
  },
  env: { CAPFLEET_HTTPS_HOSTS: "images.example.com" },
  producer: { ingress: { enabled: true, className: "nginx", host: "labels.example.com", tlsSecretName: "tls" } },
  workers: [
    {
      ...POOL,
      models: [...POOL.models, "s3://models/itm/"],
      device: "cuda",
      spot: { enabled: true },
      autoscaling: { enabled: true },
    },
    {
      name: "cpu",
      models: ["demo-caption"],
      pricePerHour: 0.35,
      precision: "int8",
      threads: 4,
      cache: { claimName: "engines" },
    },
  ],
  podDeletionCost: { enabled: true },
  serviceMonitor: { enabled: true, labels: { release: "prometheus" } },
  prometheusRule: { enabled: true, runbooks: "https://runbooks.example.com/capfleet" },
  dashboard: { enabled: true },
};

let sandbox: Sandbox;
let rendered = 0;
beforeAll(async () => {
  sandbox = await Sandbox.create();
});
afterAll(() => sandbox.cleanUp());

async function template(values: object): Promise<{ ok: boolean; text: string }> {
  const file = sandbox.path(`values-${++rendered}.yaml`);
  await writeFile(file, stringify(values));
  return helm(program!, "template", "fleet", CHART, "--namespace", "labels", "--values", file);
}

async function manifestsOf(values: object): Promise<Manifest[]> {
  const { ok, text } = await template(values);
  expect(ok, text).toBe(true);
  return parseAllDocuments(text).flatMap((document) => (document.toJS() as Manifest | null) ?? []);
}

const named = (manifests: Manifest[], kind: string, name: string) =>
  manifests.find((each) => each.kind === kind && each.metadata.name === name)!;
const workerOf = (manifests: Manifest[], pool: string) =>
  named(manifests, "Deployment", `fleet-capfleet-worker-${pool}`).spec.template.spec;

describe.skipIf(!program)("the chart", () => {
  test("renders what Kubernetes, KEDA and the Prometheus operator take, with no field that they don't know", async () => {
    const all = await manifestsOf(ALL);
    const least = await manifestsOf(LEAST);
    expect(new Set(all.map(({ kind }) => kind)).size).toBeGreaterThan(12);
    expect(await problems([...all, ...least])).toEqual([]);
    // What the check itself is worth.
    const wrong = structuredClone(named(all, "ScaledObject", "fleet-capfleet-worker-caption"));
    wrong.spec.minReplicas = 1;
    expect(await problems([wrong])).toEqual([expect.stringContaining("minReplicas")]);
  });

  test("lets nothing run as root, write to its image or hold a secret, in any pod", async () => {
    const pods = (await manifestsOf(ALL))
      .filter(({ kind }) => kind === "Deployment")
      .map(({ spec }) => spec.template.spec);
    expect(pods).toHaveLength(3);
    for (const { securityContext, containers } of pods) {
      expect(securityContext).toMatchObject({ runAsNonRoot: true, runAsUser: 1000 });
      const locked = { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ["ALL"] } };
      expect(containers[0].securityContext).toMatchObject(locked);
      for (const { name, value } of containers[0].env)
        expect(`${name} ${value}`).not.toMatch(/(URL|KEY\w*) .*(:|secret)[^/]*@/);
    }
  });

  test("gives a pool on GPUs one each, a place on spot machines, and time to drain", async () => {
    const manifests = await manifestsOf(ALL);
    const { containers, tolerations, terminationGracePeriodSeconds } = workerOf(manifests, "caption");
    const [worker] = containers;
    expect(worker.image).toBe("registry.example.com/ml/capfleet-worker:0.1.0-cuda");
    expect(worker.args).toEqual([
      "--models=Salesforce/blip-image-captioning-base,s3://models/itm/",
      "--device=cuda",
      "--slots=2",
    ]);
    expect(worker.resources.limits).toMatchObject({ "nvidia.com/gpu": 1, memory: "8Gi" });
    expect(tolerations.map(({ key }: { key: string }) => key)).toEqual(
      expect.arrayContaining(["nvidia.com/gpu", "cloud.google.com/gke-spot"]),
    );
    const grace = worker.env.find(({ name }: { name: string }) => name === "CAPFLEET_GRACE_SECONDS").value;
    expect([grace, terminationGracePeriodSeconds]).toEqual(["60", 75]);

    const cpu = workerOf(manifests, "cpu");
    expect(cpu.containers[0].resources.limits).not.toHaveProperty(["nvidia.com/gpu"]);
    expect(cpu.tolerations).toEqual([]);
  });

  test("asks the API how many workers are wanted for exactly a pool's models, and leaves their number to KEDA", async () => {
    const manifests = await manifestsOf(ALL);
    const { spec } = named(manifests, "ScaledObject", "fleet-capfleet-worker-caption");
    const { url, valueLocation, targetValue } = spec.triggers[0].metadata;
    const asked = new URL(url);
    const service = named(manifests, "Service", "fleet-capfleet-producer");
    expect(asked.host).toBe(`${service.metadata.name}.labels.svc:${service.spec.ports[0].port}`);
    expect(asked.pathname).toBe("/v1/fleet/wanted");
    expect(asked.searchParams.get("models")).toBe("Salesforce/blip-image-captioning-base,s3://models/itm/");
    expect([valueLocation, targetValue]).toEqual(["wanted_workers", "1"]);
    expect(named(manifests, "Deployment", spec.scaleTargetRef.name).spec).not.toHaveProperty("replicas");
    expect(named(manifests, "Deployment", "fleet-capfleet-worker-cpu").spec.replicas).toBe(1);
  });

  test("lets workers note their deletion cost only where it is asked for", async () => {
    const has = (manifests: Manifest[]) => manifests.filter(({ kind }) => kind.startsWith("Role")).length;
    expect(has(await manifestsOf(ALL))).toBe(2);
    const without = await manifestsOf({ ...ALL, podDeletionCost: { enabled: false } });
    expect(has(without)).toBe(0);
    expect(workerOf(without, "cpu").automountServiceAccountToken).toBe(false);
  });

  test("has the alerts with the operator's own place of runbooks", async () => {
    const rules = named(await manifestsOf(ALL), "PrometheusRule", "fleet-capfleet").spec.groups[0].rules;
    for (const { alert, annotations } of rules) {
      expect(annotations.runbook_url).toBe(`https://runbooks.example.com/capfleet#${alert.toLowerCase()}`);
    }
  });

  test("passes helm's own lint", async () => {
    const file = sandbox.path("all.yaml");
    await writeFile(file, stringify(ALL));
    expect(await helm(program!, "lint", "--strict", CHART, "--values", file)).toMatchObject({ ok: true });
  });

  const pool = (more: object) => ({ ...LEAST, ...KEY, workers: [{ ...POOL, ...more }] });
  test.each<[string, object, RegExp]>([
    ["no values at all", {}, /state|registry/],
    ["a state in a folder", { ...LEAST, state: "/var/lib/capfleet" }, /\/state/],
    ["no Redis user for workers", { ...LEAST, redis: { producer: LEAST.redis.producer } }, /worker/],
    ["a misspelt value", { ...LEAST, worker: [] }, /'worker' not allowed/],
    ["a misspelt value of a pool", pool({ gracePeriod: 10 }), /gracePeriod/],
    ["a pool without models", pool({ models: [] }), /models/],
    ["a model in a folder", pool({ models: ["./blip"] }), /models/],
    ["two models as one", pool({ models: ["a/b,c/d"] }), /models/],
    ["two pools of one name", { ...LEAST, workers: [POOL, POOL] }, /the pool caption is there twice/],
    [
      "a grace period shorter than the drain",
      pool({ terminationGracePeriodSeconds: 60 }),
      /drains for graceSeconds, 60/,
    ],
    [
      "a drain longer than a spot machine's notice",
      pool({ spot: { enabled: true, noticeSeconds: 30 } }),
      /graceSeconds may be 15/,
    ],
    ["8 bits on a GPU", pool({ device: "cuda", precision: "int8" }), /int8 is a precision for a CPU/],
    [
      "more workers at least than at most",
      pool({ autoscaling: { enabled: true, minReplicas: 9, maxReplicas: 3 } }),
      /minReplicas/,
    ],
    ["autoscaling without a key", { ...LEAST, workers: [{ ...POOL, autoscaling: { enabled: true } }] }, /apiKey/],
    ["a budget that keeps nodes for ever", pool({ podDisruptionBudget: { maxUnavailable: 0 } }), /maxUnavailable/],
    ["a cache without a unit", pool({ cache: { sizeLimit: "20" } }), /sizeLimit/],
    [
      "a variable that the chart sets",
      { ...LEAST, env: { CAPFLEET_STATE: "s3://other/" } },
      /propertyName 'CAPFLEET_STATE'/,
    ],
    [
      "an API on the internet in the clear",
      { ...LEAST, producer: { ingress: { enabled: true, host: "a.example.com" } } },
      /tlsSecretName/,
    ],
    ["scraping without a key", { ...LEAST, serviceMonitor: { enabled: true } }, /apiKey/],
  ])("refuses %s", async (_, values, why) => {
    const { ok, text } = await template(values);
    expect({ ok, text }).toMatchObject({ ok: false, text: expect.stringMatching(why) });
  });
});

/** By the schemas of those who would take them, and by their types, which know of no other fields. */
async function problems(manifests: Manifest[]): Promise<string[]> {
  const found: string[] = [];
  const lines: string[] = [];
  for (const [n, manifest] of manifests.entries()) {
    const { apiVersion, kind, metadata } = manifest;
    const source = packageOf(apiVersion);
    const models = (await import(source)) as Record<string, new (data: Manifest) => { validate(): void }>;
    try {
      new models[kind]!(manifest).validate();
    } catch (thrown) {
      found.push(`${kind} ${metadata.name}: ${(thrown as Error).message}`);
    }
    lines.push(`import type { I${kind} as T${n} } from "${source}";`);
    lines.push(`export const manifest${n}: T${n} = ${JSON.stringify(manifest, null, 1)};`);
  }
  // Below the repo, so that the packages are found from there.
  const folder = join(REPO, ".cache", `manifests-${process.pid}`);
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, "manifests.ts"), lines.join("\n"));
  const options = ["--ignoreConfig", "--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--types", ""];
  try {
    execFileSync("tsc", [...options, join(folder, "manifests.ts")], { encoding: "utf8" });
  } catch (thrown) {
    found.push(String((thrown as { stdout: string }).stdout));
  }
  await rm(folder, { recursive: true });
  return found;
}

function packageOf(apiVersion: string): string {
  if (apiVersion.startsWith("keda.sh/")) return `@kubernetes-models/keda/${apiVersion}`;
  if (apiVersion.startsWith("monitoring.coreos.com/")) return `@kubernetes-models/prometheus-operator/${apiVersion}`;
  return `kubernetes-models/${apiVersion}`;
}
