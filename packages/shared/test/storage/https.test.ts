/** Images on the web, from a real TLS server on this machine, whose network is allowed. */
import { readFileSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import { brotliCompressSync, gzipSync } from "node:zlib";
import { afterEach, describe, expect, test } from "vitest";
import { CERTIFICATE, type TlsServer, tlsServer } from "../../../../test/support/tls/server.ts";
import { type HttpsSettings, HttpsSource } from "../../src/storage/https.ts";

const ends: (() => unknown)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0)) await end();
});

type Respond = (request: IncomingMessage, response: ServerResponse, number: number) => void;
async function start(respond: Respond): Promise<TlsServer> {
  const server = await tlsServer(respond);
  ends.push(server.close);
  return server;
}

const here = async () => [{ address: "127.0.0.1", family: 4 }];
function source(settings: Partial<HttpsSettings> = {}): HttpsSource {
  const ca = readFileSync(CERTIFICATE, "utf8");
  const made = new HttpsSource({
    hosts: ["*"],
    networks: ["127.0.0.0/8"],
    maxBytes: 1_000_000,
    ca,
    resolve: here,
    ...settings,
  });
  ends.push(() => made.close());
  return made;
}

async function read(url: string, from: HttpsSource = source(), signal?: AbortSignal): Promise<string> {
  const { body } = await from.open(url, signal);
  return Buffer.concat(await Array.fromAsync(body)).toString();
}
const refused = (code: string, message?: RegExp) =>
  expect.objectContaining({ code, scope: "row", ...(message && { message: expect.stringMatching(message) }) });
/** Asks for no pause, so that what is answered with it is asked for again at once. */
const AT_ONCE = { "retry-after": "0" };

test("the bytes, their number where the server says it, and who asks", async () => {
  const server = await start((request, response) => {
    if (request.url !== "/unknown") response.writeHead(200, { "content-length": 5 });
    response.write("hel");
    response.end("lo");
  });
  const from = source();
  const [known, unknown] = [
    await from.open(`${server.origin}/a%20b?c=d#e`),
    await from.open(`${server.origin}/unknown`),
  ];
  expect([known.size, unknown.size]).toEqual([5, null]);
  for (const { body } of [known, unknown]) expect(Buffer.concat(await Array.fromAsync(body)).toString()).toBe("hello");
  const { url, headers } = server.requests[0]!;
  expect(url).toBe("/a%20b?c=d");
  expect(headers["user-agent"]).toMatch(/^capfleet\/\d/);
  expect(Object.keys(headers).sort()).toEqual(["accept", "accept-encoding", "connection", "host", "user-agent"]);
});

test("connections are kept, and bounded for each host", async () => {
  let [now, most] = [0, 0];
  const server = await start(async (_, response) => {
    most = Math.max(most, ++now);
    await new Promise((resolve) => setImmediate(resolve));
    now -= 1;
    response.setHeader("set-cookie", "a=b");
    response.end("x");
  });
  const from = source();
  await Promise.all(Array.from({ length: 100 }, (_, i) => read(`${server.origin}/${i}`, from)));
  expect(server.connections).toBeLessThanOrEqual(16);
  expect(most).toBeLessThanOrEqual(16);
  expect(server.requests.filter(({ headers }) => headers.cookie)).toEqual([]);
});

describe("what the server answers", () => {
  test.each([
    [404, "IMAGE_NOT_FOUND"],
    [410, "IMAGE_NOT_FOUND"],
    [400, "IMAGE_HTTPS_REFUSED"],
    [401, "IMAGE_HTTPS_REFUSED"],
    [403, "IMAGE_HTTPS_REFUSED"],
    [451, "IMAGE_HTTPS_REFUSED"],
    [206, "IMAGE_HTTPS_REFUSED"],
    [302, "IMAGE_HTTPS_REFUSED"],
    [304, "IMAGE_HTTPS_REFUSED"],
  ])("%i is %s, asked for once", async (status, code) => {
    const server = await start((_, response) => response.writeHead(status).end());
    await expect(read(`${server.origin}/x.jpg`)).rejects.toEqual(refused(code, new RegExp(`/x.jpg: .*${status}`)));
    expect(server.requests).toHaveLength(1);
  });

  test.each([408, 429, 500, 502, 503, 504])("%i is asked for again, up to three times", async (status) => {
    let good = 2;
    const server = await start((_, response, i) => response.writeHead(i < good ? status : 200, AT_ONCE).end("x"));
    await expect(read(server.origin)).resolves.toBe("x");
    good = Infinity;
    await expect(read(server.origin)).rejects.toEqual(refused("IMAGE_HTTPS_FAILED", new RegExp(`${status}, 3 times`)));
    expect(server.requests).toHaveLength(6);
  });

  test("one that wants to be left alone for long is", async () => {
    const later = new Date(Date.now() + 3_600_000).toUTCString();
    for (const wait of ["3600", later]) {
      const server = await start((_, response) => response.writeHead(503, { "retry-after": wait }).end());
      await expect(read(server.origin)).rejects.toEqual(refused("IMAGE_HTTPS_FAILED", /503$/));
      expect(server.requests).toHaveLength(1);
    }
  });
});

