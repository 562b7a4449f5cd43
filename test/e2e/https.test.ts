/** A manifest of images on the web: from a real TLS server on this machine, through real processes. */
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { TestFleet } from "../support/fleet.ts";
import { capfleet, DEMO, Sandbox } from "../support/processes.ts";
import { expectWhole } from "../support/rows.ts";
import { CERTIFICATE, type TlsServer, tlsServer } from "../support/tls/server.ts";

interface Sample {
  image: string;
  alt: string;
}

let sandbox: Sandbox;
let server: TlsServer;
let fleet: TestFleet;
let samples: Sample[];

beforeAll(async () => {
  sandbox = await Sandbox.create();
  // The demo's images; /moved leads to them, /inside to where only this machine can look, and all else is missing.
  server = await tlsServer(async ({ url }, response) => {
    const path = url!.replace("/moved", "");
    if (url === "/inside") response.writeHead(302, { location: "https://169.254.169.254/latest/meta-data/" }).end();
    else if (url !== path) response.writeHead(301, { location: path }).end();
    else
      await readFile(join(DEMO, path))
        .then((bytes) => response.end(bytes))
        .catch(() => response.writeHead(404).end());
  });
  sandbox.atEnd(server.close);
  const settings = { CAPFLEET_HTTPS_HOSTS: "localhost,169.254.169.254", CAPFLEET_HTTPS_NETWORKS: "127.0.0.0/8" };
  const more = { ...settings, NODE_EXTRA_CA_CERTS: CERTIFICATE };
  fleet = await TestFleet.start(sandbox, ["demo-caption", "demo-itm"], [], more);
  const lines = (await readFile(join(DEMO, "samples.jsonl"), "utf8")).trimEnd().split("\n");
  samples = lines.slice(0, 6).map((line) => JSON.parse(line) as Sample);
});
afterAll(() => sandbox.cleanUp());

async function manifest(name: string, images: string[]): Promise<string> {
  const lines = images.map((image, i) => JSON.stringify({ image, alt: samples[i % samples.length]!.alt }));
  await writeFile(sandbox.path(name), lines.join("\n"));
  return sandbox.path(name);
}

test("rows are those of the same files on a disk; what is wrong on the web is the row's error", async () => {
  const good = samples.map(({ image }) => `${server.origin}/${image}`);
  const port = server.port;
  const odd: [string, string][] = [
    [`${server.origin}/moved/${samples[0]!.image}`, ""],
    [`${server.origin}/nothing.jpg`, "IMAGE_NOT_FOUND"],
    [`${server.origin}/inside`, "IMAGE_HTTPS_FORBIDDEN"],
    [`https://127.0.0.2:${port}/x.jpg`, "IMAGE_HTTPS_FORBIDDEN"],
    [`${server.origin}/samples.jsonl`, "IMAGE_UNREADABLE"],
  ];
  const web = await manifest("web.jsonl", [...good, ...odd.map(([image]) => image)]);
  const files = await manifest(
    "files.jsonl",
    samples.map(({ image }) => join(DEMO, image)),
  );
  const rows = await fleet.rowsOf("caption", web, good.length + odd.length);
  const expected = await fleet.rowsOf("caption", files, samples.length);
  expect(rows.slice(0, 6).map(({ caption }) => caption)).toEqual(expected.map(({ caption }) => caption));
  expect(rows.slice(0, 6).map(({ image }) => image)).toEqual(good);
  expect(rows[6]!.caption).toBe(rows[0]!.caption);
  expect(rows.slice(6).map(({ error }) => error?.code ?? "")).toEqual(odd.map(([, code]) => code));
});

test("without the settings the job is refused, and nothing is created or asked", async () => {
  const before = server.connections;
  const input = await manifest("refused.jsonl", [`${server.origin}/${samples[0]!.image}`]);
  const out = sandbox.path("refused");
  const { code, stderr } = await capfleet(sandbox.env(), "submit", "caption", input, "--out", out);
  expect(stderr).toMatch(/^INVALID_CONFIG: CAPFLEET_HTTPS_HOSTS .*https:\/\/localhost/m);
  expect(code).toBe(2);
  expect(existsSync(out)).toBe(false);
  expect(server.connections).toBe(before);

  const plain = await manifest("plain.jsonl", [`http://localhost/${samples[0]!.image}`]);
  const http = await capfleet(fleet.env, "submit", "caption", plain, "--out", out);
  expect(http.stderr).toMatch(/^MANIFEST_INVALID: .* line 1: .*images on the web need https:/m);
  expect(existsSync(out)).toBe(false);
});

test("the report of a cleaned dataset shows its pictures", async () => {
  const input = await manifest(
    "clean.jsonl",
    samples.map(({ image }) => `${server.origin}/${image}`),
  );
  const out = sandbox.path("clean");
  await expectWhole(await fleet.finish("filter", input, "--text-column", "alt", "--out", out), samples.length);
  const page = await readFile(join(out, "report.html"), "utf8");
  expect(page.match(/<img alt="" src="data:image\/jpeg;base64,/g)).toHaveLength(samples.length);
});
