/** What a job makes: its progress as events, its rows in pages or as one stream. */
import { Readable } from "node:stream";
import { pairSchema, resultRowSchema } from "@capfleet/shared/contract";
import * as z from "zod";
import { checkSelection, resultShards, type Selection, selected } from "../../jobs/results.ts";
import type { Api, Server } from "../api.ts";
import type { Step } from "../feed.ts";
import { errorResponses, fields, jobSchema, pageLimit } from "../schemas.ts";
import type { Found } from "../views.ts";

/** Where a page has had to look at so many shards, it is shorter than it might be. */
const MAX_SHARDS_READ = 50;

const params = z.object({ id: z.string().meta({ description: "The job's id" }) });
const flag = z.enum(["", "true", "false"]).default("false");
const isSet = (given: z.infer<typeof flag>) => given !== "false";
const CURSOR = /^(\d{1,12})\.(\d{1,9})$/;

// JSON as a schema that refers to itself is one that documents can't hold.
const kept = z.record(z.string(), z.unknown()).optional();
const keptSchema = pairSchema.extend({ ...resultRowSchema.pick({ id: true, image: true, member: true }).shape, kept });
const wholeSchema = resultRowSchema.extend({ kept });
const rowSchema = z.union([keptSchema.strict(), wholeSchema]).meta({ id: "Row" });
const rowPageSchema = z
  .strictObject({
    rows: z.array(rowSchema),
    next_cursor: z.string().nullable().meta({
      description:
        "Where the next page begins, also if its rows are still to come; null: the job has ended, and these are its last rows",
    }),
  })
  .meta({ id: "RowPage" });

export function resultRoutes(server: Server, { views, feed }: Api): void {
  server.get("/v1/jobs/:id/events", {
    schema: {
      summary: "Follow a job",
      description:
        "Server-sent events: `progress` whenever the job has changed, `end` once it has ended; the data is the job.",
      tags: ["jobs"],
      params,
      response: {
        200: { description: "A stream", content: { "text/event-stream": { schema: z.string() } } },
        ...errorResponses(404),
      },
    },
    handler: async ({ params: { id }, caller }, reply) => {
      const found = await views.find(id, caller!);
      const gone = new AbortController();
      reply.raw.once("close", () => gone.abort());
      const steps = feed.follow(found, gone.signal);
      reply
        .headers({ "cache-control": "no-store", "x-accel-buffering": "no", connection: "close" })
        .type("text/event-stream");
      return reply.send(Readable.from(asEvents(steps)) as never);
    },
  });

  server.get("/v1/jobs/:id/results", {
    schema: {
      summary: "A job's rows, in input order",
      description:
        "Of a job that is at work: as far as no shard is missing. A page may be shorter than `limit`. `download` streams all rows that are there as JSONL, and takes neither `limit` nor `cursor`.",
      tags: ["jobs"],
      params,
      querystring: fields({
        limit: pageLimit(1_000, 100),
        cursor: z.string().regex(CURSOR, "must be a page's next_cursor").optional(),
        errors: flag.meta({ description: "Only rows that failed" }),
        kept: flag.meta({ description: "capfilt, filter: only the texts that were kept" }),
        download: flag.meta({ description: "As one stream of JSON lines" }),
      }),
      response: {
        200: {
          description: "Rows",
          content: {
            "application/json": { schema: rowPageSchema },
            "application/x-ndjson": { schema: z.string() },
          },
        },
        ...errorResponses(404),
      },
    },
    handler: async ({ params: { id }, query, caller }, reply) => {
      const found = await views.find(id, caller!);
      const selection = { errors: isSet(query.errors), kept: isSet(query.kept) };
      checkSelection(found.file.id, found.file.spec.task, selection);
      if (!isSet(query.download)) {
        const [, shard = "0", line = "0"] = CURSOR.exec(query.cursor ?? "") ?? [];
        const from = { shard: Number(shard), line: Number(line) };
        return reply.type("application/json").send(await pageOf(found, selection, from, query.limit));
      }
      reply.header("content-disposition", `attachment; filename="${id}.jsonl"`).type("application/x-ndjson");
      return reply.send(Readable.from(download(found, selection)) as never);
    },
  });

  async function pageOf(found: Found, selection: Selection, from: { shard: number; line: number }, limit: number) {
    const rows: z.infer<typeof rowSchema>[] = [];
    // Read before the results: those of a job that had ended by then are all there.
    const { ended } = found.state;
    const next = { ...from };
    let read = 0;
    for await (const { shard, lines: all } of resultShards(found.store, from.shard)) {
      const lines = selected(found.file.spec.task, all, selection);
      if (shard !== next.shard && !ended) break;
      if (shard !== next.shard) next.line = 0;
      const some = lines.slice(next.line, next.line + limit - rows.length);
      rows.push(...some.map((line) => rowSchema.parse(JSON.parse(line))));
      read += 1;
      const isThrough = next.line + some.length >= lines.length;
      next.line = isThrough ? 0 : next.line + some.length;
      next.shard = isThrough ? shard + 1 : shard;
      if (rows.length === limit || read === MAX_SHARDS_READ) return { rows, next_cursor: `${next.shard}.${next.line}` };
    }
    return { rows, next_cursor: ended ? null : `${next.shard}.${next.line}` };
  }
}

async function* asEvents(steps: AsyncIterable<Step>): AsyncGenerator<string> {
  yield "retry: 2000\n\n";
  for await (const step of steps) {
    if (step.event === "heartbeat") yield ": still here\n\n";
    else yield `event: ${step.event}\ndata: ${JSON.stringify(jobSchema.parse(step.job))}\n\n`;
  }
}

async function* download({ store, file }: Found, selection: Selection): AsyncGenerator<string> {
  for await (const { lines: all } of resultShards(store)) {
    const lines = selected(file.spec.task, all, selection);
    if (lines.length > 0) yield `${lines.join("\n")}\n`;
  }
}