describe("bodies", () => {
  test("one that breaks off is asked for again, from its start", async () => {
    const server = await start((_, response, i) => {
      response.writeHead(200, { "content-length": 5 });
      if (i > 0) response.end("hello");
      else response.write("hel", () => response.destroy());
    });
    await expect(read(server.origin)).resolves.toBe("hello");
    expect(server.requests).toHaveLength(2);
  });

  test.each<[string, Respond]>([
    ["shorter than it says", (_, response) => void response.writeHead(200, { "content-length": 9 }).end("hello")],
    ["cut off in chunks", (_, response) => void response.write("hello", () => response.destroy())],
  ])("one that is %s is no image", async (_, respond) => {
    const server = await start((request, response, i) => {
      response.strictContentLength = false;
      respond(request, response, i);
      // What it promised can't come any more.
      if (response.writableEnded) request.socket.end();
    });
    await expect(read(server.origin)).rejects.toEqual(refused("IMAGE_HTTPS_FAILED", /3 times/));
  });

  test("one that stalls, before it begins or after, is given up", async () => {
    const server = await start(({ url }, response) => {
      if (url === "/body") response.writeHead(200, { "content-length": 5 }).write("hel");
    });
    const from = source({ stallMs: 50 });
    const reads = ["headers", "body"].map((path) => read(`${server.origin}/${path}`, from));
    for (const { reason } of (await Promise.allSettled(reads)) as PromiseRejectedResult[])
      expect(reason).toEqual(refused("IMAGE_HTTPS_FAILED", /3 times/));
    expect(server.requests).toHaveLength(6);
  });

  test("one that drips is given up when it has taken too long in all", async () => {
    const server = await start((_, response) => {
      const drip = setInterval(() => response.write("x"), 10);
      response.on("close", () => clearInterval(drip));
    });
    await expect(read(server.origin, source({ bodyMs: 200 }))).rejects.toEqual(
      refused("IMAGE_HTTPS_FAILED", /not all of it came within 200 ms$/),
    );
    expect(server.requests).toHaveLength(1);
  });

  test("too large: by its length before a byte is read, without one as soon as it is", async () => {
    let sent = 0;
    const closed = Promise.withResolvers<void>();
    const server = await start(({ url }, response) => {
      if (url === "/says") return void response.writeHead(200, { "content-length": 101 }).end(Buffer.alloc(101));
      const more = () => {
        while (!response.destroyed && response.write(Buffer.alloc(1_000))) sent += 1_000;
      };
      response.on("drain", more).on("close", closed.resolve);
      more();
    });
    const from = source({ maxBytes: 100 });
    await expect(from.open(`${server.origin}/says`)).rejects.toEqual(refused("IMAGE_TOO_LARGE", /100 bytes/));
    const { body } = await from.open(`${server.origin}/endless`);
    await expect(Array.fromAsync(body)).rejects.toEqual(refused("IMAGE_TOO_LARGE", /100 bytes/));
    await closed.promise;
    expect(sent).toBeGreaterThan(0);
    await expect(read(`${server.origin}/says`, source({ maxBytes: 101 }))).resolves.toHaveLength(101);
  });

  test.each([
    ["gzip", gzipSync],
    ["br", brotliCompressSync],
  ])("%s is unpacked; the limit is for what comes out", async (encoding, pack) => {
    const packed = pack(Buffer.alloc(100_000, "x"));
    expect(packed.length).toBeLessThan(1_000);
    const server = await start((_, response) => {
      response.writeHead(200, { "content-encoding": encoding, "content-length": packed.length }).end(packed);
    });
    await expect(read(server.origin, source({ maxBytes: 100_000 }))).resolves.toBe("x".repeat(100_000));
    await expect(read(server.origin, source({ maxBytes: 99_999 }))).rejects.toEqual(refused("IMAGE_TOO_LARGE"));
  });

  test("another encoding, or one that is damaged, is the row's error", async () => {
    const server = await start(({ url }, response) => {
      response.writeHead(200, { "content-encoding": url!.slice(1) }).end("hello");
    });
    await expect(read(`${server.origin}/compress`)).rejects.toEqual(refused("IMAGE_HTTPS_REFUSED", /encoding/));
    await expect(read(`${server.origin}/gzip`)).rejects.toEqual(refused("IMAGE_HTTPS_FAILED"));
  });
});

