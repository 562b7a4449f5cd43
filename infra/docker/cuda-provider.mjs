// Puts the libraries that onnxruntime needs for NVIDIA GPUs beside its own. npm's package leaves them out for their size,
// and its install script takes them from NuGet unchecked; this takes the same files of the same version, by SHA-256.
//   node cuda-provider.mjs <package that depends on onnxruntime-node> <NuGet flat container URL> <SHA-256>
import { createHash } from "node:crypto";
import { writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, dirname, join, resolve } from "node:path";

const [dependent, url, wanted = ""] = process.argv.slice(2);
const ofDependent = createRequire(resolve(dependent, "package.json"));
const script = join(dirname(ofDependent.resolve("onnxruntime-node")), "../script/install.js");
const ofRuntime = createRequire(script);
const { manifests, packages } = ofRuntime("./install-metadata.js");
const AdmZip = ofRuntime("adm-zip");

// TensorRT's provider is among them too, and needs libraries that no image here has: capfleet never asks for it.
const files = Object.entries(manifests["linux/x64:cuda12"]).filter(([name]) => !name.includes("tensorrt"));
const { name, versions } = packages[files[0][1].package];
const version = versions.find(({ feed }) => feed === "nuget").version;
const id = name.toLowerCase();
const source = `${url}/${id}/${version}/${id}.${version}.nupkg`;

const answer = await fetch(source);
if (!answer.ok) fail(`${source}: ${answer.status} ${answer.statusText}`);
const bytes = Buffer.from(await answer.arrayBuffer());
const found = createHash("sha256").update(bytes).digest("hex");
if (wanted === "")
  fail(`${source} has the SHA-256 ${found}: compare it with a copy that you trust, and give it as ORT_GPU_SHA256`);
if (found !== wanted.toLowerCase()) fail(`${source} has the SHA-256 ${found}, not ${wanted}`);

const archive = new AdmZip(bytes);
for (const [file, { path }] of files) {
  const entry = archive.getEntry(path) ?? fail(`${source} has no ${path}`);
  const target = join(dirname(script), "../bin/napi-v6/linux/x64", basename(file));
  writeFileSync(target, entry.getData(), { mode: 0o755 });
  console.log(`${target} (${name} ${version})`);
}

function fail(message) {
  console.error(message);
  process.exit(1);
}
