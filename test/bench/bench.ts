/**
 * `npm run bench -- engine|pipeline|plan [--json]`: prints figures, measured here and now. With --json one JSON object per
 * figure: name, value, unit. Progress goes to stderr.
 */
import { engineFigures } from "./engine.ts";
import { pipelineFigures } from "./pipeline.ts";
import { planFigures } from "./plan.ts";

export interface Figure {
  name: string;
  value: number;
  unit: string;
}

const suites: Record<string, () => Promise<Figure[]>> = {
  engine: engineFigures,
  pipeline: pipelineFigures,
  plan: planFigures,
};
const [name = "", ...flags] = process.argv.slice(2);
const suite = suites[name];
if (!suite || flags.some((flag) => flag !== "--json")) {
  console.error(`usage: npm run bench -- ${Object.keys(suites).join("|")} [--json]`);
  process.exit(2);
}
const json = flags.includes("--json");
for (const { name, value, unit } of await suite()) {
  const rounded = Number(value.toPrecision(4));
  console.log(
    json
      ? JSON.stringify({ name, value: rounded, unit })
      : `${name.padEnd(60)} ${rounded.toLocaleString("en-US", { maximumSignificantDigits: 4 })} ${unit}`,
  );
}
process.exit(0);
