// Runs a TypeScript entry point on Node 24, which runs .ts files as they are. Where the shell's own node is older, it
// hands over to the one that `npm run setup` installed, with the same arguments, terminal, signals and exit code.
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import module from "node:module";
import { constants } from "node:os";
import { fileURLToPath } from "node:url";

const OURS = fileURLToPath(new URL("../node_modules/node/bin/node", import.meta.url));

/** @param {URL} entry a .ts module that runs when imported */
export async function main(entry) {
  if (Number(process.versions.node.split(".")[0]) >= 24) {
    module.enableCompileCache();
    return void (await import(entry.href));
  }
  if (!existsSync(OURS)) {
    console.error(
      `capfleet needs Node 24 or newer; this is ${process.version}. Run \`npm run setup\`: it brings its own.`,
    );
    process.exit(1);
  }
  const child = spawn(OURS, [fileURLToPath(entry), ...process.argv.slice(2)], { stdio: "inherit" });
  // A terminal signals the whole process group; forwarding covers `kill` of this process alone.
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
  child.on("exit", (code, signal) => process.exit(code ?? 128 + (constants.signals[signal] ?? 0)));
}
