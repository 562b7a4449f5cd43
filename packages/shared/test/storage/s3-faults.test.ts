/** What a server can do wrong, on a fake one (fake-server.ts). */
import { once } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";
import { Readable } from "node:stream";
import { afterEach, describe, expect, test } from "vitest";
import { probeConditionalWrites, type StoreConfig } from "../../src/storage/index.ts";
import { bodyChunks } from "../../src/storage/s3-body.ts";
import { type FakeServer, fakeServer, refuse } from "./fake-server.ts";

let server: FakeServer;
afterEach(() => server.close());

async function serve(
  answer: (request: IncomingMessage, response: ServerResponse, number: number) => void,
  config?: Partial<StoreConfig>,
) {
  server = await fakeServer(answer, config);
  return server.store;
}

const NAMED = { message: expect.stringContaining("s3://bucket/x") };

describe("a server that does not work is STORE_UNAVAILABLE", () => {
  const unavailable = { code: "STORE_UNAVAILABLE" };

  test("it accepts and answers nothing", async () => {
    const store = await serve(() => {}, { timeoutMs: 100 });
    const started = performance.now();
    await expect(store.read("x")).rejects.toMatchObject({ ...unavailable, ...NAMED });
    // Three attempts of 100 ms and two pauses, together under a second; the rest is for a busy machine.
    expect(performance.now() - started).toBeLessThan(10_000);
    expect(server.requests.length).toBeLessThanOrEqual(3);
    await expect(store.put("x", "x")).rejects.toMatchObject(unavailable);
    await expect(store.stat("x")).rejects.toMatchObject(unavailable);
    await expect(store.delete("x")).rejects.toMatchObject(unavailable);
    await expect(store.putStream("x", body())).rejects.toMatchObject(unavailable);
    await expect(listAll(store)).rejects.toMatchObject(unavailable);
  });

  test.each([
    ["S3's own 503", (response: ServerResponse) => refuse(response, 503, "ServiceUnavailable")],
    ["a proxy's page", (response: ServerResponse) => response.writeHead(502).end("<html><body>Bad Gateway</body>")],
    ["no body", (response: ServerResponse) => response.writeHead(500).end()],
    ["a broken connection", (response: ServerResponse) => response.destroy()],
  ])("it answers with %s", async (_, answer) => {
    const store = await serve((_request, response) => answer(response));
    await expect(store.read("x")).rejects.toMatchObject({ ...unavailable, ...NAMED });
    expect(server.requests).toHaveLength(3);
    await expect(store.stat("x")).rejects.toMatchObject(unavailable);
    await expect(store.putIfAbsent("x", "x")).rejects.toMatchObject(unavailable);
    await expect(listAll(store)).rejects.toMatchObject(unavailable);
  });

  test("nobody listens", async () => {
    const store = await serve(() => {});
    await server.close();
    await expect(store.read("x")).rejects.toMatchObject({
      ...unavailable,
      message: expect.stringContaining("ECONNREFUSED"),
    });
  });

  test("a body breaks off, again and again", async () => {
    const store = await serve((_, response) => {
      response.writeHead(200, { "content-length": 100, etag: '"e"' });
      response.write("only this", () => response.destroy());
    });
    await expect(store.read("x")).rejects.toMatchObject({
      ...unavailable,
      message: expect.stringContaining("9 of 100 bytes"),
    });
    const { body } = await store.stream("x");
    await expect(drain(body)).rejects.toMatchObject(unavailable);
  });

  test("a body stalls", async () => {
    const store = await serve(
      (_, response) => {
        response.writeHead(200, { "content-length": 100, etag: '"e"' });
        response.write("only this");
      },
      { timeoutMs: 300 },
    );
    await expect(store.read("x")).rejects.toMatchObject({
      ...unavailable,
      message: expect.stringContaining("no bytes for 300 ms"),
    });
    const { body } = await store.stream("x");
    await expect(drain(body)).rejects.toMatchObject(unavailable);
  });

  test("it ignores the range", async () => {
    const store = await serve((_, response) => response.writeHead(200, { etag: '"e"' }).end("all of it"));
    await expect(store.stream("x", { range: { start: 4 } })).rejects.toMatchObject({ ...unavailable, ...NAMED });
  });

  test("it is no S3 server", async () => {
    const store = await serve((_, response) => response.writeHead(200).end("<html><body>Welcome</body></html>"));
    await expect(listAll(store)).rejects.toMatchObject({
      ...unavailable,
      message: expect.stringContaining("check the endpoint"),
    });
  });
});

