/**
 * A model on the Hugging Face hub, or on a server with its API (HF_ENDPOINT), by the hub's own client. The client's
 * `snapshotDownload` takes whole repositories, starts a broken download again from the beginning and checks no sums. So
 * its parts are used: `modelInfo` says which commit a revision is, `listFiles` what is in it, and `downloadFile` gives a
 * file as a Blob of which a slice can be read: from a plain address with a Range request, from the hub's xet store by
 * the client's own reconstruction.
 */

import { setTimeout as delay } from "node:timers/promises";
import { downloadFile, listFiles, modelInfo } from "@huggingface/hub";
import * as z from "zod";
import { CapfleetError } from "../contract/errors.ts";
import { checkpointFiles } from "./files.ts";
import { HubRequests, unreachable } from "./hub-fetch.ts";
import type { Remote, RemoteFile } from "./remote.ts";

const STALL_MS = 60_000;
const QUESTION_ATTEMPTS = 3;
const COMMIT = /^[0-9a-f]{40}$/;

export interface HubSettings {
  /** Without a slash at its end. */
  endpoint: string;
  token: string | undefined;
  isOffline: boolean;
  /** Whether files in the xet store are read by its protocol, or through the hub's bridge like any other. */
  usesXet: boolean;
  /** Without a byte for so long, a download is begun again where it is. */
  stallMs: number;
}

const flag = z.string().transform((text) => /^(1|true|yes|on)$/i.test(text));
const settingsSchema = z.object({
  HF_ENDPOINT: z.url({ protocol: /^https?$/ }).default("https://huggingface.co"),
  HF_TOKEN: z.string().startsWith("hf_", "a token begins with hf_").optional(),
  HF_HUB_OFFLINE: flag.default(false),
  HF_HUB_DISABLE_XET: flag.default(false),
});

/** The variables that the hub's other clients read too. Throws INVALID_CONFIG, without repeating a value. */
export function readHubSettings(env: NodeJS.ProcessEnv = process.env): HubSettings {
  const set = Object.fromEntries(Object.entries(env).filter(([, value]) => value !== ""));
  const parsed = settingsSchema.safeParse(set);
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    throw new CapfleetError("INVALID_CONFIG", `${issue.path.join(".")}: ${issue.message}`);
  }
  const { HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE, HF_HUB_DISABLE_XET } = parsed.data;
  const endpoint = HF_ENDPOINT.replace(/\/+$/, "");
  return { endpoint, token: HF_TOKEN, isOffline: HF_HUB_OFFLINE, usesXet: !HF_HUB_DISABLE_XET, stallMs: STALL_MS };
}

export class HubModel implements Remote {
  readonly id: string;
  readonly asked: string;
  readonly pinned: string | null;
  readonly #repo: string;
  readonly #settings: HubSettings;

  /** `repo` is `owner/name`; `revision` a branch, a tag or a commit, by default `main`. */
  constructor(repo: string, revision: string | null, settings: HubSettings) {
    this.id = `${settings.endpoint}/${repo}`;
    this.asked = revision ?? "main";
    this.pinned = COMMIT.test(this.asked) ? this.asked : null;
    this.#repo = repo;
    this.#settings = settings;
  }

  /** The commit. Throws HUB_UNREACHABLE, HUB_ACCESS_DENIED, HUB_NOT_FOUND. */
  async version(): Promise<string> {
    const { sha } = await this.#ask(`${this.#repo}@${this.asked}`, (request) =>
      modelInfo({ name: this.#repo, revision: this.asked, additionalFields: ["sha"], ...request }),
    );
    if (!COMMIT.test(sha)) throw new CapfleetError("HUB_UNREACHABLE", `${this.id}: the hub names no commit`);
    return sha;
  }

  /** Throws MODEL_INVALID where the repository has no config.json, and what `version` throws. */
  async files(commit: string): Promise<RemoteFile[]> {
    const listed = await this.#ask(`the files of ${this.#repo}@${commit}`, (request) =>
      Array.fromAsync(listFiles({ repo: this.#repo, revision: commit, ...request })),
    );
    const found = new Map(listed.filter(({ type }) => type === "file").map((entry) => [entry.path, entry]));
    if (!found.has("config.json")) throw new CapfleetError("MODEL_INVALID", `${this.id} has no config.json`);
    return checkpointFiles([...found.keys()]).map((name) => {
      const { size, oid, lfs } = found.get(name)!;
      const checksum = lfs
        ? ({ kind: "sha256", hex: lfs.oid } as const)
        : oid
          ? ({ kind: "git", hex: oid } as const)
          : null;
      const file = { name, size: lfs?.size ?? size, checksum };
      return { ...file, open: (start: number, signal: AbortSignal) => this.#read(commit, file, start, signal) };
    });
  }

  get #request() {
    const { endpoint, token } = this.#settings;
    return { hubUrl: endpoint, ...(token === undefined ? {} : { accessToken: token }) };
  }

  /** A small question, asked again where there is no answer. */
  async #ask<T>(
    what: string,
    question: (request: { hubUrl: string; accessToken?: string; fetch: typeof fetch }) => Promise<T>,
  ): Promise<T> {
    const { endpoint, isOffline } = this.#settings;
    if (isOffline) throw new CapfleetError("HUB_UNREACHABLE", `${this.id} is not asked: HF_HUB_OFFLINE is set`);
    for (let attempt = 1; ; attempt++) {
      const requests = new HubRequests(endpoint, what);
      try {
        return await question({ ...this.#request, fetch: requests.fetch });
      } catch (thrown) {
        const error = unreachable(this.id, thrown);
        if (error.code !== "HUB_UNREACHABLE" || attempt === QUESTION_ATTEMPTS) throw error;
      }
      await delay(250 * 3 ** (attempt - 1) * (1 + Math.random()));
    }
  }

  async *#read(
    commit: string,
    { name, size }: Pick<RemoteFile, "name" | "size">,
    start: number,
    signal: AbortSignal,
  ): AsyncGenerator<Uint8Array> {
    const { endpoint, usesXet, stallMs } = this.#settings;
    const stalled = new AbortController();
    const what = `${this.#repo}/${name}`;
    const requests = new HubRequests(endpoint, what, AbortSignal.any([signal, stalled.signal]));
    const silence = `${this.id}/${name}: nothing has come for ${stallMs / 1000} s`;
    const timer = setTimeout(() => stalled.abort(new CapfleetError("HUB_UNREACHABLE", silence)), stallMs);
    let reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
    try {
      const blob = await downloadFile({
        repo: this.#repo,
        path: name,
        revision: commit,
        xet: usesXet,
        fetch: requests.fetch,
        ...this.#request,
      });
      if (blob === null) throw new CapfleetError("HUB_NOT_FOUND", `${what} is listed, but not there`);
      if (blob.size !== size) {
        throw new CapfleetError("DOWNLOAD_CORRUPT", `${what} has ${blob.size} bytes, and the hub lists ${size}`);
      }
      let at = start;
      reader = blob.slice(start).stream().getReader();
      for (;;) {
        timer.refresh();
        const { done, value } = await reader.read();
        if (done) break;
        at += value.length;
        yield value;
      }
      if (at < size) throw new CapfleetError("HUB_UNREACHABLE", `${what}: the answer ended at byte ${at} of ${size}`);
    } catch (thrown) {
      signal.throwIfAborted();
      throw requests.failure ?? (stalled.signal.aborted ? stalled.signal.reason : unreachable(what, thrown));
    } finally {
      clearTimeout(timer);
      await reader?.cancel().catch(() => {});
    }
  }
}
