/** A figure over the last hour, as an area. */
import { useState } from "preact/hooks";
import { short } from "../format.ts";

interface ChartProps {
  label: string;
  unit: string;
  /** `at` in milliseconds since 1970, ascending. */
  points: readonly { at: number; value: number }[];
  /** Further apart than this, in milliseconds, nothing is known of what lies between. */
  gapMs: number;
}

const [WIDTH, HEIGHT] = [600, 140];
const HOUR = 3_600_000;
const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });

export function Chart({ label, unit, points, gapMs }: ChartProps) {
  const [hovered, setHovered] = useState<number | null>(null);
  const now = Math.max(Date.now(), points.at(-1)?.at ?? 0);
  const most = niceAbove(Math.max(...points.map(({ value }) => value), 0));
  const x = (at: number) => WIDTH * (1 - (now - at) / HOUR);
  const y = (value: number) => HEIGHT - (HEIGHT * value) / most;
  const shown = (hovered !== null && points[hovered]) || points.at(-1);
  const nearest = (event: MouseEvent) => {
    const box = (event.currentTarget as Element).getBoundingClientRect();
    const at = now - HOUR * (1 - (event.clientX - box.left) / box.width);
    const distances = points.map((point) => Math.abs(point.at - at));
    setHovered(points.length === 0 ? null : distances.indexOf(Math.min(...distances)));
  };
  return (
    <figure class="chart">
      <figcaption>
        {label}
        <output>
          {shown ? `${short(shown.value)} ${unit} at ${CLOCK.format(shown.at)}` : "nothing in the last hour"}
        </output>
      </figcaption>
      <div class="plot">
        <span class="most" aria-hidden="true">
          {short(most)}
        </span>
        <svg
          viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
          preserveAspectRatio="none"
          role="img"
          aria-label={`${label}, the last hour; most ${short(Math.max(...points.map(({ value }) => value), 0))} ${unit}`}
          onMouseMove={nearest}
          onMouseLeave={() => setHovered(null)}
        >
          <path class="grid" d={`M0 0H${WIDTH}M0 ${HEIGHT / 2}H${WIDTH}M0 ${HEIGHT}H${WIDTH}`} />
          {runsOf(points, gapMs).map((run) => {
            const line = run.map(({ at, value }) => `${x(at).toFixed(1)} ${y(value).toFixed(1)}`).join("L");
            const [first, last] = [x(run[0]!.at).toFixed(1), x(run.at(-1)!.at).toFixed(1)];
            return (
              <g key={run[0]!.at}>
                <path class="area" d={`M${first} ${HEIGHT}L${line}L${last} ${HEIGHT}Z`} />
                <path class="line" d={`M${line}`} />
              </g>
            );
          })}
          {hovered !== null && shown && <path class="mark" d={`M${x(shown.at)} 0V${HEIGHT}`} />}
        </svg>
      </div>
      <div class="axis" aria-hidden="true">
        <span>60 min ago</span>
        <span>30</span>
        <span>now</span>
      </div>
    </figure>
  );
}

/** Points without a gap between them; one alone is drawn as a short stroke. */
function runsOf(points: ChartProps["points"], gapMs: number) {
  const runs: { at: number; value: number }[][] = [];
  for (const point of points) {
    const run = runs.at(-1);
    if (run && point.at - run.at(-1)!.at <= gapMs) run.push(point);
    else runs.push([{ ...point, at: point.at - gapMs / 3 }, point]);
  }
  return runs;
}

/** The next of 1, 2, 5, 10, 20 … */
function niceAbove(value: number): number {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((n) => n * power).find((n) => n >= value)!;
}
