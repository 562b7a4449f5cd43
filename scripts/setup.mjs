// Installs what the repo needs, and nothing else: Node 24 and every dependency through pnpm, and a Redis server where
// there is none. Runs on any Node >= 20. Does nothing when nothing changed, so that later runs work offline.
import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const forTests = process.argv.includes("--test");
const say = (line) => process.stderr.write(`setup: ${line}\n`);

installPackages();
installRedis();
if (forTests) installTestServers();

function installPackages() {
  const inputs = ["package.json", "pnpm-lock.yaml", "pnpm-workspace.yaml"].map((name) => join(root, name));
  for (const name of ["shared", "producer", "worker"]) inputs.push(join(root, "packages", name, "package.json"));
  const digest = createHash("sha256");
  for (const file of inputs) digest.update(readFileSync(file));
  const wanted = `${digest.digest("hex")} ${process.platform}-${process.arch}\n`;
  const stamp = join(root, "node_modules", ".capfleet-setup");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === wanted) return;

  const versions = readFileSync(join(root, "pnpm-workspace.yaml"), "utf8");
  const [pnpm, node] = ["pnpm", "node"].map((name) => versions.match(new RegExp(`^ {2}${name}: (\\d\\S+)$`, "m"))[1]);
  say(`installing packages with pnpm ${pnpm}`);
  // They run on the Node that is among them, not on the one that runs this: nothing is wrong with what wants a newer one.
  const install = ["pnpm", "install", "--frozen-lockfile", `--config.node-version=${node}`];
  const args = ["exec", "--yes", `--package=pnpm@${pnpm}`, "--", ...install];
  run("npm", args, { ONNXRUNTIME_NODE_INSTALL: "skip", CI: "true" });
  writeFileSync(stamp, wanted);
}

function installRedis() {
  if (process.env.CAPFLEET_REDIS_URL || onPath("redis-server") || onPath("valkey-server")) return;
  if (canApt()) return apt(["redis-server"]);
  // Without root: the npm package redis-memory-server fetches and builds one when it is first needed.
  say("no redis-server or valkey-server on PATH: the npm package redis-memory-server will be used");
}

/**
 * A real S3 server for the storage tests, Ceph's RADOS Gateway, and a real browser for the console's. Without root those
 * tests are skipped, and say so.
 */
function installTestServers() {
  if (!canApt()) return;
  if (!process.env.CAPFLEET_TEST_S3_ENDPOINT && !onPath("radosgw"))
    apt(["radosgw", "ceph-mon", "ceph-osd", "ceph-common"]);
  const browsers = ["chromium", "chromium-browser", "google-chrome"];
  if (!process.env.CAPFLEET_TEST_CHROMIUM && !browsers.some(onPath)) apt(["chromium", "fonts-dejavu-core"]);
}

function canApt() {
  return process.getuid?.() === 0 && onPath("apt-get");
}

function apt(packages) {
  say(`installing ${packages.join(", ")} (Debian packages)`);
  const env = { DEBIAN_FRONTEND: "noninteractive" };
  const quiet = (args) => spawnSync("apt-get", args, { encoding: "utf8", env: { ...process.env, ...env } });
  let result = quiet(["install", "-y", "--no-install-recommends", ...packages]);
  if (result.status !== 0) {
    quiet(["update"]);
    result = quiet(["install", "-y", "--no-install-recommends", ...packages]);
  }
  if (result.status !== 0) say(`apt-get could not install them: ${result.stderr.trim().split("\n").at(-1)}`);
}

function onPath(name) {
  return (process.env.PATH ?? "").split(":").some((dir) => dir && existsSync(join(dir, name)));
}

function run(command, args, env) {
  try {
    execFileSync(command, args, { cwd: root, stdio: ["ignore", 2, 2], env: { ...process.env, ...env } });
  } catch {
    say(`\`${command} ${args.join(" ")}\` failed; its output is above`);
    process.exit(1);
  }
}
