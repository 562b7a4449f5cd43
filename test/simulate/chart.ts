/** Line charts as SVG, in a grid: a row for each scenario, a column for each figure. */
export interface Line {
  points: readonly { x: number; y: number }[];
  colour: string;
  label: string;
  /** Filled down to 0. */
  isArea?: boolean;
}

export interface Panel {
  title: string;
  lines: readonly Line[];
}

const WIDTH = 300;
const HEIGHT = 170;
const MARGIN = { left: 46, right: 10, top: 30, bottom: 26 };
const INK = "#24292f";
const FAINT = "#d0d7de";
const FONT = 'font-family="system-ui, sans-serif" font-size="11"';

/** `x` of all panels is in minutes. */
export function grid(title: string, rows: readonly (readonly Panel[])[]): string {
  const [width, height] = [Math.max(...rows.map((row) => row.length)) * WIDTH, rows.length * HEIGHT];
  const panels = rows.flatMap((row, r) => row.map((panel, c) => draw(panel, c * WIDTH, r * HEIGHT)));
  const head = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}">`;
  return `${head}\n<title>${title}</title>\n<rect width="100%" height="100%" fill="#ffffff"/>\n${panels.join("\n")}\n</svg>\n`;
}

function draw({ title, lines }: Panel, left: number, top: number): string {
  const all = lines.flatMap(({ points }) => points);
  const [maxX, maxY] = [Math.max(...all.map(({ x }) => x)), roundUp(Math.max(1, ...all.map(({ y }) => y)))];
  const inner = { width: WIDTH - MARGIN.left - MARGIN.right, height: HEIGHT - MARGIN.top - MARGIN.bottom };
  const xOf = (x: number) => fixed(left + MARGIN.left + (x / maxX) * inner.width);
  const yOf = (y: number) => fixed(top + MARGIN.top + (1 - y / maxY) * inner.height);
  const ticksY = [0, maxY / 2, maxY].map(
    (y) =>
      `<path d="M${xOf(0)} ${yOf(y)}H${xOf(maxX)}" stroke="${FAINT}"/>${text(Number(xOf(0)) - 5, Number(yOf(y)) + 4, short(y), "end")}`,
  );
  const step = maxX > 100 ? 30 : 15;
  const ticksX = Array.from({ length: Math.floor(maxX / step) + 1 }, (_, i) =>
    text(Number(xOf(i * step)), top + HEIGHT - 10, `${i * step}${i === 0 ? " min" : ""}`, "middle"),
  );
  let labelX = left + WIDTH - MARGIN.right;
  const labels = [...lines].reverse().map(({ label, colour }) => {
    const at = labelX;
    labelX -= label.length * 6 + 10;
    return text(at, top + 18, label, "end", colour);
  });
  const heading = text(left + 8, top + 18, title, "start", INK, true);
  return [heading, ...labels, ...ticksY, ...ticksX, ...lines.map((line) => path(line, xOf, yOf))].join("\n");
}

function path({ points, colour, isArea }: Line, xOf: (x: number) => string, yOf: (y: number) => string): string {
  const line = points.map(({ x, y }, i) => `${i === 0 ? "M" : "L"}${xOf(x)} ${yOf(y)}`).join("");
  if (!isArea) return `<path d="${line}" fill="none" stroke="${colour}" stroke-width="1.6"/>`;
  return `<path d="${line}V${yOf(0)}H${xOf(points[0]!.x)}Z" fill="${colour}" fill-opacity="0.35" stroke="${colour}"/>`;
}

function text(x: number, y: number, said: string, anchor: string, colour = "#57606a", isBold = false): string {
  const weight = isBold ? ' font-weight="600"' : "";
  return `<text x="${fixed(x)}" y="${fixed(y)}" ${FONT}${weight} text-anchor="${anchor}" fill="${colour}">${said}</text>`;
}

const fixed = (n: number) => String(Number(n.toFixed(1)));
const short = (n: number) => (n >= 10_000 ? `${Number((n / 1_000).toFixed(0))}k` : String(Number(n.toFixed(1))));

/** To 1, 2 or 5 times a power of ten, or between. */
function roundUp(most: number): number {
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((step) => step * power).find((step) => step >= most)!;
}
