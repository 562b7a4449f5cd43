/** Which models there are for a task, and which of them live workers run. */
import { useLoad } from "../hooks.ts";
import type { Fleet, JobTask, Model } from "../types.ts";

export interface Models {
  /** For a select: those that run first, and among them the demo's last. */
  options(task: JobTask | "caption" | "itm"): { value: string; label: string }[];
  isLoaded: boolean;
}

export function useModels(): Models {
  const models = useLoad<{ models: Model[] }>("/v1/models").data?.models ?? null;
  const fleet = useLoad<Fleet>("/v1/fleet", 5_000).data;
  const running = new Set(fleet?.workers.flatMap(({ engines }) => engines.map(({ model }) => model)));
  const order = (model: Model) => (running.has(model.name) ? 0 : 2) + (model.bundled ? 1 : 0);
  return {
    isLoaded: models !== null,
    options: (task) =>
      (models ?? [])
        .filter(({ tasks }) => (tasks as string[]).includes(task))
        .sort((a, b) => order(a) - order(b))
        .map(({ name }) => ({ value: name, label: running.has(name) ? name : `${name} (no worker runs it)` })),
  };
}