test("a body that breaks off once is read again", async () => {
  const store = await serve((_, response, number) => {
    response.writeHead(200, { "content-length": 5, etag: '"e"' });
    if (number === 0) response.write("he", () => response.destroy());
    else response.end("hello");
  });
  expect((await store.read("x")).bytes.toString()).toBe("hello");
});

test("a body that is too large is not read", async () => {
  let written = 0;
  const store = await serve((_, response) => {
    response.writeHead(200, { "content-length": 1e9 });
    const more = () => {
      while (response.write(Buffer.alloc(65536))) written += 65536;
    };
    response.on("drain", more);
    more();
  });
  await expect(store.read("x", { maxBytes: 1000 })).rejects.toMatchObject({ code: "OBJECT_TOO_LARGE" });
  expect(written).toBeLessThan(50e6);
});

test("a body that is left in the middle gives its connection back", async () => {
  let closed: Promise<unknown> | undefined;
  const store = await serve((_, response) => {
    closed = once(response, "close");
    response.writeHead(200, { "content-length": 1e9 });
    response.write("some of it");
  });
  for await (const _ of (await store.stream("x")).body) break;
  await closed;
});

test("a body that breaks off before anybody reads it, or is aborted then, fails when it is read", async () => {
  let cut = () => {};
  const store = await serve((_, response) => {
    response.writeHead(200, { "content-length": 1e9 });
    response.write("some of it");
    cut = () => response.destroy();
  });
  const first = await store.stream("x");
  cut();
  await expect(drain(first.body)).rejects.toMatchObject({ code: "STORE_UNAVAILABLE" });

  const control = new AbortController();
  const reason = new Error("enough");
  const second = await store.stream("x", { signal: control.signal });
  control.abort(reason);
  await expect(drain(second.body)).rejects.toBe(reason);
});

test("a body's error that nobody waits for ends nothing", async () => {
  server = await fakeServer(() => {});
  const lost = new Readable({ read() {} });
  const chunks = bodyChunks(lost, { uri: "s3://bucket/x", length: 5, stallMs: 1000 });
  lost.destroy(new Error("connection lost"));
  await new Promise<void>((resolve) => lost.once("close", resolve));
  await expect(drain(chunks)).rejects.toMatchObject({ code: "STORE_UNAVAILABLE" });
});

test("a reader that is slow is no stalled server", async () => {
  const store = await serve(
    (_, response) => response.writeHead(200, { "content-length": 3e6 }).end(Buffer.alloc(3e6)),
    { timeoutMs: 300 },
  );
  const { body } = await store.stream("x");
  let size = 0;
  for await (const chunk of body) {
    // Longer than the timeout, once: until the condition (time passed) holds, nothing is asked of the body.
    if (size === 0) await new Promise((resolve) => setTimeout(resolve, 700));
    size += chunk.byteLength;
  }
  expect(size).toBe(3e6);
});

