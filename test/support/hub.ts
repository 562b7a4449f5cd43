/**
 * A FAKE of the Hugging Face hub, because the real one can't be reached from tests. It speaks as much of the hub's API
 * as `@huggingface/hub` uses to download a model: which commit a revision is, the (paged) listing with git and LFS sums,
 * files with ranges, and LFS files by a redirect to another origin, which refuses the hub's token as a signed address
 * does. It does not do xet. On demand it misbehaves.
 */
import { createHash } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface FakeModel {
  /** `owner/name`. */
  id: string;
  /** Name to bytes. Those over 1,000 bytes are LFS files. */
  files: Record<string, Uint8Array>;
  /** The token that it needs; null: public. */
  token?: string;
  /** 403 for everybody: its terms have not been accepted. */
  gated?: boolean;
}

/** What becomes of one request; null: what should. */
export type Fault =
  | { status: number }
  /** The connection ends after so many bytes of the body. */
  | { cutAfter: number }
  /** The connection stays open and silent after so many bytes, until `release`. */
  | { holdAfter: number }
  /** One bit of each body is another. */
  | { wrongBytes: true }
  /** The range is ignored. */
  | { noRange: true };

export interface Asked {
  kind: "info" | "tree" | "file" | "lfs";
  /** Of a file. */
  name: string;
  /** The first byte that is asked for, of a file. */
  start: number;
  headers: IncomingMessage["headers"];
}

const LFS_BYTES = 1_000;
const PAGE = 5;
const sha = (algorithm: string, ...parts: (string | Uint8Array)[]) =>
  parts.reduce((hash: ReturnType<typeof createHash>, part) => hash.update(part), createHash(algorithm)).digest("hex");

export class FakeHub {
  readonly asked: Asked[] = [];
  /** Decides what goes wrong. */
  fault: (asked: Asked) => Fault | null = () => null;
  #models = new Map<string, { model: FakeModel; commit: string }[]>();
  #hub: Server;
  #storage: Server;
  #held = new Set<ServerResponse>();

  private constructor() {
    this.#hub = createServer((request, response) => this.#answer(request, response, this.#atHub.bind(this)));
    this.#storage = createServer((request, response) => this.#answer(request, response, this.#atStorage.bind(this)));
  }

