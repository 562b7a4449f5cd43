/** Settings that come from the environment. Each is read in one place; `docs/configuration.md` lists them. */
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import ipaddr from "ipaddr.js";
import * as z from "zod";
import { CapfleetError } from "./contract/errors.ts";
import { parseFaults } from "./faults.ts";

const count = (max: number) => z.coerce.number().int().min(1).max(max);

/** What is between commas, without what is empty. */
const list = z
  .string()
  .default("")
  .transform((text) => text.split(",").flatMap((part) => part.trim() || []));
const folders = list.transform((paths) =>
  paths.map((path) => `${pathToFileURL(resolve(path)).href}/`.replace(/\/+$/, "/")),
);
const isNetwork = (text: string) => ipaddr.IPv4.isValidCIDRFourPartDecimal(text) || ipaddr.IPv6.isValidCIDR(text);
const networks = list.refine((all) => all.every(isNetwork), "must be networks such as 10.1.0.0/16 and fd00:1::/64");
const HOST = /^(\*|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])$/;
const isHost = (text: string) => HOST.test(text);

const settingsSchema = z.object({
  /** Where jobs and models are kept: s3:// or file:// prefix, or a folder. */
  CAPFLEET_STATE: z.string().min(1).optional(),
  /** redis:// or rediss:// URL. Without it `capfleet run` starts a Redis of its own. */
  CAPFLEET_REDIS_URL: z.url({ protocol: /^rediss?$/ }).optional(),
  /** The folder of downloaded checkpoints and compiled engines. */
  CAPFLEET_CACHE: z.string().min(1).optional(),
  /** Where compiled engines are published: an s3:// or file:// prefix, or a folder. Workers look there first. */
  CAPFLEET_ENGINES: z.string().min(1).optional(),
  /** Largest image file that is fetched, in bytes. */
  CAPFLEET_MAX_IMAGE_BYTES: count(2 ** 31 - 1).default(64 * 1024 * 1024),
  /** Largest image that is decoded, in pixels; the default is PIL's decompression-bomb limit. */
  CAPFLEET_MAX_IMAGE_PIXELS: count(2 ** 31 - 1).default(178_956_970),
  /** What decoding one image may take, in seconds. */
  CAPFLEET_MAX_DECODE_SECONDS: count(3_600).default(120),
  /** What one record may take where it is labelled in a process of its own, in seconds; a batch may take four times that. */
  CAPFLEET_MAX_RECORD_SECONDS: count(86_400).default(300),
  /** The web servers that https:// images may come from: `*` (all that are public), names, and `*.name`. */
  CAPFLEET_HTTPS_HOSTS: list
    .transform((hosts) => hosts.map((host) => host.toLowerCase()))
    .refine((hosts) => hosts.every(isHost), "must be *, or names such as images.example.com and *.cdn.example.com"),
  /** Addresses that https:// images may come from although they are not public. */
  CAPFLEET_HTTPS_NETWORKS: networks,
  /** Seconds that a stopping worker may spend on finishing shards. */
  CAPFLEET_GRACE_SECONDS: z.coerce.number().min(0).max(86_400).default(25),
  /** What an hour of a worker costs, in any currency. */
  CAPFLEET_PRICE_PER_HOUR: z.coerce.number().min(0).max(1e6).optional(),
  /** Autoscaling: how long the work that is left should take, in seconds, and a new worker to its first shard. */
  CAPFLEET_DRAIN_SECONDS: count(604_800).default(1_800),
  CAPFLEET_STARTUP_SECONDS: count(86_400).default(180),
  /** Where `serve` listens; other than this machine's own address only where there are API keys. */
  CAPFLEET_HOST: z.string().min(1).default("127.0.0.1"),
  CAPFLEET_PORT: z.coerce.number().int().min(0).max(65_535).default(8484),
  /** Requests to the API that a key, or an address, may send in a minute. */
  CAPFLEET_API_RATE: count(1_000_000).default(3_000),
  /** Folders that remote callers may name as inputs and outputs, with commas between them. */
  CAPFLEET_API_FILES: folders,
  /** Networks that webhooks may go to though they are not public, with commas between them. */
  CAPFLEET_WEBHOOK_NETWORKS: networks,
});