describe("refusals", () => {
  test.each([
    [403, "AccessDenied", "STORE_ACCESS_DENIED"],
    [403, "AllAccessDisabled", "STORE_ACCESS_DENIED"],
    [403, "InvalidAccessKeyId", "STORE_CREDENTIALS"],
    [403, "SignatureDoesNotMatch", "STORE_CREDENTIALS"],
    [403, "RequestTimeTooSkewed", "STORE_CREDENTIALS"],
    [400, "ExpiredToken", "STORE_CREDENTIALS"],
    [400, "InvalidToken", "STORE_CREDENTIALS"],
    [401, "Unauthorized", "STORE_CREDENTIALS"],
    [403, "InvalidObjectState", "OBJECT_NOT_FOUND"],
    [404, "NoSuchKey", "OBJECT_NOT_FOUND"],
    [404, "NoSuchBucket", "STORE_BUCKET_NOT_FOUND"],
    [400, "InvalidBucketName", "INVALID_URI"],
    [400, "SomethingElse", "STORE_UNAVAILABLE"],
  ])("%i %s is %s", async (status, name, code) => {
    const store = await serve((_, response) => refuse(response, status, name, "said the server"));
    await expect(store.read("x")).rejects.toMatchObject({
      code,
      message: `s3://bucket/x: ${status} ${name} said the server`,
    });
    if (code !== "OBJECT_NOT_FOUND") await expect(listAll(store)).rejects.toMatchObject({ code });
  });

  test("HEAD has no body: GET tells what a 403 or 400 means", async () => {
    for (const [status, name, code] of [
      [403, "AccessDenied", "STORE_ACCESS_DENIED"],
      [403, "SignatureDoesNotMatch", "STORE_CREDENTIALS"],
      [400, "ExpiredToken", "STORE_CREDENTIALS"],
    ] as const) {
      const store = await serve((request, response) =>
        request.method === "HEAD" ? response.writeHead(status).end() : refuse(response, status, name),
      );
      await expect(store.stat("x")).rejects.toMatchObject({ code });
      await server.close();
    }
  });

  test("the server's markup and nobody's secret is in the message", async () => {
    const store = await serve((_, response) => response.writeHead(403).end("<html>"), { secretAccessKey: "hush-hush" });
    const error = await store.read("x").then(
      () => undefined,
      (thrown: Error) => thrown,
    );
    expect(error).toMatchObject({ code: "STORE_ACCESS_DENIED" });
    expect(error?.message).not.toContain("\n");
    expect(error?.message).not.toContain("hush-hush");
  });
});

describe("listing", () => {
  const page = (keys: string[], next?: string) =>
    `<?xml version="1.0"?><ListBucketResult><Name>bucket</Name><EncodingType>url</EncodingType><IsTruncated>${next !== undefined}</IsTruncated>${next === undefined ? "" : `<NextContinuationToken>${next}</NextContinuationToken>`}${keys.map((key) => `<Contents><Key>${key}</Key><Size>1</Size><ETag>&quot;e&quot;</ETag></Contents>`).join("")}</ListBucketResult>`;

  test("a store that lists unsorted, also across pages, is refused", async () => {
    for (const pages of [[["b", "a"]], [["a", "c"], ["b"]], [["%F0%9F%98%80", "%EF%BD%9E"]], [["a"], ["a"]]]) {
      const store = await serve((_, response, number) =>
        response.end(page(pages[number]!, number + 1 < pages.length ? "next" : undefined)),
      );
      await expect(listAll(store)).rejects.toMatchObject({ code: "STORE_UNSORTED" });
      await server.close();
    }
  });

  test("decodes either spelling of a space", async () => {
    const store = await serve((_, response) => response.end(page(["a+b%2Bc%20d"])));
    expect(await listAll(store)).toEqual(["a b+c d"]);
    expect(server.requests[0]?.url).toContain("encoding-type=url");
  });

  test("doesn't pass over a key that is not UTF-8", async () => {
    const store = await serve((_, response) => response.end(page(["caf%E9"])));
    await expect(listAll(store)).rejects.toMatchObject({
      code: "INVALID_URI",
      message: expect.stringContaining("caf%E9"),
    });
  });

  test("a server that goes round in circles is refused", async () => {
    const store = await serve((_, response) => response.end(page([], "again")));
    await expect(listAll(store)).rejects.toMatchObject({ code: "STORE_UNAVAILABLE" });
    expect(server.requests).toHaveLength(2);
  });

  test("goes on by the token, and skips what comes before `after` where the server does not", async () => {
    const store = await serve((_, response, number) =>
      response.end(number === 0 ? page(["a", "b"], "to%2Bken") : page(["c", "d/", "e"])),
    );
    expect(await listAll(store, "a")).toEqual(["b", "c", "e"]);
    expect(server.requests[0]?.url).toContain("start-after=a");
    expect(server.requests[1]?.url).toContain("continuation-token=to%252Bken");
  });
});

