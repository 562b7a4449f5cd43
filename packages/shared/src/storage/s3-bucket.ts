/** The connection to one bucket: its client, built once, with the timeouts, retries and region that it turns out to need. */
import type { S3, S3ClientConfig } from "@aws-sdk/client-s3";
import { CapfleetError } from "../contract/errors.ts";
import { responseHeader, s3Error, statusOf } from "./s3-error.ts";

export interface S3Settings {
  /** `http(s)://host[:port]` of an S3-compatible server; by default AWS. */
  endpoint?: string | undefined;
  region?: string | undefined;
  /** A profile of the AWS config files. Without profile and keys: the standard chain (environment, files, role). */
  profile?: string | undefined;
  accessKeyId?: string | undefined;
  secretAccessKey?: string | undefined;
  sessionToken?: string | undefined;
  /** `endpoint/bucket/key` instead of `bucket.endpoint/key`; by default where an endpoint is set. */
  pathStyle?: boolean | undefined;
  /** Says with every request that whoever asks pays for it; buckets whose owner does not pay refuse others. */
  requesterPays?: boolean | undefined;
  /** How long one attempt waits for an answer, and for the next bytes of a body. Default 20,000. */
  timeoutMs?: number | undefined;
}

/** Without one the SDK writes warnings to the console. What matters comes as an error. */
const SILENT = { debug() {}, info() {}, warn() {}, error() {} };
/** A hanging server is given up after ATTEMPTS × timeoutMs: a minute. Whoever called waits longer before asking again. */
const ATTEMPTS = 3;
const TIMEOUT_MS = 20_000;
const CONNECT_MS = 5_000;
/** Well above any number of requests that a process has under way at once: a request that waits here times out. */
const SOCKETS = 512;
/** With the first request: the SDK is a third of what a command has to load, and those on files do without. */
const loadSdk = () => import("@aws-sdk/client-s3");

export class S3Bucket {
  readonly name: string;
  readonly timeoutMs: number;
  /** False once the server has answered a conditional write with "not implemented". */
  hasConditionalWrites = true;
  /** False once the server has turned out to compare If-Match on writes with quotes and all (Ceph up to Pacific, at least). */
  unquotesIfMatch = true;
  readonly #settings: S3Settings;
  readonly #clients: S3[] = [];
  #current: Promise<S3> | undefined;
  #found: Promise<void> | undefined;

  constructor(name: string, settings: S3Settings) {
    this.name = name;
    this.#settings = settings;
    this.timeoutMs = settings.timeoutMs ?? TIMEOUT_MS;
  }

  /**
   * Runs a request. Errors are the SDK's own. A bucket that says it is in another region is asked there, from then on; so
   * `run` may run twice.
   */
  async call<T>(run: (client: S3) => Promise<T>): Promise<T> {
    this.#current ??= this.#start();
    const used = this.#current;
    const client = await used;
    try {
      return await run(client);
    } catch (error) {
      const region = responseHeader(error, "x-amz-bucket-region");
      const isElsewhere = [301, 307, 400].includes(statusOf(error)) && region !== undefined;
      if (!isElsewhere || region === (await client.config.region())) throw error;
      if (this.#current === used) this.#current = this.#connect(region);
      return run(await this.#current);
    }
  }

  /** Throws STORE_BUCKET_NOT_FOUND where there is no such bucket. Asks once: a 404 to HEAD doesn't say what is missing. */
  async check(): Promise<void> {
    this.#found ??= this.#head();
    try {
      await this.#found;
    } catch (error) {
      this.#found = undefined;
      throw error;
    }
  }

  close(): void {
    for (const client of this.#clients) client.destroy();
  }

  async #head(): Promise<void> {
    try {
      await this.call((client) => client.headBucket({ Bucket: this.name }));
    } catch (error) {
      const status = statusOf(error);
      if (status === 404) throw new CapfleetError("STORE_BUCKET_NOT_FOUND", `s3://${this.name}/: no such bucket`);
      // Any other refusal says nothing about the bucket: listing it may just not be allowed.
      if (status === 0 || status >= 500) throw s3Error(error, `s3://${this.name}/`);
    }
  }

  async #start(): Promise<S3> {
    const { region, endpoint } = this.#settings;
    const client = await this.#connect(region ?? (endpoint === undefined ? undefined : "us-east-1"));
    try {
      await client.config.region();
      return client;
    } catch {
      return this.#connect("us-east-1"); // none set anywhere: AWS answers with the bucket's own
    }
  }

  async #connect(region: string | undefined): Promise<S3> {
    const { endpoint, profile, accessKeyId, secretAccessKey, sessionToken, pathStyle } = this.#settings;
    const config: S3ClientConfig = {
      forcePathStyle: pathStyle ?? endpoint !== undefined,
      maxAttempts: ATTEMPTS,
      retryMode: "standard",
      // Servers that don't answer "100 continue" would see no body until the timeout.
      expectContinueHeader: false,
      logger: SILENT,
      requestHandler: {
        logger: SILENT,
        connectionTimeout: Math.min(CONNECT_MS, this.timeoutMs),
        requestTimeout: this.timeoutMs,
        throwOnRequestTimeout: true,
        httpAgent: { maxSockets: SOCKETS },
        httpsAgent: { maxSockets: SOCKETS },
      },
    };
    if (region !== undefined) config.region = region;
    if (profile !== undefined) config.profile = profile;
    if (accessKeyId !== undefined && secretAccessKey !== undefined)
      config.credentials = { accessKeyId, secretAccessKey, ...(sessionToken !== undefined && { sessionToken }) };
    if (endpoint !== undefined) {
      config.endpoint = endpoint;
      // Many servers know neither the checksum trailers nor the headers that the SDK sends to AWS by default.
      config.requestChecksumCalculation = "WHEN_REQUIRED";
      config.responseChecksumValidation = "WHEN_REQUIRED";
    }
    const { S3 } = await loadSdk();
    const client = new S3(config);
    if (this.#settings.requesterPays) payAsRequester(client);
    this.#clients.push(client);
    return client;
  }
}

function payAsRequester(client: S3): void {
  client.middlewareStack.add(
    (next) => (args) => {
      const { headers } = args.request as { headers: Record<string, string> };
      headers["x-amz-request-payer"] = "requester";
      return next(args);
    },
    // Before the step that signs: the header must be part of what is signed.
    { step: "build", name: "payAsRequester" },
  );
}
