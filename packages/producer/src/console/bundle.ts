/** The console's files, made from web/ when they are first asked for, and kept in memory: nobody has anything to build. */
import { createHash } from "node:crypto";
import { basename, extname } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { brotliCompress, gzip } from "node:zlib";

const TYPES: Record<string, string> = {
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
  ".html": "text/html; charset=utf-8",
};

export interface Asset {
  /** Of a file that the page names: with a digest of what is in it. */
  name: string;
  type: string;
  etag: string;
  plain: Buffer;
  gzip: Buffer;
  br: Buffer;
}

export interface Bundle {
  page: Asset;
  files: ReadonlyMap<string, Asset>;
}

/** `base`: where the page finds its files. */
export async function bundleConsole(base: string): Promise<Bundle> {
  // Only where somebody opens the console.
  const { build, stop } = await import("esbuild");
  const web = fileURLToPath(new URL("web/", import.meta.url));
  const { outputFiles } = await build({
    absWorkingDir: web,
    entryPoints: ["main.tsx", "icon.svg"],
    entryNames: "[name]-[hash]",
    outdir: "/",
    write: false,
    bundle: true,
    minify: true,
    format: "esm",
    target: ["es2023", "chrome123", "firefox121", "safari17.5"],
    jsx: "automatic",
    jsxImportSource: "preact",
    // The one beside the files is for tsc, and extends one that a deployment does not have.
    tsconfigRaw: {},
    loader: { ".svg": "copy" },
    legalComments: "none",
    logLevel: "silent",
  });
  // It would keep a process of its own for the next one.
  await stop();
  const files = new Map<string, Asset>();
  for (const { path, contents } of outputFiles) {
    const name = basename(path);
    files.set(name, await assetOf(name, Buffer.from(contents)));
  }
  const named = (ending: string) => base + [...files.keys()].find((name) => name.endsWith(ending))!;
  const page = pageOf(named(".js"), named(".css"), named(".svg"));
  return { page: await assetOf("index.html", Buffer.from(page)), files };
}

async function assetOf(name: string, plain: Buffer): Promise<Asset> {
  const [zipped, br] = await Promise.all([promisify(gzip)(plain, { level: 9 }), promisify(brotliCompress)(plain)]);
  const etag = `"${createHash("sha256").update(plain).digest("base64url").slice(0, 22)}"`;
  return { name, type: TYPES[extname(name)]!, etag, plain, gzip: zipped, br };
}

const pageOf = (script: string, style: string, icon: string) => `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1, viewport-fit=cover">
<meta name="color-scheme" content="light dark">
<title>capfleet</title>
<link rel="icon" href="${icon}" type="image/svg+xml">
<link rel="stylesheet" href="${style}">
<script type="module" src="${script}"></script>
</head>
<body>
<div id="app"></div>
<noscript>The console needs JavaScript. Everything that it does, <code>capfleet --help</code> and <a href="/docs">the API</a> do as well.</noscript>
</body>
</html>
`;
