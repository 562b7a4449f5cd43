/**
 * Files of a tar that are one sample, and the record that they make. As in WebDataset, a file's key is its path up to the
 * first dot of its last part; neighbours with one key are a sample.
 */
import type { InputRecord, RowError } from "../contract/record.ts";
import type { JobTaskSpec } from "../contract/task.ts";
import { type Fields, rowError, type Wanted, wantedOf, withFields } from "./fields.ts";
import type { TarMember } from "./tar.ts";

const NAME = /^((?:.*\/)?[^./][^./]*)\.([^/]*)$/s;
const IMAGE = /^(jpe?g|png|webp|gif|tiff?|avif)$/;
export const MAX_TEXT_BYTES = 1024 * 1024;

/** What a task takes from a sample: the field `txt` is that file, any other is one of the json. */
export interface WantedOfSample extends Wanted {
  txt: boolean;
  json: boolean;
}

/** The tar that a sample is in. */
export interface SampleTar {
  uri: string;
  etag: string;
}

export function wantedOfSample(task: JobTaskSpec, keep: readonly string[]): WantedOfSample {
  const wanted = wantedOf(task, keep);
  const fields = wanted.column === null ? keep : [wanted.column, ...keep];
  return { ...wanted, txt: fields.includes("txt"), json: fields.some((field) => field !== "txt") };
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
    if (text !== undefined) fields.txt = text;
    else delete fields.txt;
    return withFields(record, fields, this.#wanted);
  }

  #imageProblem(image: TarMember | undefined, second: TarMember | undefined): RowError | null {
    if (!this.#wanted.image) return null;
    if (!image) return invalid(`no image beside ${this.#text}; a sample's files must follow one another in the tar`);
    if (second) return invalid(`two images of one key, ${image.name} and ${second.name}`);
    return image.type === "file" ? null : invalid(`${image.name} is a ${image.type}`);
  }

  /** Null where it is there and no object. */
  #readJson(): Fields | null {
    const body = this.#bodies.get("json");
    if (body === undefined) return {};
    try {
      const value: unknown = JSON.parse(body);
      const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
      return isObject ? (value as Fields) : null;
    } catch {
      return null;
    }
  }
}

const invalid = (message: string): RowError => rowError("RECORD_INVALID", message);
