/**
 * All stores of a process: one connection for each bucket, with the endpoint and credentials that its prefix calls for. And
 * the web, for images.
 */
import { readFileSync } from "node:fs";
import { z } from "zod";
import { readConfig } from "../config.ts";
import { CapfleetError } from "../contract/errors.ts";
import { FileStore } from "./file.ts";
import { type HttpsSettings, HttpsSource } from "./https.ts";
import { S3Store } from "./s3.ts";
import { S3Bucket, type S3Settings } from "./s3-bucket.ts";
import type { Store } from "./store.ts";
import { asFolder, contains, formatUri, parseUri } from "./uri.ts";

const Endpoint = z.url({ protocol: /^https?$/, error: "must be an http:// or https:// URL" });

const StoreConfig = z
  .strictObject({
    /** `s3://bucket/` or `s3://bucket/prefix/`: what the settings are for. The longest prefix that fits decides. */
    prefix: z.string().regex(/^s3:\/\/./, "must be s3://bucket/ or s3://bucket/prefix/"),
    endpoint: Endpoint.refine(
      (url) => !url.includes("@"),
      "must not hold credentials; use accessKeyId and secretAccessKey",
    ).optional(),
    region: z.string().min(1).optional(),
    profile: z.string().min(1).optional(),
    accessKeyId: z.string().min(1).optional(),
    secretAccessKey: z.string().min(1).optional(),
    sessionToken: z.string().min(1).optional(),
    pathStyle: z.boolean().optional(),
    requesterPays: z.boolean().optional(),
    timeoutMs: z.int().min(100).max(600_000).optional(),
  })
  .refine((store) => (store.accessKeyId === undefined) === (store.secretAccessKey === undefined), {
    error: "accessKeyId and secretAccessKey go together",
  })
  .refine((store) => store.accessKeyId !== undefined || store.sessionToken === undefined, {
    error: "sessionToken needs accessKeyId and secretAccessKey",
  })
  .refine((store) => store.accessKeyId === undefined || store.profile === undefined, {
    error: "profile and accessKeyId exclude each other",
  });
/** One entry of CAPFLEET_STORES. What it leaves out comes from the AWS environment variables and files. */
export type StoreConfig = z.infer<typeof StoreConfig>;

const NO_HOSTS: HttpsSettings = { hosts: [], networks: [], maxBytes: 0 };

export class Stores {
  readonly https: HttpsSource;
  /** The longest prefix first. */
  readonly #configs: StoreConfig[];
  readonly #defaults: S3Settings;
  readonly #buckets = new Map<string, S3Bucket>();

  /**
   * `defaults` is what entries leave out, and what goes for every other bucket; without `https` no host on the web may be
   * asked. Throws INVALID_CONFIG.
   */
  constructor(configs: StoreConfig[] = [], defaults: S3Settings = {}, https: HttpsSettings = NO_HOSTS) {
    this.https = new HttpsSource(https);
    this.#configs = validated(configs).sort((a, b) => b.prefix.length - a.prefix.length);
    this.#defaults = defaults;
  }

  /** The store below a prefix (`s3://bucket/prefix`, `file:///folder`, a path). Throws INVALID_URI. */
  at(prefixUri: string): Store {
    const location = parseUri(prefixUri);
    if (location.scheme === "file") return new FileStore(location.path);
    const prefix = location.key === "" ? "" : asFolder(location.key);
    return new S3Store(this.#bucket(location.bucket, formatUri(location)), prefix);
  }

  /** The store and key of one object. Throws INVALID_URI. */
  object(uri: string): { store: Store; key: string } {
    const location = parseUri(uri);
    if (location.scheme === "file") return { store: new FileStore("/"), key: location.path.slice(1) };
    const store = new S3Store(this.#bucket(location.bucket, formatUri(location)), "");
    return { store, key: location.key };
  }

  /** Ends all connections. What is under way fails. */
  close(): void {
    for (const bucket of this.#buckets.values()) bucket.close();
    this.#buckets.clear();
    this.https.close();
  }

  #bucket(name: string, uri: string): S3Bucket {
    const config = this.#configs.find(({ prefix }) => contains(prefix, uri));
    const id = `${config?.prefix ?? ""} ${name}`;
    const known = this.#buckets.get(id);
    if (known !== undefined) return known;
    const bucket = new S3Bucket(name, { ...this.#defaults, ...config });
    this.#buckets.set(id, bucket);
    return bucket;
  }
}

/**
 * Stores as the environment says. CAPFLEET_STORES is a JSON array of StoreConfig, or the path of a file that holds one;
 * AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, AWS_REGION and AWS_DEFAULT_REGION are the defaults; credentials come from the
 * standard AWS chain. CAPFLEET_HTTPS_HOSTS and CAPFLEET_HTTPS_NETWORKS are what may be asked on the web. Throws INVALID_CONFIG, whose message never shows a value.
 */
export function storesFromEnv(env: NodeJS.ProcessEnv = process.env): Stores {
  const endpoint = env.AWS_ENDPOINT_URL_S3 || env.AWS_ENDPOINT_URL || undefined;
  if (endpoint !== undefined && !Endpoint.safeParse(endpoint).success)
    throw new CapfleetError(
      "INVALID_CONFIG",
      "AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL must be an http:// or https:// URL",
    );
  const region = env.AWS_REGION || env.AWS_DEFAULT_REGION || undefined;
  const { httpsHosts: hosts, httpsNetworks: networks, maxImageBytes: maxBytes } = readConfig(env);
  const https = { hosts, networks, maxBytes };
  return new Stores(readConfigs(env.CAPFLEET_STORES?.trim() ?? ""), { endpoint, region }, https);
}

function readConfigs(setting: string): StoreConfig[] {
  if (setting === "") return [];
  // Text with a quote or a brace is JSON gone wrong rather than a path, and may hold secrets: it is not repeated.
  const isPath = !/["{}[\]\n]/.test(setting);
  let text = setting;
  try {
    if (isPath) text = readFileSync(setting, "utf8");
  } catch (error) {
    throw invalid(`the file ${setting} can't be read (${(error as NodeJS.ErrnoException).code})`);
  }
  try {
    return JSON.parse(text) as StoreConfig[];
  } catch {
    throw invalid(isPath ? `the file ${setting} is not JSON` : "is not JSON");
  }
}

function validated(configs: unknown): StoreConfig[] {
  const parsed = z.array(StoreConfig).safeParse(configs);
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    const path = issue.path.map((part) => (typeof part === "number" ? `[${part}]` : `.${String(part)}`)).join("");
    throw invalid(`${path === "" ? "" : `${path.replace(/^\./, "")}: `}${issue.message}`);
  }
  const seen = new Set<string>();
  for (const config of parsed.data) {
    config.prefix = asFolder(normalizedPrefix(config.prefix));
    if (seen.has(config.prefix)) throw invalid(`has two entries for ${config.prefix}`);
    seen.add(config.prefix);
  }
  return parsed.data;
}

function normalizedPrefix(prefix: string): string {
  try {
    return formatUri(parseUri(prefix));
  } catch (error) {
    throw invalid((error as Error).message);
  }
}

function invalid(why: string): CapfleetError {
  return new CapfleetError("INVALID_CONFIG", `CAPFLEET_STORES: ${why}`);
}
