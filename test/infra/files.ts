/** The files of infra/, as the tests read them. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const REPO = fileURLToPath(new URL("../../", import.meta.url));
export const INFRA = join(REPO, "infra");

export const infraFile = (name: string): Promise<string> => readFile(join(INFRA, name), "utf8");

/** Metrics of capfleet's that a text names; of a histogram, its own name. */
export function metricNames(text: string): string[] {
  const names = text.match(/\bcapfleet_[a-z_]+/g) ?? [];
  return [...new Set(names.map((name) => name.replace(/_(bucket|sum|count)$/, "")))];
}
