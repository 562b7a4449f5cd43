/**
 * The isolated process: labels one record at a time, by the same code as the worker. It is there to die in the worker's
 * place.
 */
import { writeFileSync } from "node:fs";
import { asCapfleetError } from "@capfleet/shared/contract";
import { Stores } from "@capfleet/shared/storage";
import { EngineHost } from "../engine/host.ts";
import { Labeler } from "../pipeline/labeler.ts";
import type { IsolatedData, IsolatedReply, IsolatedRequest } from "./protocol.ts";

// The worker is gone, or has no more use for this one. Not `exit`: that waits for threads, and one may hang.
process.once("disconnect", () => process.kill(process.pid, "SIGKILL"));
// Ctrl-C in a terminal is for the worker to answer.
for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => {});
// Where memory runs out, this process goes and not the worker. Not every system has it.
try {
  writeFileSync("/proc/self/oom_score_adj", "1000");
} catch {}

const reply = (message: IsolatedReply) => process.send!(message);
const errorOf = (thrown: unknown) => {
  const { code, message } = asCapfleetError(thrown, "ENGINE_FAILED");
  return { code, message };
};

const { engine, limits } = JSON.parse(process.argv[2]!) as IsolatedData;
try {
  const host = await EngineHost.start(engine);
  // As in the worker, this is the end; what came of the record is for the worker to find.
  host.ended.catch(() => process.kill(process.pid, "SIGKILL"));
  const label: EngineHost["label"] = (request) => {
    reply({ kind: "inferring" });
    return host.label(request);
  };
  // No stores: what is to be fetched, the worker fetches.
  const labeler = new Labeler({ infos: host.infos, label }, new Stores(), limits);
  process.on("message", ({ record, spec, image }: IsolatedRequest) => {
    const file = image && Buffer.from(image.buffer, image.byteOffset, image.byteLength);
    labeler.labelNow({ ...record, image: null }, { spec }, file, new AbortController().signal).then(
      (fields) => reply({ kind: "labelled", fields }),
      (thrown) => reply({ kind: "failed", ...errorOf(thrown) }),
    );
  });
  reply({ kind: "ready" });
} catch (thrown) {
  reply({ kind: "broken", ...errorOf(thrown) });
}
