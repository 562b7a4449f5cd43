/**
 * The one registry of error codes. A code is stable: it is never renamed or reused. `docs/errors.md` is generated from
 * this file (`npm run docs`).
 */

/** Who meets the error: a `row` error becomes a result row; a `shard` error makes the shard wait and try again. */
export type ErrorScope = "usage" | "system" | "row" | "shard";

interface ErrorEntry {
  scope: ErrorScope;
  /** True where the same thing may succeed later without anybody changing it. */
  retryable: boolean;
  /** What it means. */
  what: string;
  /** What to do about it. */
  fix: string;
}

export const ERRORS = {
  // ---- usage: the request is wrong; exit code 2
  USAGE: {
    scope: "usage",
    retryable: false,
    what: "The command line is not understood.",
    fix: "See `capfleet --help`, or the command's own `--help`.",
  },
  UNKNOWN_TASK: {
    scope: "usage",
    retryable: false,
    what: "There is no task of that name.",
    fix: "Use one of the tasks that the message lists.",
  },
  INVALID_OPTION: {
    scope: "usage",
    retryable: false,
    what: "An option's value is out of its range or of the wrong kind, or the option goes with another task, model or option only.",
    fix: "Correct the option that the message names.",
  },
  INVALID_CONFIG: {
    scope: "usage",
    retryable: false,
    what: "An environment variable or a configuration file has a value that can't be used.",
    fix: "Correct the setting that the message names.",
  },
  INVALID_URI: {
    scope: "usage",
    retryable: false,
    what: "A location is neither s3://bucket/key, file:///path nor a path.",
    fix: "Write the location in one of these forms.",
  },
  INPUT_NOT_FOUND: {
    scope: "usage",
    retryable: false,
    what: "The input does not exist.",
    fix: "Check the spelling and that this machine can see it.",
  },
  INPUT_EMPTY: {
    scope: "usage",
    retryable: false,
    what: "The input holds no images, or no records.",
    fix: "A prefix needs files ending in .jpg, .jpeg, .png, .webp, .gif, .tif, .tiff or .avif; a manifest needs lines.",
  },
  MANIFEST_INVALID: {
    scope: "usage",
    retryable: false,
    what: "A manifest can't be read, lacks a column, or one of its first 1,000 lines or rows is not what the task needs: an `image`, and the text column's text.",
    fix: 'JSONL: one JSON object a line, such as {"id": "1", "image": "photos/1.jpg", "question": "what is this?"}. CSV, TSV: a header line, and as many fields a line. --image-column, --text-column and --id-column name the columns.',
  },
  TAR_INVALID: {
    scope: "usage",
    retryable: false,
    what: "None of the first 100 samples of the tar shards is what the task needs or has a field that is to be kept, or the file is no tar.",
    fix: "Give plain tars (not compressed) whose samples have an image, and, where a text column is named, a .txt file or that field in a .json.",
  },
  OUTPUT_IN_USE: {
    scope: "usage",
    retryable: false,
    what: "The output location already holds another job or other files.",
    fix: "Choose an empty location, or repeat the very same command to go on with the job that is there.",
  },
  OUTPUT_INSIDE_INPUT: {
    scope: "usage",
    retryable: false,
    what: "The output lies inside the input, so that results would become input.",
    fix: "Choose an output outside the input prefix.",
  },
  DATASET_BUSY: {
    scope: "usage",
    retryable: true,
    what: "Another run of this dataset has not ended, so that a new one can't tell what is still to do.",
    fix: "Wait for it, go on with it (`capfleet resume <its output>`), or end it (`capfleet cancel <its output>`).",
  },
  NOT_CONFIRMED: {
    scope: "usage",
    retryable: false,
    what: "What was asked for can't be undone, and was not confirmed.",
    fix: "Answer the question with y, or give --yes.",
  },
  MODEL_NOT_FOUND: {
    scope: "usage",
    retryable: false,
    what: "No model of that name is known, and no checkpoint is there.",
    fix: "Name a bundled model, one that a worker has registered, a hub model (owner/name), or a folder or s3:// prefix with config.json and weights.",
  },
  HUB_NOT_FOUND: {
    scope: "usage",
    retryable: false,
    what: "The hub has no such model, or the model no such revision.",
    fix: "Compare the name with the model's page; HF_ENDPOINT says which hub is asked.",
  },
  MODEL_INVALID: {
    scope: "usage",
    retryable: false,
    what: "A checkpoint can't be used: a file is missing, or its contents are not what its config says.",
    fix: "Compare the folder with the model's page on the hub; download it again if a file is short.",
  },
  MODEL_UNSUPPORTED: {
    scope: "usage",
    retryable: false,
    what: "The checkpoint's architecture, or the form of its files, is not one that capfleet runs.",
    fix: "Use a checkpoint of a kind that the message lists as supported, or convert the file as it says.",
  },
  TASK_UNSUPPORTED: {
    scope: "usage",
    retryable: false,
    what: "The model can't do the task that was asked of it.",
    fix: "Choose a checkpoint that was trained for the task.",
  },
  JOB_NOT_FOUND: {
    scope: "usage",
    retryable: false,
    what: "No job with that id, or at that location.",
    fix: "`capfleet status` lists the jobs; CAPFLEET_STATE says where they are looked for.",
  },
  JOB_STATE: {
    scope: "usage",
    retryable: false,
    what: "The job is not in a state in which that can be done.",
    fix: "See `capfleet status <job>`.",
  },
  ROW_NOT_FOUND: {
    scope: "usage",
    retryable: false,
    what: "The job has no such row, not yet, or none with a picture.",
    fix: "Take a position from a page of the job's results.",
  },
  RATE_UNKNOWN: {
    scope: "usage",
    retryable: false,
    what: "No job has measured how fast workers do that with that model, so that nothing can be said of a job to come.",
    fix: "Run a sample first (`capfleet run … --limit 200`), or give a rate yourself: `--rate`, in images a second of one worker.",
  },
  COUNT_TIMEOUT: {
    scope: "usage",
    retryable: false,
    what: "The input is too large for the API to count it while somebody waits.",
    fix: "Give `images`, their number, in the place of `input`; or use `capfleet plan`, which counts to the end.",
  },
  SCHEDULE_EXISTS: {
    scope: "usage",
    retryable: false,
    what: "There is a schedule of that name already.",
    fix: "Choose another name, or delete the schedule first: `capfleet schedule delete <name>`.",
  },
  SCHEDULE_NOT_FOUND: {
    scope: "usage",
    retryable: false,
    what: "No schedule of that name.",
    fix: "`capfleet schedule list` lists them; CAPFLEET_STATE says where they are looked for.",
  },

  // ---- usage, over HTTP and with keys: docs/api.md says which status each has
  REQUEST_INVALID: {
    scope: "usage",
    retryable: false,
    what: "A request's body, query, header or path is not what the API takes.",
    fix: "Correct what the message names; /docs and /openapi.json say what each request takes.",
  },
  ROUTE_NOT_FOUND: {
    scope: "usage",
    retryable: false,
    what: "The API has no such path.",
    fix: "See /docs or /openapi.json for the paths.",
  },
  METHOD_NOT_ALLOWED: {
    scope: "usage",
    retryable: false,
    what: "The path does not take that method.",
    fix: "Use one of the methods that the answer's Allow header lists.",
  },
  BODY_TOO_LARGE: {
    scope: "usage",
    retryable: false,
    what: "A request's body is larger than the API takes.",
    fix: "Put long lists of questions, texts or images into a manifest, and name that as the input.",
  },
  MEDIA_TYPE_UNSUPPORTED: {
    scope: "usage",
    retryable: false,
    what: "A request's body is not said to be JSON.",
    fix: "Send the header `Content-Type: application/json`.",
  },
  RATE_LIMITED: {
    scope: "usage",
    retryable: true,
    what: "The key, or the address, has sent more requests than CAPFLEET_API_RATE allows in a minute.",
    fix: "Wait as long as the answer's Retry-After header says; follow a job by its events instead of asking again and again.",
  },
  TOO_MANY_STREAMS: {
    scope: "usage",
    retryable: true,
    what: "As many clients follow jobs by their events as one producer serves.",
    fix: "Try again later, or ask for the job itself now and then.",
  },
  IDEMPOTENCY_CONFLICT: {
    scope: "usage",
    retryable: false,
    what: "The Idempotency-Key was used before, for another request.",
    fix: "Send the same body as before, or take a new key for a new job.",
  },
  UNAUTHENTICATED: {
    scope: "usage",
    retryable: false,
    what: "The request has no API key, or one that is unknown, revoked or misspelt.",
    fix: "Send `Authorization: Bearer cf_\u2026` with a key of `capfleet keys create`.",
  },
  FORBIDDEN: {
    scope: "usage",
    retryable: false,
    what: "The API key's scope does not cover what was asked.",
    fix: "Use a key of a wider scope: `capfleet keys create --scope submit`.",
  },
  LOCATION_FORBIDDEN: {
    scope: "usage",
    retryable: false,
    what: "The caller may not read or write at that location.",
    fix: "Choose a location below the key's prefixes (`capfleet keys list`), or let the operator make a key for it; files need CAPFLEET_API_FILES.",
  },
  HOST_FORBIDDEN: {
    scope: "usage",
    retryable: false,
    what: "The request came to this machine by a name that is not its own, or from another site's page.",
    fix: "Call the API as http://127.0.0.1 or http://localhost; for other machines make a key and give `capfleet serve --host`.",
  },
  WEBHOOK_FORBIDDEN: {
    scope: "usage",
    retryable: false,
    what: "A webhook's URL is not https, has credentials in it, or leads to an address that is private, loopback, link-local or otherwise not public.",
    fix: "Use a public https:// URL, or let the operator add the network to CAPFLEET_WEBHOOK_NETWORKS.",
  },
  KEYS_REQUIRED: {
    scope: "usage",
    retryable: false,
    what: "The API was asked to serve other machines, and has no key that could tell who may.",
    fix: "Make one first: `capfleet keys create --name NAME --scope admin`.",
  },
  KEY_NOT_FOUND: {
    scope: "usage",
    retryable: false,
    what: "No API key with that id.",
    fix: "`capfleet keys list` lists them.",
  },

  // ---- system: the surroundings are wrong; exit code 1
  REDIS_MISSING: {
    scope: "system",
    retryable: false,
    what: "There is no Redis to use and none could be started.",
    fix: "Install one (`apt-get install redis-server`), or set CAPFLEET_REDIS_URL=redis://host:6379.",
  },
  REDIS_UNREACHABLE: {
    scope: "system",
    retryable: true,
    what: "Redis does not answer.",
    fix: "Check that it runs and that CAPFLEET_REDIS_URL is right (host, port, password, TLS).",
  },
  REDIS_UNSUITABLE: {
    scope: "system",
    retryable: false,
    what: "Redis answers but can't be used as it is: too old, or it may evict keys.",
    fix: "Use Redis 6.2 or newer (or Valkey) with `maxmemory-policy noeviction`.",
  },
  REDIS_REFUSED: {
    scope: "system",
    retryable: true,
    what: "Redis answers, and refuses a command: it is out of memory, read-only, or its user may not do that.",
    fix: "The message has its words. Give it more memory (`maxmemory`) or disk, name the primary in CAPFLEET_REDIS_URL, or allow its user what infra/redis/users.acl does. Work goes on when it takes commands again.",
  },
  HUB_UNREACHABLE: {
    scope: "system",
    retryable: true,
    what: "The Hugging Face hub does not answer, or answers with an error of its own, and the model is not in the cache.",
    fix: "Check the network and HF_ENDPOINT; or take a folder or s3:// prefix with the checkpoint. What has arrived is kept.",
  },
  HUB_ACCESS_DENIED: {
    scope: "system",
    retryable: false,
    what: "The hub does not let this machine have the model: it is private or gated, or there is no such model.",
    fix: "Check the name, accept the model's terms on its page, and set HF_TOKEN to a token that may read it.",
  },
  DOWNLOAD_CORRUPT: {
    scope: "system",
    retryable: true,
    what: "A downloaded file has, twice, not the size or the checksum that its source gives for it. It was thrown away.",
    fix: "Try again; if it stays so, a proxy changes what passes it, or the file is damaged where it comes from.",
  },
  DISK_FULL: {
    scope: "system",
    retryable: false,
    what: "There is no space left, or no quota, for a checkpoint or a compiled engine.",
    fix: "Make room in the folder that the message names, or set CAPFLEET_CACHE to a folder on a larger disk.",
  },
  VERIFY_FAILED: {
    scope: "system",
    retryable: false,
    what: "An engine's answers are further from a golden file's than the tolerance allows.",
    fix: "See the rows that the command lists; docs/models.md says what each precision is expected to keep.",
  },
  STORE_ACCESS_DENIED: {
    scope: "shard",
    retryable: true,
    what: "The object store refuses access (403), or the file system does (permission denied).",
    fix: "Grant reading and writing there; on S3: s3:GetObject, s3:PutObject, s3:ListBucket, and s3:DeleteObject on the output; a bucket whose requester pays needs requesterPays in CAPFLEET_STORES. A job goes on by itself then.",
  },
  STORE_CREDENTIALS: {
    scope: "shard",
    retryable: true,
    what: "The object store's credentials are missing, wrong or expired.",
    fix: "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role, or CAPFLEET_STORES; see `capfleet doctor`.",
  },
  STORE_BUCKET_NOT_FOUND: {
    scope: "shard",
    retryable: true,
    what: "The bucket (or the folder's disk) does not exist.",
    fix: "Create it, or correct its name and the endpoint.",
  },
  STORE_UNAVAILABLE: {
    scope: "shard",
    retryable: true,
    what: "The object store does not answer, or answers with an error of its own (5xx, throttling, network).",
    fix: "Nothing, if it passes: the work waits and tries again. Otherwise check endpoint and network.",
  },
  STORE_UNSORTED: {
    scope: "system",
    retryable: false,
    what: "The object store lists keys out of UTF-8 byte order, so a listing can't be resumed safely.",
    fix: "Use a manifest instead of a prefix, or a general-purpose bucket.",
  },
  OBJECT_TOO_LARGE: {
    scope: "system",
    retryable: false,
    what: "An object is larger than the reader's limit.",
    fix: "Check that the location is the one you meant.",
  },
  OBJECT_NOT_FOUND: {
    scope: "system",
    retryable: false,
    what: "An object that should be there is not.",
    fix: "Check that nobody deletes or moves what a job has written.",
  },
  SOURCE_CHANGED: {
    scope: "system",
    retryable: false,
    what: "A manifest or a tar changed while its job was being planned, or a checkpoint while it was being copied.",
    fix: "Submit a new job for the new manifest, with an output of its own; for a checkpoint, try again.",
  },
  DEVICE_UNAVAILABLE: {
    scope: "system",
    retryable: false,
    what: "The device that was asked for can't be used: no such GPU, or its driver or ONNX Runtime's provider is missing.",
    fix: "Install the NVIDIA driver, CUDA and ONNX Runtime's CUDA provider (docs/models.md), or use --device cpu.",
  },
  ENGINE_FAILED: {
    scope: "shard",
    retryable: true,
    what: "The model could not be loaded or run on this worker.",
    fix: "See the worker's log; check its memory and the checkpoint (`capfleet doctor`).",
  },
  WORKER_LOST: {
    scope: "shard",
    retryable: true,
    what: "A worker died again and again on the same shard, at last with a process of its own for the records: it is not one of them that is to blame.",
    fix: "See the worker's log and its memory limit; the job tries on with growing pauses.",
  },
  FLEET_UNKNOWN: {
    scope: "system",
    retryable: true,
    what: "What the fleet has to do is not known at the moment: Redis was emptied, no producer has looked after the jobs for a minute, or the state of some can't be read.",
    fix: "Try again in a few seconds. If it stays so, see the producer's log: a `capfleet serve` must be running and reach Redis and the state root.",
  },
  NO_WORKER: {
    scope: "system",
    retryable: true,
    what: "No live worker runs the model, or both models, of an interactive request.",
    fix: "Start one: `capfleet-worker --models <model>`; `capfleet infer --precision` chooses another that runs.",
  },
  INFER_BUSY: {
    scope: "system",
    retryable: true,
    what: "Too many interactive requests, or too many bytes of images for them, are waiting for an answer.",
    fix: "Try again in a moment; add workers if it stays so. Many images are better a job (`capfleet submit`).",
  },
  INFER_TIMEOUT: {
    scope: "system",
    retryable: true,
    what: "An interactive request was not answered in its time, and was withdrawn.",
    fix: "Try again, or give it longer (`capfleet infer --timeout`); add workers if it stays so.",
  },
  THUMBNAIL_TIMEOUT: {
    scope: "system",
    retryable: true,
    what: "A picture could not be fetched and made small in the time that one may take.",
    fix: "Try again in a moment; many may be asked for at once, or its store may be slow.",
  },
  WORKER_START_FAILED: {
    scope: "system",
    retryable: false,
    what: "The worker process ended several times in a row before it had labelled anything.",
    fix: "Its last words, if it had any, are above; `capfleet doctor` checks the parts one by one.",
  },
  TOO_MANY_ERRORS: {
    scope: "system",
    retryable: false,
    what: "A larger part of the job's rows failed than --max-error-rate allows (half of them, unless said otherwise).",
    fix: "See why with `capfleet results <job> --errors`; when that is mended, `capfleet retry <job>` goes on.",
  },
  ADDRESS_UNAVAILABLE: {
    scope: "system",
    retryable: false,
    what: "The API can't listen at its address: another process does, or the address is not this machine's.",
    fix: "Stop the other process, or choose another with `capfleet serve --port` or --host.",
  },
  JOB_FAILED: {
    scope: "system",
    retryable: false,
    what: "The job could not finish.",
    fix: "See the reason that the message gives.",
  },
  INTERRUPTED: {
    scope: "system",
    retryable: true,
    what: "The command was stopped before the job was finished.",
    fix: "Go on with `capfleet resume <job or output>`.",
  },
  INTERNAL: {
    scope: "system",
    retryable: false,
    what: "capfleet met something that it did not expect.",
    fix: "Please report it, with the line in the log (CAPFLEET_LOG=debug shows where it came from).",
  },

  // ---- row: one record can't be labelled; it gets a row that says so
  IMAGE_NOT_FOUND: {
    scope: "row",
    retryable: false,
    what: "There is no image at the record's location.",
    fix: "Check the key; the listing or manifest may be older than a deletion.",
  },
  IMAGE_FORBIDDEN: {
    scope: "row",
    retryable: false,
    what: "The image lies where the API key that submitted the job may not read.",
    fix: "Name images below the key's read prefixes, or let the operator make a key for the others.",
  },
  IMAGE_CHANGED: {
    scope: "row",
    retryable: false,
    what: "The tar that holds the image has been replaced since the job was planned, so its images are elsewhere in it.",
    fix: "Submit a new job for the tars as they are now, with an output of its own.",
  },
  IMAGE_EMPTY: { scope: "row", retryable: false, what: "The file has no bytes.", fix: "Upload the image again." },
  IMAGE_TOO_LARGE: {
    scope: "row",
    retryable: false,
    what: "The file is larger than the limit in bytes.",
    fix: "Shrink it, or raise CAPFLEET_MAX_IMAGE_BYTES.",
  },
  IMAGE_TOO_MANY_PIXELS: {
    scope: "row",
    retryable: false,
    what: "The image has more pixels than the limit; small files can hold enormous images.",
    fix: "Shrink it, or raise CAPFLEET_MAX_IMAGE_PIXELS.",
  },
  IMAGE_TOO_SLOW: {
    scope: "row",
    retryable: false,
    what: "The image took longer to decode than the limit.",
    fix: "Shrink it or save it in a simpler form, or raise CAPFLEET_MAX_DECODE_SECONDS.",
  },
  IMAGE_UNREADABLE: {
    scope: "row",
    retryable: false,
    what: "The file is not an image that the decoder can read: another format, or damaged or cut-off bytes.",
    fix: "Upload it again as JPEG, PNG, WebP, GIF, TIFF or AVIF.",
  },
  IMAGE_URI_INVALID: {
    scope: "row",
    retryable: false,
    what: "The record's `image` is not a location that can be read.",
    fix: "Use s3://bucket/key, file:///path, https:// (where it is allowed), or a path relative to the manifest.",
  },
  IMAGE_HTTPS_FORBIDDEN: {
    scope: "row",
    retryable: false,
    what: "The image's https:// host is not one that CAPFLEET_HTTPS_HOSTS allows, or its address is private, loopback, link-local or otherwise not public.",
    fix: "Let the operator add the host to CAPFLEET_HTTPS_HOSTS, or a private network to CAPFLEET_HTTPS_NETWORKS.",
  },
  IMAGE_HTTPS_REFUSED: {
    scope: "row",
    retryable: false,
    what: "The web server refuses the image (another 4xx than 404, 408, 410 and 429), or redirects without end.",
    fix: "Open the URL from another place; many servers let browsers in only.",
  },
  IMAGE_HTTPS_FAILED: {
    scope: "row",
    retryable: true,
    what: "The web server could not be reached, broke off, or answered with an error of its own (5xx, 408, 429), several times.",
    fix: "Run `capfleet retry <job>` later.",
  },
  RECORD_INVALID: {
    scope: "row",
    retryable: false,
    what: "The manifest's line or row, or the tar's sample, is not a record with an image.",
    fix: "Correct what the message names.",
  },
  TEXT_MISSING: {
    scope: "row",
    retryable: false,
    what: "The manifest's line has nothing in the column that the job takes its questions or texts from.",
    fix: "Give the line a text there, or a list of texts.",
  },
  TEXT_INVALID: {
    scope: "row",
    retryable: false,
    what: "What the manifest's line has in the text column is neither a text nor a list of 1 to 1,000 texts.",
    fix: 'Write a text, such as "is there a dog?", or a list of texts, none of them empty.',
  },
  INFERENCE_FAILED: {
    scope: "row",
    retryable: true,
    what: "The model failed on this record, alone as well as in a batch.",
    fix: "See the worker's log for the runtime's message.",
  },
  WORKER_CRASHED: {
    scope: "row",
    retryable: false,
    what: "Decoding this image, or running the model on this record, ends the process that does it, or never ends.",
    fix: "Save the image anew with another program and submit it again; please report it, with the image.",
  },
} as const satisfies Record<string, ErrorEntry>;

export type ErrorCode = keyof typeof ERRORS;

/** An error with a code from the registry. `message` names the thing that is wrong; the registry says what to do. */
export class CapfleetError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = "CapfleetError";
    this.code = code;
  }

  get scope(): ErrorScope {
    return ERRORS[this.code].scope;
  }

  get retryable(): boolean {
    return ERRORS[this.code].retryable;
  }

  /** What the user can do about it, as one sentence. */
  get fix(): string {
    return ERRORS[this.code].fix;
  }

  /** 2 where the request is wrong, 1 where something else is. */
  get exitCode(): 1 | 2 {
    return this.scope === "usage" ? 2 : 1;
  }
}

/** Any thrown value as a CapfleetError; what has no code yet gets `fallback`. */
export function asCapfleetError(thrown: unknown, fallback: ErrorCode = "INTERNAL"): CapfleetError {
  if (thrown instanceof CapfleetError) return thrown;
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return new CapfleetError(fallback, message, { cause: thrown });
}