describe("conditional writes", () => {
  test("a conflict with another write (409) is sent again", async () => {
    const store = await serve((_, response, number) =>
      number < 2 ? refuse(response, 409, "ConditionalRequestConflict") : response.writeHead(200, { etag: '"e"' }).end(),
    );
    expect(await store.putIfAbsent("x", "x")).toEqual({ outcome: "written", etag: "e" });
    await server.close();
    const hopeless = await serve((_, response) => refuse(response, 409, "ConditionalRequestConflict"));
    await expect(hopeless.putIfMatch("x", "x", "e")).rejects.toMatchObject({ code: "STORE_UNAVAILABLE" });
  });

  test("404 to If-Match is a change, unless the bucket is missing", async () => {
    const store = await serve((_, response) => refuse(response, 404, "NoSuchKey"));
    expect(await store.putIfMatch("x", "x", "e")).toEqual({ outcome: "changed" });
    await server.close();
    const nowhere = await serve((_, response) => refuse(response, 404, "NoSuchBucket"));
    await expect(nowhere.putIfMatch("x", "x", "e")).rejects.toMatchObject({ code: "STORE_BUCKET_NOT_FOUND" });
    await expect(nowhere.putIfAbsent("x", "x")).rejects.toMatchObject({ code: "STORE_BUCKET_NOT_FOUND" });
  });

  test("a write whose answer got lost has happened", async () => {
    let mark: string | undefined;
    const store = await serve((request, response, number) => {
      if (number === 0) {
        mark = request.headers["x-amz-meta-capfleet-write"] as string;
        response.destroy();
      } else if (request.method === "HEAD")
        response.writeHead(200, { etag: '"e"', "x-amz-meta-capfleet-write": mark }).end();
      else refuse(response, 412, "PreconditionFailed");
    });
    expect(await store.putIfAbsent("x", "x")).toEqual({ outcome: "written", etag: "e" });
  });

  test("a write that a proxy has sent twice has happened", async () => {
    const store = await serve((_request, response, number) => {
      if (number === 0) return refuse(response, 412, "PreconditionFailed");
      const mark = server.requests[0]!.headers["x-amz-meta-capfleet-write"] as string;
      response.writeHead(200, { etag: '"e"', "x-amz-meta-capfleet-write": mark }).end();
    });
    expect(await store.putIfMatch("x", "x", "before")).toEqual({ outcome: "written", etag: "e" });
  });

  test("a write that lost its answer and its race has not happened", async () => {
    const store = await serve((request, response, number) => {
      if (number === 0) response.destroy();
      else if (request.method === "HEAD")
        response.writeHead(200, { etag: '"e"', "x-amz-meta-capfleet-write": "theirs" }).end();
      else refuse(response, 412, "PreconditionFailed");
    });
    expect(await store.putIfAbsent("x", "x")).toEqual({ outcome: "exists" });
  });

  /** A server with one object, which handles the condition headers as told. */
  function oneObject(conditions: "kept" | "refused" | "ignored" | "half kept") {
    let held: string | undefined;
    return (request: IncomingMessage, response: ServerResponse) => {
      const { "if-match": ifMatch, "if-none-match": ifNoneMatch } = request.headers;
      const isConditional = ifMatch !== undefined || ifNoneMatch !== undefined;
      const fails = ifNoneMatch !== undefined ? held !== undefined : ifMatch !== undefined && ifMatch !== held;
      if (/^\/bucket\/?$/.test(request.url!)) response.writeHead(200).end();
      else if (request.method === "PUT" && conditions === "refused" && isConditional)
        refuse(response, 501, "NotImplemented");
      else if (request.method === "PUT" && fails && (conditions === "kept" || (conditions === "half kept" && ifMatch)))
        refuse(response, 412, "PreconditionFailed");
      else if (request.method === "PUT") {
        held = `"${Math.random()}"`;
        response.writeHead(200, { etag: held }).end();
      } else if (request.method === "DELETE") {
        held = undefined;
        response.writeHead(204).end();
      } else if (held === undefined) response.writeHead(404).end();
      else response.writeHead(200, { etag: held, "content-length": 1 }).end();
    };
  }

  test("a server without them gets plain writes", async () => {
    const store = await serve(oneObject("refused"));
    const first = await store.putIfAbsent("x", "1");
    expect(first).toMatchObject({ outcome: "written" });
    expect(await store.putIfAbsent("x", "2")).toEqual({ outcome: "exists" });
    const { etag } = first as { etag: string };
    expect(await store.putIfMatch("x", "2", etag)).toMatchObject({ outcome: "written" });
    expect(await store.putIfMatch("x", "3", etag)).toEqual({ outcome: "changed" });
    expect(server.requests.filter(({ headers }) => headers["if-none-match"]).length).toBeLessThanOrEqual(3);
  });

  test.each([
    ["kept", true],
    ["refused", false],
    ["ignored", false],
    ["half kept", false],
  ] as const)("the probe of a server by which they are %s says %s", async (conditions, verdict) => {
    const store = await serve(oneObject(conditions));
    expect(await probeConditionalWrites(store)).toBe(verdict);
    expect(await store.stat("x")).toBeNull(); // it has cleaned up
  });
});

