/** Who calls, and what they may: by their API key, or, where there are no keys, because they are on this machine. */
import type { ApiConfig } from "@capfleet/shared/config";
import { CapfleetError } from "@capfleet/shared/contract";
import { asFolder, isHttps, normalizeUri, parseUri } from "@capfleet/shared/storage";
import type { FastifyRequest } from "fastify";
import { type ApiKey, SCOPES, type Scope } from "../keys/api-key.ts";
import type { KeyRing } from "../keys/key-ring.ts";
import { isBelow } from "../plan/input.ts";

/** What locations of a caller begin with; null: there is no limit. */
type Prefixes = string[] | null;

export interface Caller {
  /** The key's; null for somebody on this machine, where there are no keys. */
  key: string | null;
  scope: Scope;
  readable: Prefixes;
  writable: Prefixes;
  /** Below which the outputs are of the jobs that it sees. */
  visible: Prefixes;
}

declare module "fastify" {
  interface FastifyRequest {
    caller: Caller | null;
  }
  interface FastifyContextConfig {
    /** What a caller's key has to cover: `read` where it is not given; null: nobody is asked who they are. */
    scope?: Scope | null;
  }
}

const LOCAL: Caller = { key: null, scope: "admin", readable: null, writable: null, visible: null };

export class Access {
  readonly #ring: KeyRing;
  readonly #config: ApiConfig;

  constructor(ring: KeyRing, config: ApiConfig) {
    this.#ring = ring;
    this.#config = config;
  }

  /** Throws UNAUTHENTICATED, HOST_FORBIDDEN, or the store's errors where the keys can't be read. */
  async callerOf(request: FastifyRequest): Promise<Caller> {
    const bearer = /^Bearer +(\S+)$/i.exec(request.headers.authorization ?? "")?.[1];
    if (bearer !== undefined) {
      const key = await this.#ring.find(bearer);
      if (key) return this.#ofKey(key);
      throw new CapfleetError("UNAUTHENTICATED", "the API key is unknown or revoked");
    }
    if (!isLoopback(this.#config.host) || (await this.#ring.any()))
      throw new CapfleetError("UNAUTHENTICATED", "the request has no API key");
    checkOrigin(request);
    return LOCAL;
  }

  #ofKey({ id, scope, read, write }: ApiKey): Caller {
    const { files } = this.#config;
    // Files are this machine's, whoever asks for them: only those folders that the operator has named.
    const allowed = (prefixes: string[]) =>
      scope === "admin" ? ["s3://", ...files] : prefixes.filter((uri) => isBelow(uri, ["s3://", ...files]));
    return {
      key: id,
      scope,
      readable: allowed(read),
      writable: allowed(write),
      visible: scope === "admin" ? null : write,
    };
  }
}

/** Throws FORBIDDEN. */
export function checkScope(caller: Caller, needed: Scope): void {
  if (SCOPES.indexOf(caller.scope) >= SCOPES.indexOf(needed)) return;
  throw new CapfleetError("FORBIDDEN", `the key's scope is ${caller.scope}; this needs ${needed}`);
}

/** Throws LOCATION_FORBIDDEN and INVALID_URI. */
export function checkLocations(caller: Caller, input: string, output: string): void {
  checkInputOf(caller, input);
  const { writable } = caller;
  if (writable && !isBelow(asFolder(normalizeUri(output)), writable)) throw forbidden("write", output, writable);
}

/** Throws LOCATION_FORBIDDEN and INVALID_URI. */
export function checkInputOf({ readable }: Caller, input: string): void {
  if (readable && !isBelow(asFolder(normalizeUri(input)), readable)) throw forbidden("read", input, readable);
}

/** Of one image, in normal form; what is on the web is for the workers' settings to allow. Throws LOCATION_FORBIDDEN. */
export function checkReadable({ readable }: Caller, image: string): void {
  if (readable && !isHttps(image) && !isBelow(image, readable)) throw forbidden("read", image, readable);
}

/** Whether a job is one that the caller may know of. */
export const maySee = ({ visible }: Caller, out: string): boolean => !visible || isBelow(asFolder(out), visible);

export const isLoopback = (host: string): boolean => ["127.0.0.1", "::1", "localhost"].includes(host);

function forbidden(verb: string, location: string, prefixes: string[]): CapfleetError {
  const isFile = parseUri(location).scheme === "file" && !prefixes.some((prefix) => prefix.startsWith("file:"));
  const message = isFile
    ? `remote callers may not ${verb} files of the producer's machine (${location})`
    : `the key may not ${verb} ${location}; it may below ${prefixes.join(", ") || "no prefix"}`;
  return new CapfleetError("LOCATION_FORBIDDEN", message);
}

/**
 * Where nobody shows a key, a page of another site must not speak for the user: neither by a request of its own (Origin,
 * Sec-Fetch-Site) nor by a name of its own that leads to this machine (DNS rebinding: Host).
 */
function checkOrigin({ headers }: FastifyRequest): void {
  const host = URL.parse(`http://${headers.host ?? ""}`);
  if (!host || !isLoopback(host.hostname.replace(/^\[|\]$/g, ""))) {
    throw new CapfleetError("HOST_FORBIDDEN", "the Host header is not this machine's own name");
  }
  const site = headers["sec-fetch-site"];
  const isForeign = site !== undefined && site !== "same-origin" && site !== "none";
  if (isForeign || (headers.origin !== undefined && URL.parse(headers.origin)?.host !== host.host)) {
    throw new CapfleetError("HOST_FORBIDDEN", "the request comes from another site's page");
  }
}