  static async start(): Promise<FakeHub> {
    const fake = new FakeHub();
    for (const server of [fake.#hub, fake.#storage]) {
      server.listen(0, "127.0.0.1");
      await once(server, "listening");
    }
    return fake;
  }

  get url(): string {
    return urlOf(this.#hub);
  }

  /** Pushes a commit to the model's main branch. Returns its id. */
  push(model: FakeModel): string {
    const commits = this.#models.get(model.id) ?? [];
    const commit = sha("sha1", model.id, String(commits.length), ...Object.keys(model.files));
    this.#models.set(model.id, [...commits, { model, commit }]);
    return commit;
  }

  /** Ends the connections that are held open. */
  release(): void {
    for (const response of this.#held) response.destroy();
    this.#held.clear();
  }

  async stop(): Promise<void> {
    this.release();
    for (const server of [this.#hub, this.#storage]) {
      server.closeAllConnections();
      server.close();
    }
  }

  #answer(
    request: IncomingMessage,
    response: ServerResponse,
    act: (url: URL, request: IncomingMessage, response: ServerResponse) => void,
  ) {
    request.resume();
    act(new URL(request.url!, "http://fake"), request, response);
  }

  #atHub({ pathname, searchParams }: URL, request: IncomingMessage, response: ServerResponse): ServerResponse {
    const [, id, rest = ""] =
      /^\/api\/models\/([^/]+\/[^/]+)\/(.*)$/.exec(pathname) ??
      /^\/([^/]+\/[^/]+)\/(resolve\/.*)$/.exec(pathname) ??
      [];
    const [verb, revision = "", name = ""] = rest.split("/").map(decodeURIComponent);
    const asked: Asked = {
      kind: verb === "revision" ? "info" : verb === "tree" ? "tree" : "file",
      name,
      start: startOf(request),
      headers: request.headers,
    };
    this.asked.push(asked);
    const fault = this.fault(asked);
    if (fault && "status" in fault) return refuse(response, fault.status);

    const commits = this.#models.get(id ?? "");
    const latest = commits?.at(-1);
    const token = request.headers.authorization;
    const { token: needed, gated } = latest?.model ?? {};
    // The real hub does not tell a stranger whether a private model is there.
    if (!latest || (needed !== undefined && token === undefined)) {
      return refuse(response, token === undefined ? 401 : 404, "RepoNotFound");
    }
    if (needed !== undefined && token !== `Bearer ${needed}`) return refuse(response, 401);
    if (gated) return refuse(response, 403, "GatedRepo");
    const found = revision === "main" ? latest : commits?.find(({ commit }) => commit === revision);
    if (!found) return refuse(response, 404, "RevisionNotFound");

    const { model, commit } = found;
    if (asked.kind === "info") {
      return json(response, { _id: "1", id, sha: commit, private: !!needed, gated: false, likes: 0, downloads: 0 });
    }
    if (asked.kind === "tree") return this.#tree(model, pathname, Number(searchParams.get("cursor") ?? 0), response);
    const bytes = model.files[name];
    if (!bytes) return refuse(response, 404, "EntryNotFound");
    if (bytes.length <= LFS_BYTES) {
      const etag = `"${sha("sha1", `blob ${bytes.length}\0`, bytes)}"`;
      return this.#send(bytes, request, response, fault, { etag });
    }
    const location = `${urlOf(this.#storage)}/${id}/${commit}/${name}?signature=x`;
    const linked = { "x-linked-size": bytes.length, "x-linked-etag": `"${sha("sha256", bytes)}"` };
    return response.writeHead(302, { location, ...linked }).end();
  }

  #tree(model: FakeModel, pathname: string, cursor: number, response: ServerResponse): ServerResponse {
    const all = Object.entries(model.files).map(([path, bytes]) => {
      const entry = { type: "file", path, size: bytes.length };
      const pointer = `oid sha256:${sha("sha256", bytes)}`;
      if (bytes.length <= LFS_BYTES) return { ...entry, oid: sha("sha1", `blob ${bytes.length}\0`, bytes) };
      const lfs = { oid: sha("sha256", bytes), size: bytes.length, pointerSize: pointer.length };
      return { ...entry, oid: sha("sha1", `blob ${pointer.length}\0`, pointer), lfs };
    });
    const next = cursor + PAGE;
    if (next < all.length) response.setHeader("link", `<${this.url}${pathname}?cursor=${next}>; rel="next"`);
    return json(response, all.slice(cursor, next));
  }

  #atStorage({ pathname }: URL, request: IncomingMessage, response: ServerResponse): ServerResponse {
    const [, owner, repo, commit, name] = pathname.split("/").map(decodeURIComponent);
    const asked: Asked = { kind: "lfs", name: name!, start: startOf(request), headers: request.headers };
    this.asked.push(asked);
    const fault = this.fault(asked);
    if (fault && "status" in fault) return refuse(response, fault.status);
    if (request.headers.authorization !== undefined) return refuse(response, 400);
    const found = this.#models.get(`${owner}/${repo}`)?.find((each) => each.commit === commit);
    return this.#send(found!.model.files[name!]!, request, response, fault, { etag: '"of-the-storage"' });
  }

  #send(
    whole: Uint8Array,
    request: IncomingMessage,
    response: ServerResponse,
    fault: Fault | null,
    headers: Record<string, string>,
  ): ServerResponse {
    const [, from, to] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "") ?? [];
    const ranged = from !== undefined && !(fault && "noRange" in fault);
    const start = ranged ? Number(from) : 0;
    const end = ranged && to ? Math.min(Number(to) + 1, whole.length) : whole.length;
    const bytes = Buffer.from(whole.subarray(start, end));
    if (fault && "wrongBytes" in fault && bytes.length > 0) bytes[bytes.length >> 1]! ^= 1;
    const range = ranged ? { "content-range": `bytes ${start}-${end - 1}/${whole.length}` } : {};
    response.writeHead(ranged ? 206 : 200, { ...headers, ...range, "content-length": bytes.length });
    if (fault && "cutAfter" in fault && bytes.length > fault.cutAfter) {
      response.write(bytes.subarray(0, fault.cutAfter), () => response.destroy());
      return response;
    }
    if (fault && "holdAfter" in fault && bytes.length > fault.holdAfter) {
      this.#held.add(response);
      response.write(bytes.subarray(0, fault.holdAfter));
      return response;
    }
    return response.end(bytes);
  }
}

const urlOf = (server: Server) => `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

const startOf = (request: IncomingMessage) => Number(/^bytes=(\d+)-/.exec(request.headers.range ?? "")?.[1] ?? 0);

function json(response: ServerResponse, body: unknown): ServerResponse {
  return response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(body));
}

function refuse(response: ServerResponse, status: number, code?: string): ServerResponse {
  response.writeHead(status, { "content-type": "application/json", ...(code && { "x-error-code": code }) });
  return response.end(JSON.stringify({ error: "because" }));
}
