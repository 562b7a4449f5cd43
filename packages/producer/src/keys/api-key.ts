/**
 * API keys: `cf_<id>_<secret>`. The secret is 32 random bytes, shown once; `<state>/keys/<id>.json` has its SHA-256. A slow
 * hash is for passwords, which can be guessed: of 2^256 secrets nobody guesses one, and every request pays for the hash.
 */
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { CapfleetError, stateLayout } from "@capfleet/shared/contract";
import { asFolder, normalizeUri, type Store } from "@capfleet/shared/storage";
import * as z from "zod";

/** Each has what the one before it has: look at jobs; submit and steer them; all jobs and locations. */
export const SCOPES = ["read", "submit", "admin"] as const;
export type Scope = (typeof SCOPES)[number];

export const apiKeySchema = z.object({
  id: z.string(),
  name: z.string(),
  scope: z.enum(SCOPES),
  /** Folders, as URIs with a slash at their end, whose inputs it may read, and below which outputs and jobs are its own. */
  read: z.array(z.string()),
  write: z.array(z.string()),
  /** SHA-256 of the secret, in hexadecimal digits. */
  hash: z.string(),
  created: z.iso.datetime(),
  revoked: z.iso.datetime().nullable(),
});
export type ApiKey = z.infer<typeof apiKeySchema>;

export interface NewKey {
  name: string;
  scope: Scope;
  read: string[];
  write: string[];
}

const FORM = /^cf_([0-9a-f]{12})_([A-Za-z0-9_-]{43})$/;

/** Returns the key as its owner sends it. Throws INVALID_OPTION and INVALID_URI. */
export async function createKey(
  { name, scope, read, write }: NewKey,
  state: Store,
): Promise<{ id: string; key: string }> {
  if (scope === "admin" && read.length + write.length > 0)
    throw invalid("--read and --write: an admin key reads and writes everywhere");
  if (scope === "read" && read.length > 0) throw invalid("--read is for keys that submit jobs");
  if (scope !== "admin" && write.length === 0)
    throw invalid(`--write: a key of the scope ${scope} needs a prefix, below which its jobs' outputs are`);
  if (scope === "submit" && read.length === 0)
    throw invalid("--read: a key that submits needs a prefix for its inputs");
  const id = randomBytes(6).toString("hex");
  const secret = randomBytes(32).toString("base64url");
  const [readable, writable] = [read, write].map((uris) => uris.map((uri) => asFolder(normalizeUri(uri))));
  const created = new Date().toISOString();
  const key: ApiKey = {
    id,
    name,
    scope,
    read: readable!,
    write: writable!,
    hash: hashOf(secret),
    created,
    revoked: null,
  };
  await state.putIfAbsent(stateLayout.key(id), JSON.stringify(key));
  return { id, key: `cf_${id}_${secret}` };
}

/** Every key, revoked ones too. */
export async function* listKeys(state: Store): AsyncGenerator<{ id: string; etag: string }> {
  for await (const { key, etag } of state.list({ prefix: stateLayout.keys })) {
    const id = /^keys\/([0-9a-f]{12})\.json$/.exec(key)?.[1];
    if (id) yield { id, etag };
  }
}

export async function readKey(id: string, state: Store): Promise<ApiKey> {
  const { bytes } = await state.read(stateLayout.key(id));
  return apiKeySchema.parse(JSON.parse(bytes.toString("utf8")));
}

/** Throws KEY_NOT_FOUND. What is revoked stays so. */
export async function revokeKey(id: string, state: Store): Promise<void> {
  const name = stateLayout.key(id);
  for (;;) {
    if (!/^[0-9a-f]{12}$/.test(id) || !(await state.stat(name)))
      throw new CapfleetError("KEY_NOT_FOUND", `no key ${id}`);
    const { bytes, etag } = await state.read(name);
    const key = apiKeySchema.parse(JSON.parse(bytes.toString("utf8")));
    const revoked = key.revoked ?? new Date().toISOString();
    const { outcome } = await state.putIfMatch(name, JSON.stringify({ ...key, revoked }), etag);
    if (outcome === "written") return;
  }
}

/** Null for what can't be a key. */
export function parseKey(given: string): { id: string; secret: string } | null {
  const [, id, secret] = FORM.exec(given) ?? [];
  return id && secret ? { id, secret } : null;
}

export const isSecretOf = (secret: string, { hash }: ApiKey): boolean =>
  timingSafeEqual(Buffer.from(hashOf(secret), "hex"), Buffer.from(hash, "hex"));

const hashOf = (secret: string) => createHash("sha256").update(secret).digest("hex");
const invalid = (message: string) => new CapfleetError("INVALID_OPTION", message);
