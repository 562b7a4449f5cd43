/**
 * Finds a checkpoint's weights: which files of the folder hold them, and which tensors are in them. Where a folder has
 * several forms of the same weights, the first of transformers' order is read: safetensors before pickles, one file
 * before several.
 */
import type { FileHandle } from "node:fs/promises";
import { join } from "node:path";
import * as z from "zod";
import { readOptionalJson } from "../json.ts";
import { openFile, readFully } from "./file.ts";
import { transformersName } from "./names.ts";
import { readSafetensors } from "./safetensors.ts";
import { type Checkpoint, type FileVersion, invalid, type StoredTensor } from "./tensor.ts";
import { readTorchFile } from "./torch.ts";

const FORMS = [
  { file: "model.safetensors", read: readSafetensors },
  { file: "pytorch_model.bin", read: readTorchFile },
];
const indexOf = (file: string) => `${file}.index.json`;

/** Names to files. One message for all of them, since an index may have a million wrong ones. */
const weightMap = z.custom<Record<string, string>>(
  (map) => typeof map === "object" && map !== null && Object.values(map).every(isFileName),
  "is not an object that gives each tensor the name of a file in this folder",
);
/** A shard is a file of the folder: an index can't lead anywhere else. */
const isFileName = (name: unknown) => typeof name === "string" && /^(?!\.\.?$)[^/\\\0]+$/.test(name);
const indexSchema = z.looseObject({ weight_map: weightMap });

/** Reads the headers of the folder's weights. Throws MODEL_INVALID, naming the file and what is wrong. */
export async function openCheckpoint(folder: string): Promise<Checkpoint> {
  const weights = new CheckpointFiles(folder);
  for (const { file, read } of FORMS) {
    if (await weights.add(file, read)) return weights;
    const index = join(folder, indexOf(file));
    const content = await readOptionalJson(index, indexSchema);
    if (content) return addShards(weights, index, content.weight_map, read);
  }
  const names = FORMS.flatMap(({ file }) => [file, indexOf(file)]);
  return invalid(folder, `has no weights: none of ${names.join(", ")} is there`);
}

type Read = (typeof FORMS)[number]["read"];

class CheckpointFiles implements Checkpoint {
  readonly folder: string;
  readonly files = new Map<string, FileVersion>();
  readonly tensors = new Map<string, StoredTensor>();

  constructor(folder: string) {
    this.folder = folder;
  }

  /** False where the folder has no such file. */
  async add(name: string, read: Read): Promise<boolean> {
    const path = join(this.folder, name);
    const opened = await openFile(path);
    if (!opened) return false;
    await using handle = opened.handle;
    await refusePointer(handle, path, opened.version.size);
    this.files.set(path, opened.version);
    for (const tensor of await read(handle, path, opened.version.size)) this.#add(tensor);
    return true;
  }

  #add(tensor: StoredTensor): void {
    const name = transformersName(tensor.name);
    const other = this.tensors.get(name);
    if (other) invalid(tensor.file, `has tensor ${tensor.name}, which ${other.file} has as well, as ${other.name}`);
    this.tensors.set(name, tensor);
  }
}

/** All of the shards' tensors, as transformers takes them; what the index says of them has to be true. */
async function addShards(weights: CheckpointFiles, index: string, map: Record<string, string>, read: Read) {
  for (const shard of new Set(Object.values(map))) {
    if (!(await weights.add(shard, read))) invalid(join(weights.folder, shard), `is missing; ${index} names it`);
  }
  for (const [name, shard] of Object.entries(map)) {
    const found = weights.tensors.get(transformersName(name));
    const file = join(weights.folder, shard);
    if (found?.file !== file) invalid(index, `says that tensor ${name} is in ${file}, which has no such tensor`);
  }
  return weights;
}

/** What `git clone` leaves in the place of a large file where Git LFS is not installed. */
const POINTER = "version https://git-lfs.github.com/";

async function refusePointer(handle: FileHandle, path: string, size: number): Promise<void> {
  const start = new Uint8Array(Math.min(size, POINTER.length));
  await readFully(handle, path, start, 0);
  if (new TextDecoder().decode(start) !== POINTER) return;
  invalid(path, "is Git LFS's placeholder for the weights, not the weights: fetch them with `git lfs pull`");
}
