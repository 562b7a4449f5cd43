/** One measurement of engine.ts: node engine-process.ts '<request>' prints a measurement as JSON. */
import { readFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { type TaskSpec, taskSpecSchema } from "@capfleet/shared/contract";
import { loadEngine } from "@capfleet/worker/blip";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { encodeModel, Graph } from "../../packages/worker/src/blip/onnx/graph.ts";
import { Sessions } from "../../packages/worker/src/blip/sessions.ts";

export interface Request {
  engine: string;
  /** `vision`: the encoder alone; `matmul`: a large matrix product in ONNX Runtime, for comparison. */
  task: "caption" | "vqa" | "itm" | "vision" | "matmul";
  beams: number;
  texts: number;
  batch: number;
  rounds: number;
  /** Of captions; by default 20. */
  newTokens?: number;
}

export interface Measurement {
  /** The best round's. */
  seconds: number;
  /** From loading to the end of the first round. */
  firstSeconds: number;
  residentMb: number;
  /** The most that the process ever had. */
  peakMb: number;
  /** Since the eleventh part of the rounds. */
  grownMb: number;
  /** Floating-point operations of a round; 0 where they are not counted. */
  operations: number;
}

const request = JSON.parse(process.argv[2]!) as Request;
const threads = availableParallelism();
const SIZE = 2048;

/** A picture of noise, the same each time. */
const noise = (length: number) => new Uint8Array(length).map((_, i) => (i * 2_654_435_761) >>> 24);

async function rounds(): Promise<{ round: () => Promise<unknown>; operations: number }> {
  const { engine: folder, task, batch } = request;
  if (task === "matmul") return { round: await matmul(), operations: 2 * SIZE ** 3 };
  if (task === "vision") {
    const sessions = await Sessions.open(folder, { threads, device: "cpu" });
    const { size } = JSON.parse(await readFile(join(folder, "engine.json"), "utf8")) as { size: number };
    const pixels = new Tensor("uint8", noise(size * size * 3), [1, size, size, 3]);
    const round = async () => {
      for (let i = 0; i < batch; i++) await sessions.run("vision", { pixels });
    };
    return { round, operations: 0 };
  }
  const engine = await loadEngine(folder, { threads, device: "cpu" });
  const { width, height } = engine.info.image;
  const pixels = noise(batch * width * height * 3);
  const items = Array.from({ length: batch }, (_, i) => ({ id: String(i), texts: texts() }));
  return { round: () => engine.label(taskOf(), items, pixels), operations: 0 };
}

/** Of ten tokens each, [CLS] and [SEP] included. */
const texts = () =>
  Array.from({ length: request.texts }, (_, i) =>
    Array.from({ length: 8 }, (_, j) => `word${1000 + 8 * i + j}`).join(" "),
  );

function taskOf(): TaskSpec {
  const { task, beams, newTokens = 20 } = request;
  const decoding = { maxNewTokens: newTokens, minNewTokens: newTokens, beams };
  if (task === "caption") return taskSpecSchema.parse({ name: "caption", decoding });
  if (task === "itm") return taskSpecSchema.parse({ name: "itm", texts: { column: "text" } });
  const short = { maxNewTokens: 5, minNewTokens: 5, beams };
  return taskSpecSchema.parse({ name: "vqa", decoding: short, questions: { column: "question" } });
}

async function matmul(): Promise<() => Promise<unknown>> {
  const graph = new Graph("matmul", "float32");
  const a = graph.input("a", "float32", [SIZE, SIZE]);
  // A constant, as weights are, so that the runtime packs it once.
  const b = graph.float32(Array<number>(SIZE * SIZE).fill(0.5), [SIZE, SIZE]);
  graph.output(graph.named("product", graph.op("FusedMatMul", [a, b])), "float32", [SIZE, SIZE]);
  const session = await InferenceSession.create(encodeModel(graph), {
    intraOpNumThreads: threads,
    logSeverityLevel: 3,
  });
  const feeds = { a: new Tensor("float32", new Float32Array(SIZE * SIZE).fill(0.5), [SIZE, SIZE]) };
  return () => session.run(feeds);
}

const started = performance.now();
const { round, operations } = await rounds();
let best = Number.POSITIVE_INFINITY;
let firstSeconds = 0;
let settledMb = 0;
const residentMb = () => process.memoryUsage().rss / 1e6;
for (let i = 0; i < request.rounds; i++) {
  const before = performance.now();
  await round();
  best = Math.min(best, (performance.now() - before) / 1_000);
  if (i === 0) firstSeconds = (performance.now() - started) / 1_000;
  if (i === Math.floor(request.rounds / 11)) settledMb = residentMb();
}
const grownMb = residentMb() - settledMb;
const peakMb = process.resourceUsage().maxRSS / 1e3;
const measured: Measurement = { seconds: best, firstSeconds, residentMb: residentMb(), peakMb, grownMb, operations };
console.log(JSON.stringify(measured));
process.exit(0);
