import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inspect } from "node:util";
import { afterEach, describe, expect, test } from "vitest";
import { FileStore, type StoreConfig, Stores, storesFromEnv } from "../../src/storage/index.ts";

const servers: Server[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
});

/** A server that tells what reached it: its name, host header, path and access key. */
async function echo(name: string): Promise<string> {
  const server = createServer((request, response) => {
    const key = /Credential=([^/]+)/.exec(request.headers.authorization ?? "")?.[1];
    const said = JSON.stringify([name, request.headers.host?.split(":")[0], request.url?.split("?")[0], key]);
    response.writeHead(200, { "content-length": Buffer.byteLength(said) }).end(said);
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

async function asked(stores: Stores, uri: string): Promise<string[]> {
  const { store, key } = stores.object(uri);
  return JSON.parse((await store.read(key)).bytes.toString());
}

describe("Stores", () => {
  test("at() makes a store of a prefix, object() finds an object's", () => {
    const stores = new Stores();
    expect(stores.at("/data/in").uri).toBe("file:///data/in/");
    expect(stores.at("file:///data/in/").uri).toBe("file:///data/in/");
    expect(stores.at("s3://bucket").uri).toBe("s3://bucket/");
    expect(stores.at("s3://bucket/in").uri).toBe("s3://bucket/in/");
    expect(stores.at("s3://bucket/in/").uri).toBe("s3://bucket/in/");
    expect(stores.at(".")).toBeInstanceOf(FileStore);
    for (const uri of ["s3://bucket/a b?#%20.jpg", "file:///data/a%20b%3F.jpg"]) {
      const { store, key } = stores.object(uri);
      expect(store.uriOf(key)).toBe(uri);
    }
    expect(() => stores.at("gs://bucket/in")).toThrow(expect.objectContaining({ code: "INVALID_URI" }));
    expect(() => stores.object("s3://")).toThrow(expect.objectContaining({ code: "INVALID_URI" }));
  });

  test("the longest prefix that fits decides about endpoint and credentials", async () => {
    const [first, second, other] = [await echo("first"), await echo("second"), await echo("other")];
    const stores = new Stores(
      [
        { prefix: "s3://bucket", endpoint: first, accessKeyId: "one", secretAccessKey: "x" },
        { prefix: "s3://bucket/deep/er", endpoint: second, accessKeyId: "three", secretAccessKey: "x" },
        { prefix: "s3://bucket/deep/", accessKeyId: "two", secretAccessKey: "x" },
      ],
      { endpoint: other, region: "us-east-1", accessKeyId: "default", secretAccessKey: "x" },
    );
    expect(await asked(stores, "s3://bucket/x")).toEqual(["first", "127.0.0.1", "/bucket/x", "one"]);
    expect(await asked(stores, "s3://bucket/deeper/x")).toEqual(["first", "127.0.0.1", "/bucket/deeper/x", "one"]);
    expect(await asked(stores, "s3://bucket/deep/x")).toEqual(["other", "127.0.0.1", "/bucket/deep/x", "two"]);
    expect(await asked(stores, "s3://bucket/deep/er/x")).toEqual(["second", "127.0.0.1", "/bucket/deep/er/x", "three"]);
    expect(await asked(stores, "s3://bucket2/x")).toEqual(["other", "127.0.0.1", "/bucket2/x", "default"]);
    const { bytes } = await stores.at("s3://bucket/deep/er").read("x");
    expect(JSON.parse(bytes.toString())).toEqual(["second", "127.0.0.1", "/bucket/deep/er/x", "three"]);
    stores.close();
  });

  test("pathStyle: false puts the bucket into the host's name", async () => {
    const endpoint = (await echo("it")).replace("127.0.0.1", "localhost");
    const keys = { endpoint, accessKeyId: "key", secretAccessKey: "x" };
    const path = new Stores([{ prefix: "s3://bucket/", ...keys }]);
    expect(await asked(path, "s3://bucket/x")).toEqual(["it", "localhost", "/bucket/x", "key"]);
    const host = new Stores([{ prefix: "s3://bucket/", ...keys, pathStyle: false }]);
    const answer = await asked(host, "s3://bucket/x").catch((error: Error) => error.message);
    // Whether *.localhost leads anywhere is the resolver's affair; the name is what counts.
    if (typeof answer === "string") expect(answer).toContain("bucket.localhost");
    else expect(answer).toEqual(["it", "bucket.localhost", "/x", "key"]);
  });

  test("doesn't show secrets when printed", () => {
    const stores = new Stores([{ prefix: "s3://bucket/", accessKeyId: "key", secretAccessKey: "hush-hush" }]);
    const shown =
      inspect([stores, stores.at("s3://bucket/")], { depth: 10, showHidden: true }) + JSON.stringify(stores);
    expect(shown).not.toContain("hush-hush");
  });
});

describe("storesFromEnv", () => {
  test("reads an inline array, or a file", async () => {
    const folder = await mkdtemp(join(tmpdir(), "capfleet-stores-"));
    const config = JSON.stringify([
      { prefix: "s3://bucket/", endpoint: await echo("it"), accessKeyId: "key", secretAccessKey: "x" },
    ]);
    await writeFile(join(folder, "stores.json"), config);
    for (const setting of [config, ` ${config}\n`, join(folder, "stores.json")]) {
      const stores = storesFromEnv({ CAPFLEET_STORES: setting });
      expect(await asked(stores, "s3://bucket/x")).toEqual(["it", "127.0.0.1", "/bucket/x", "key"]);
    }
    await rm(folder, { recursive: true });
  });

  test.each<[string, string | object, string]>([
    ["no JSON", '[{"prefix": "s3://b/", "secretAccessKey": "hush-hush" oops}]', "is not JSON"],
    ["an object", { prefix: "s3://b/", secretAccessKey: "hush-hush" }, "expected array"],
    ["an unknown setting", [{ prefix: "s3://b/", secretkey: "hush-hush" }], "[0]: Unrecognized key"],
    ["no prefix", [{ accessKeyId: "key", secretAccessKey: "hush-hush" }], "[0].prefix"],
    ["a prefix of another kind", [{ prefix: "file:///data" }], "[0].prefix: must be s3://bucket/"],
    ["a prefix without a bucket", [{ prefix: "s3:///x" }], "names no bucket"],
    ["half a key", [{ prefix: "s3://b/", secretAccessKey: "hush-hush" }], "go together"],
    ["a token alone", [{ prefix: "s3://b/", sessionToken: "hush-hush" }], "sessionToken needs"],
    [
      "keys and profile",
      [{ prefix: "s3://b/", accessKeyId: "k", secretAccessKey: "hush-hush", profile: "p" }],
      "exclude",
    ],
    ["an endpoint that is none", [{ prefix: "s3://b/", endpoint: "minio:9000" }], "[0].endpoint: must be an http"],
    [
      "credentials in the endpoint",
      [{ prefix: "s3://b/", endpoint: "http://me:hush-hush@host" }],
      "must not hold credentials",
    ],
    [
      "a secret of another type",
      [{ prefix: "s3://b/", accessKeyId: "k", secretAccessKey: 12345678 }],
      "[0].secretAccessKey",
    ],
    ["two entries for a prefix", [{ prefix: "s3://b/x" }, { prefix: "s3://b/x/" }], "two entries for s3://b/x/"],
    ["a file that isn't there", "/no/such/stores.json", "the file /no/such/stores.json can't be read (ENOENT)"],
  ])("refuses %s", (_, setting, why) => {
    const CAPFLEET_STORES = typeof setting === "string" ? setting : JSON.stringify(setting);
    const error = thrownBy(() => storesFromEnv({ CAPFLEET_STORES }));
    expect(error).toMatchObject({ code: "INVALID_CONFIG", message: expect.stringContaining(why) });
    expect(error.message).toMatch(/^CAPFLEET_STORES/);
    expect(inspect(error)).not.toMatch(/hush-hush|12345678/);
  });

  test("refuses an endpoint variable that is no URL", () => {
    const error = thrownBy(() => storesFromEnv({ AWS_ENDPOINT_URL: "minio:9000" }));
    expect(error).toMatchObject({ code: "INVALID_CONFIG", message: expect.stringContaining("AWS_ENDPOINT_URL") });
  });

  test("an entry's own settings go before the environment's", async () => {
    const [own, environment] = [await echo("own"), await echo("environment")];
    const keys = { accessKeyId: "key", secretAccessKey: "x" };
    const configs: StoreConfig[] = [
      { prefix: "s3://a/", endpoint: own, ...keys },
      { prefix: "s3://b/", ...keys },
    ];
    const stores = storesFromEnv({ CAPFLEET_STORES: JSON.stringify(configs), AWS_ENDPOINT_URL_S3: environment });
    expect((await asked(stores, "s3://a/x"))[0]).toBe("own");
    expect((await asked(stores, "s3://b/x"))[0]).toBe("environment");
  });
});

function thrownBy(run: () => unknown): Error {
  try {
    run();
  } catch (error) {
    return error as Error;
  }
  throw new Error("nothing was thrown");
}