describe("redirects", () => {
  test("are followed five times, across hosts, and no further", async () => {
    const server = await start(({ url }, response) => {
      const left = Number(url!.slice(1));
      if (left === 0) return void response.end("hello");
      const host = left % 2 === 0 ? `https://cdn.example.test:${server.port}` : "";
      response.writeHead([301, 302, 303, 307, 308][left % 5]!, { location: `${host}/${left - 1}` }).end("moved");
    });
    await expect(read(`${server.origin}/5`)).resolves.toBe("hello");
    await expect(read(`${server.origin}/6`)).rejects.toEqual(refused("IMAGE_HTTPS_REFUSED", /more than 5 redirects/));
  });

  test.each([
    ["http", "http://localhost/x"],
    ["a private address", "https://10.0.0.1/x"],
    ["the metadata service", "https://169.254.169.254/latest/meta-data/"],
    ["a host that is not allowed", "https://other.test/x"],
    ["a name with a private address", "https://inside.example.test/x"],
    ["credentials", "https://me:secret@localhost/x"],
  ])("to %s are refused", async (_, location) => {
    const server = await start((_, response) => response.writeHead(302, { location }).end());
    const resolve = async (host: string) =>
      host === "localhost" ? here() : [{ address: "192.168.0.1", family: 4 as const }];
    const from = source({ hosts: ["localhost", "*.example.test", "10.0.0.1", "169.254.169.254"], resolve });
    await expect(read(server.origin, from)).rejects.toEqual(refused("IMAGE_HTTPS_FORBIDDEN"));
    expect(server.requests).toHaveLength(1);
  });
});

describe("names", () => {
  test("that lead to addresses which are not public are refused, and nothing is connected to", async () => {
    const server = await start((_, response) => response.end("secret"));
    for (const networks of [[], ["10.0.0.0/8"]])
      await expect(read(server.origin, source({ networks }))).rejects.toEqual(
        refused("IMAGE_HTTPS_FORBIDDEN", /^the host localhost has no address that is public$/),
      );
    await expect(read(`https://127.0.0.1:${server.port}/`, source({ networks: [] }))).rejects.toEqual(
      refused("IMAGE_HTTPS_FORBIDDEN"),
    );
    expect(server.connections).toBe(0);
  });

  test("that lead elsewhere a moment later: what was looked at is what is connected to", async () => {
    const server = await start((_, response) => response.setHeader("connection", "close").end("hello"));
    let lookups = 0;
    // 127.0.0.1 stands for a public address here, 127.0.0.2 for one inside.
    const resolve = async () => [{ address: `127.0.0.${++lookups}`, family: 4 }];
    const from = source({ networks: ["127.0.0.1/32"], resolve });
    await expect(read(server.origin, from)).resolves.toBe("hello");
    expect(lookups).toBe(1);
    await expect(read(server.origin, from)).rejects.toEqual(refused("IMAGE_HTTPS_FORBIDDEN"));
    expect({ lookups, connections: server.connections }).toEqual({ lookups: 2, connections: 1 });
  });

  test("with several addresses are asked at those that are public", async () => {
    const server = await start((_, response) => response.end("hello"));
    const resolve = async () => [{ address: "10.0.0.1", family: 4 }, { address: "::1", family: 6 }, ...(await here())];
    await expect(read(server.origin, source({ resolve }))).resolves.toBe("hello");
  });

  test("that do not exist, servers that do not listen, and certificates of others are the row's errors", async () => {
    const server = await start((_, response) => response.end("hello"));
    const resolve = async () =>
      Promise.reject(Object.assign(new Error("getaddrinfo ENOTFOUND x"), { code: "ENOTFOUND" }));
    await expect(read(server.origin, source({ resolve }))).rejects.toEqual(
      refused("IMAGE_HTTPS_FAILED", /ENOTFOUND x$/),
    );
    await expect(read(`https://other.test:${server.port}/`)).rejects.toEqual(
      refused("IMAGE_HTTPS_FAILED", /altnames|certificate/),
    );
    await server.close();
    await expect(read(server.origin)).rejects.toEqual(refused("IMAGE_HTTPS_FAILED", /ECONNREFUSED.*, 3 times/));
  });
});

test("an aborted signal ends it, whatever it waits for", async () => {
  for (const path of ["/headers", "/body", "/again"]) {
    const stop = new AbortController();
    const reason = new Error("enough");
    const server = await start((_, response) => {
      // The answer's headers first, and then the reason not to wait for more.
      if (path === "/body") response.write("hel");
      if (path === "/again") response.writeHead(503, { "retry-after": "9" }).end();
      setImmediate(() => stop.abort(reason));
    });
    await expect(read(`${server.origin}${path}`, source(), stop.signal)).rejects.toBe(reason);
    expect(server.requests).toHaveLength(1);
  }
});

test("no hosts, no web", async () => {
  const server = await start((_, response) => response.end("hello"));
  await expect(read(server.origin, source({ hosts: [] }))).rejects.toEqual(
    refused("IMAGE_HTTPS_FORBIDDEN", /CAPFLEET_HTTPS_HOSTS/),
  );
  expect(server.connections).toBe(0);
});