describe("a bucket in another region", () => {
  const elsewhere = (request: IncomingMessage, response: ServerResponse) => {
    if (request.headers.authorization?.includes("/eu-central-1/s3/"))
      response.writeHead(200, { "content-length": 5 }).end("hello");
    else {
      response.setHeader("x-amz-bucket-region", "eu-central-1");
      refuse(response, 301, "PermanentRedirect");
    }
  };
  const regions = () => server.requests.map(({ headers }) => headers.authorization?.split("/")[2]);

  test("is asked there, from then on", async () => {
    const store = await serve(elsewhere, { region: "us-west-2" });
    expect((await store.read("x")).bytes.toString()).toBe("hello");
    expect((await store.read("x")).bytes.toString()).toBe("hello");
    expect(regions()).toEqual(["us-west-2", "eu-central-1", "eu-central-1"]);
  });

  test("is found before a body that can be read only once is", async () => {
    const store = await serve(elsewhere, { region: "us-west-2" });
    expect(await store.putStream("x", body())).toBe(3);
    expect(server.requests.map(({ method }) => method)).toEqual(["HEAD", "HEAD", "PUT"]);
  });
});

test("requesterPays is said with every request, and signed", async () => {
  const store = await serve(
    (request, response) => {
      const isList = request.url!.includes("list-type");
      const list = isList ? "<ListBucketResult><Name>bucket</Name></ListBucketResult>" : "";
      response.writeHead(200, { etag: '"e"', "content-length": list.length }).end(list);
    },
    { requesterPays: true },
  );
  await store.stat("x");
  await store.read("x");
  await store.put("x", "x");
  await store.putIfAbsent("x", "x");
  await store.putStream("x", Readable.from([Buffer.from("x")]));
  await store.delete("x");
  expect(await Array.fromAsync(store.list())).toEqual([]);
  expect(new Set(server.requests.map(({ method }) => method))).toEqual(new Set(["HEAD", "GET", "PUT", "DELETE"]));
  for (const { headers } of server.requests) {
    expect(headers["x-amz-request-payer"]).toBe("requester");
    expect(headers.authorization).toMatch(/SignedHeaders=[^,]*x-amz-request-payer/);
  }
});

async function* body() {
  yield Buffer.from("abc");
}

async function drain(chunks: AsyncIterable<Uint8Array>): Promise<void> {
  for await (const _ of chunks);
}

async function listAll(store: FakeServer["store"], after = ""): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of store.list({ after })) keys.push(key);
  return keys;
}
