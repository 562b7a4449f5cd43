/**
 * Files of a tar that are one sample, and the record that they make. As in WebDataset, a file's key is its path up to the
 * first dot of its last part; neighbours with one key are a sample.
 */
import type { ErrorCode } from "../contract/errors.ts";
import type { InputRecord, RowError } from "../contract/record.ts";
import { type JobTaskSpec, needsImage, needsText, textsOf } from "../contract/task.ts";
import { readTexts } from "./manifest.ts";
import type { TarMember } from "./tar.ts";

const NAME = /^((?:.*\/)?[^./][^./]*)\.([^/]*)$/s;
const IMAGE = /^(jpe?g|png|webp|gif|tiff?|avif)$/;
export const MAX_TEXT_BYTES = 1024 * 1024;

/** What a task takes from a sample. */
export interface WantedOfSample {
  image: boolean;
  /** The field that holds the texts: `txt` is the file, any other is one of the json. Null: the task needs none. */
  column: string | null;
  /** Whether a sample may lack it. */
  optional: boolean;
  /** Fields that go along. */
  keep: readonly string[];
  txt: boolean;
  json: boolean;
}

/** The tar that a sample is in. */
export interface SampleTar {
  uri: string;
  etag: string;
}

export function wantedOfSample(task: JobTaskSpec, keep: readonly string[]): WantedOfSample {
  const source = textsOf(task);
  const column = source && "column" in source ? source.column : null;
  const fields = column === null ? keep : [column, ...keep];
  return {
    image: needsImage(task),
    column,
    optional: !needsText(task),
    keep,
    txt: fields.includes("txt"),
    json: fields.some((field) => field !== "txt"),
  };
}

/** A file's key and what it is; null for a name that has neither, such as `.hidden`. */
export function splitName(name: string): { key: string; extension: string } | null {
  const found = NAME.exec(name);
  return found && { key: found[1]!, extension: found[2]!.toLowerCase() };
}

export class Sample {
  readonly key: string;
  /** Offset in the tar of the header after the last file. */
  next = 0;
  readonly #wanted: WantedOfSample;
  /** The first two of each; `a.mask.png` is an image only where there is no `a.png`. */
  readonly #images: TarMember[] = [];
  readonly #otherImages: TarMember[] = [];
  readonly #bodies = new Map<string, string>();
  /** A text or json that is there, whether wanted or not. */
  #text: string | null = null;
  #problem: RowError | null = null;

  constructor(key: string, wanted: WantedOfSample) {
    this.key = key;
    this.#wanted = wanted;
  }

  /** `read` gives the member's bytes. */
  async add(member: TarMember, extension: string, read: () => Promise<Buffer>): Promise<void> {
    this.next = member.next;
    const { name, size, type } = member;
    if (!member.isWhole) {
      this.#problem ??= invalid(`the tar ends within ${name}, which begins at byte ${member.offset}`);
    } else if (extension === "txt" || extension === "json") {
      this.#text ??= name;
      if (!this.#wanted[extension]) return;
      if (type !== "file") this.#problem ??= invalid(`${name} is a ${type}`);
      else if (size > MAX_TEXT_BYTES) this.#problem ??= invalid(`${name} is longer than ${MAX_TEXT_BYTES} bytes`);
      else if (this.#bodies.has(extension)) this.#problem ??= invalid(`there are two files ${name}`);
      else this.#bodies.set(extension, (await read()).toString("utf8").replace(/^\uFEFF/, ""));
    } else if (IMAGE.test(extension)) {
      if (this.#images.length < 2) this.#images.push(member);
    } else if (IMAGE.test(extension.slice(extension.lastIndexOf(".") + 1))) {
      if (this.#otherImages.length < 2) this.#otherImages.push(member);
    }
  }

  /** Null where the files are no sample: neither image, nor text, nor json. */
  record(tar: SampleTar): InputRecord | null {
    const { column, keep, optional } = this.#wanted;
    const [image, second] = this.#images.length > 0 ? this.#images : this.#otherImages;
    if (!image && this.#text === null && !this.#problem) return null;
    const record: InputRecord = { id: this.key, image: null };
    if (image) {
      const { name, offset, size } = image;
      record.image = tar.uri;
      record.member = { name, offset, size, etag: tar.etag };
    }
    const error = this.#problem ?? this.#imageProblem(image, second);
    if (error) return { ...record, error };

    const fields = this.#readJson();
    if (fields === null) return { ...record, error: invalid(`${this.key}.json is not a JSON object`) };
    const text = this.#bodies.get("txt")?.trim();
    if (text !== undefined) fields.set("txt", text);
    else fields.delete("txt");
    if (keep.length > 0) {
      const there = keep.filter((field) => fields.has(field));
      record.kept = Object.fromEntries(there.map((field) => [field, fields.get(field)])) as InputRecord["kept"];
    }
    if (column === null) return record;
    const texts = readTexts(fields.get(column), column);
    if (Array.isArray(texts)) return { ...record, texts };
    if (optional && texts.code === "TEXT_MISSING") return { ...record, texts: [] };
    return { ...record, error: texts };
  }

  #imageProblem(image: TarMember | undefined, second: TarMember | undefined): RowError | null {
    if (!this.#wanted.image) return null;
    if (!image) return invalid(`no image beside ${this.#text}; a sample's files must follow one another in the tar`);
    if (second) return invalid(`two images of one key, ${image.name} and ${second.name}`);
    return image.type === "file" ? null : invalid(`${image.name} is a ${image.type}`);
  }

  /** Null where it is there and no object. */
  #readJson(): Map<string, unknown> | null {
    const body = this.#bodies.get("json");
    if (body === undefined) return new Map();
    try {
      const value: unknown = JSON.parse(body);
      const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
      return isObject ? new Map(Object.entries(value)) : null;
    } catch {
      return null;
    }
  }
}

const rowError = (code: ErrorCode, message: string): RowError => ({ code, message, retryable: false });
const invalid = (message: string): RowError => rowError("RECORD_INVALID", message);