export interface Config {
  state: string;
  redisUrl: string | null;
  cache: string;
  /** Null: every machine compiles for itself. */
  engines: string | null;
  maxImageBytes: number;
  maxImagePixels: number;
  maxDecodeSeconds: number;
  maxRecordSeconds: number;
  httpsHosts: string[];
  httpsNetworks: string[];
  graceSeconds: number;
  /** Null: a worker has no price. */
  pricePerHour: number | null;
  scale: { drainSeconds: number; startupSeconds: number };
  api: ApiConfig;
}

export interface ApiConfig {
  host: string;
  /** 0: any that is free. */
  port: number;
  /** Requests a minute, of each key or address. */
  rate: number;
  /** `file://…/` URIs. */
  files: string[];
  /** CIDR. */
  webhookNetworks: string[];
}

/** Throws INVALID_CONFIG, naming the variable. Values are not repeated: a Redis URL may hold a password. */
export function readConfig(env: NodeJS.ProcessEnv = process.env): Config {
  const set = Object.fromEntries(Object.entries(env).filter(([, value]) => value !== ""));
  const parsed = settingsSchema.safeParse(set);
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    throw new CapfleetError("INVALID_CONFIG", `${issue.path.join(".")}: ${issue.message}`);
  }
  // Refused here, at the start, and not at the first point that a process passes.
  parseFaults(set.CAPFLEET_FAULTS ?? "");
  const settings = parsed.data;
  const scale = { drainSeconds: settings.CAPFLEET_DRAIN_SECONDS, startupSeconds: settings.CAPFLEET_STARTUP_SECONDS };
  if (scale.drainSeconds <= scale.startupSeconds) {
    const message = `CAPFLEET_DRAIN_SECONDS: must be more than CAPFLEET_STARTUP_SECONDS, which is ${scale.startupSeconds}`;
    throw new CapfleetError("INVALID_CONFIG", message);
  }
  const home = homedir();
  const dataHome = set.XDG_DATA_HOME ?? join(home, ".local", "share");
  const cacheHome = set.XDG_CACHE_HOME ?? join(home, ".cache");
  return {
    state: settings.CAPFLEET_STATE ?? pathToFileURL(join(dataHome, "capfleet")).href,
    redisUrl: settings.CAPFLEET_REDIS_URL ?? null,
    cache: resolve(settings.CAPFLEET_CACHE ?? join(cacheHome, "capfleet")),
    engines: settings.CAPFLEET_ENGINES ?? null,
    maxImageBytes: settings.CAPFLEET_MAX_IMAGE_BYTES,
    maxImagePixels: settings.CAPFLEET_MAX_IMAGE_PIXELS,
    maxDecodeSeconds: settings.CAPFLEET_MAX_DECODE_SECONDS,
    maxRecordSeconds: settings.CAPFLEET_MAX_RECORD_SECONDS,
    httpsHosts: settings.CAPFLEET_HTTPS_HOSTS,
    httpsNetworks: settings.CAPFLEET_HTTPS_NETWORKS,
    graceSeconds: settings.CAPFLEET_GRACE_SECONDS,
    pricePerHour: settings.CAPFLEET_PRICE_PER_HOUR ?? null,
    scale,
    api: {
      host: settings.CAPFLEET_HOST,
      port: settings.CAPFLEET_PORT,
      rate: settings.CAPFLEET_API_RATE,
      files: settings.CAPFLEET_API_FILES,
      webhookNetworks: settings.CAPFLEET_WEBHOOK_NETWORKS,
    },
  };
}

/** The checkpoints that come with capfleet, a folder each. */
export const BUNDLED_MODELS = fileURLToPath(new URL("../../../test/demo/models/", import.meta.url));
