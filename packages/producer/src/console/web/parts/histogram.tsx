/** How many have which score: a bar for each equal part of a range. A bar can be chosen. */
import { count } from "../format.ts";

interface HistogramProps {
  counts: readonly number[];
  /** What the ends of the bars stand for. */
  range: readonly [number, number];
  label: string;
  chosen: number | null;
  onChoose(bin: number | null): void;
}

export function Histogram({ counts, range: [low, high], label, chosen, onChoose }: HistogramProps) {
  const most = Math.max(...counts, 1);
  const edge = (i: number) => (low + ((high - low) * i) / counts.length).toFixed(2);
  return (
    <figure class="histogram">
      <figcaption>{label}</figcaption>
      <div class="bars">
        {counts.map((n, i) => {
          const title = `${edge(i)} to ${edge(i + 1)}: ${count(n)}`;
          return (
            <button
              key={edge(i)}
              type="button"
              title={title}
              aria-label={`Only scores from ${title}`}
              aria-pressed={chosen === i}
              disabled={n === 0}
              onClick={() => onChoose(chosen === i ? null : i)}
            >
              <span style={{ height: `${n === 0 ? 0 : Math.max(2, (100 * n) / most)}%` }} />
            </button>
          );
        })}
      </div>
      <div class="axis" aria-hidden="true">
        <span>{low}</span>
        <span>{(low + high) / 2}</span>
        <span>{high}</span>
      </div>
    </figure>
  );
}
