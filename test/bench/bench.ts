/**
 * `npm run bench -- SUITE [--json]`: prints figures, measured here and now. With --json one JSON object per figure: name,
 * value, unit. Progress goes to stderr. `engine` measures BLIP, and with `--model blip2` BLIP-2, of which `--full` takes all
 * layers; `datasets` is three suites in one, and `api` has those of `infer` as well; `soak` takes 30 minutes, or `--minutes`.
 */
import { parseArgs } from "node:util";
import { apiFigures } from "./api.ts";
import { blip2Figures } from "./blip2.ts";
import { capfiltFigures } from "./capfilt.ts";
import { planningFigures } from "./datasets-in.ts";
import { exportFigures } from "./datasets-out.ts";
import { engineFigures } from "./engine.ts";
import { inferFigures } from "./infer.ts";
import { pipelineFigures } from "./pipeline.ts";
import { planFigures } from "./plan.ts";
import { queueFigures } from "./queue.ts";
import { soakFigures } from "./soak.ts";

export interface Figure {
  name: string;
  value: number;
  unit: string;
}

const USAGE = `usage: npm run bench -- SUITE [--json]
  engine [--model blip|blip2 [--full]]   datasets (datasets-in, datasets-out, capfilt)   api   infer   pipeline   plan
  queue   soak [--minutes 30]`;

function wanted(): { figures: () => Promise<Figure[]>; json: boolean } {
  const options = {
    json: { type: "boolean" },
    model: { type: "string" },
    full: { type: "boolean" },
    minutes: { type: "string" },
  } as const;
  const { values, positionals } = parseArgs({ options, allowPositionals: true });
  const { json = false, full = false, model = "blip" } = values;
  const minutes = Number(values.minutes ?? 30);
  if (!(minutes > 0) || (values.minutes !== undefined && positionals[0] !== "soak"))
    throw new Error("--minutes is soak's, and above 0");
  const suites: Record<string, () => Promise<Figure[]>> = {
    ...(values.model === undefined &&
      !full && {
        "datasets-in": planningFigures,
        "datasets-out": exportFigures,
        capfilt: capfiltFigures,
        datasets: async () => [...(await planningFigures()), ...(await exportFigures()), ...(await capfiltFigures())],
        api: async () => [...(await apiFigures()), ...(await inferFigures())],
        infer: inferFigures,
        pipeline: pipelineFigures,
        plan: planFigures,
        queue: queueFigures,
        soak: () => soakFigures({ minutes }),
      }),
    ...(model === "blip" && !full && { engine: engineFigures }),
    ...(model === "blip2" && { engine: () => blip2Figures({ full }) }),
  };
  const figures = positionals.length === 1 ? suites[positionals[0]!] : undefined;
  if (!figures) throw new Error("no such benchmark");
  return { figures, json };
}

let work: ReturnType<typeof wanted>;
try {
  work = wanted();
} catch (error) {
  console.error(`${(error as Error).message}\n${USAGE}`);
  process.exit(2);
}
const { figures, json } = work;
for (const { name, value, unit } of await figures()) {
  const rounded = Number(value.toPrecision(4));
  console.log(
    json
      ? JSON.stringify({ name, value: rounded, unit })
      : `${name.padEnd(60)} ${rounded.toLocaleString("en-US", { maximumSignificantDigits: 4 })} ${unit}`,
  );
}
process.exit(0);
