/** What is in the cache: downloaded checkpoints and compiled engines, whole or not. */
import { readdir, readFile, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import type { Config } from "@capfleet/shared/config";
import { engineRefSchema, taskSchema } from "@capfleet/shared/contract";
import { checkpointAbilities, checkpointsFolder, describeCheckpoint, isWhole, PARTIAL } from "@capfleet/shared/models";
import * as z from "zod";
import { enginesFolder } from "./prepare.ts";

export interface CachedModel {
  kind: "checkpoint" | "engine";
  name: string;
  folder: string;
  bytes: number;
  /** Null for a checkpoint, and where nothing can be read yet. */
  precision: string | null;
  tasks: readonly string[];
  complete: boolean;
}

const engineSchema = z.object({ ref: engineRefSchema, tasks: z.array(taskSchema) });

export async function cachedModels(config: Config): Promise<CachedModel[]> {
  const checkpoints = await foldersIn(checkpointsFolder(config.cache), ["refs"]);
  const engines = await foldersIn(enginesFolder(config), []);
  return Promise.all([...checkpoints.map(checkpoint), ...engines.map(engine)]);
}

async function checkpoint(folder: string): Promise<CachedModel> {
  const [description, complete, bytes] = [
    await describeCheckpoint(folder),
    await isWhole(folder),
    await sizeOf(folder),
  ];
  const tasks = await checkpointAbilities(folder).then(
    (abilities) => abilities.tasks,
    () => [],
  );
  const name = description?.name ?? nameOf(folder);
  return { kind: "checkpoint", name, folder, bytes, precision: null, tasks, complete: complete && !isPartial(folder) };
}

async function engine(folder: string): Promise<CachedModel> {
  const text = await readFile(join(folder, "engine.json"), "utf8").catch(() => null);
  const found = text === null ? null : engineSchema.safeParse(JSON.parse(text)).data;
  const bytes = await sizeOf(folder);
  // A compiler writes into a folder whose name is longer, and renames it.
  const complete = found?.ref.digest === basename(folder);
  const { model, precision } = found?.ref ?? { model: nameOf(folder), precision: null };
  return { kind: "engine", name: model, folder, bytes, precision, tasks: found?.tasks ?? [], complete };
}

const isPartial = (folder: string) => basename(folder).startsWith(PARTIAL);
const nameOf = (folder: string) => basename(folder).replace(PARTIAL, "");

async function foldersIn(parent: string, but: string[]): Promise<string[]> {
  const entries = await readdir(parent, { withFileTypes: true }).catch(() => []);
  return entries
    .filter((entry) => entry.isDirectory() && !but.includes(entry.name))
    .map(({ name }) => join(parent, name));
}

async function sizeOf(folder: string): Promise<number> {
  const names = await readdir(folder).catch(() => []);
  const sizes = await Promise.all(
    names.map((name) =>
      stat(join(folder, name)).then(
        ({ size }) => size,
        () => 0,
      ),
    ),
  );
  return sizes.reduce((sum, size) => sum + size, 0);
}
