/** What a job makes: its progress as events, its rows in pages or as one stream. */
import { Readable } from "node:stream";
import * as z from "zod";
import { checkSelection, resultShards, type Selection, selected } from "../../jobs/results.ts";
import type { Api, Server } from "../api.ts";
import type { Step } from "../feed.ts";
import { POSITION, rowPage, rowPageSchema } from "../row-pages.ts";
import { errorResponses, fields, jobSchema, pageLimit } from "../schemas.ts";
import type { Found } from "../views.ts";

const params = z.object({ id: z.string().meta({ description: "The job's id" }) });
const flag = z.enum(["", "true", "false"]).default("false");
const score = z.coerce.number().min(0).max(1);
const isSet = (given: z.infer<typeof flag>) => given !== "false";

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
        "Of a job that is at work: as far as no shard is missing. A page may be shorter than `limit`. `download` streams all rows that are there as JSONL, and looks at `errors` and `kept` alone.",
      tags: ["jobs"],
      params,
      querystring: fields({
        limit: pageLimit(1_000, 100),
        cursor: z.string().regex(POSITION, "must be a page's next_cursor").optional(),
        errors: flag.meta({ description: "Only rows that failed" }),
        kept: flag.meta({ description: "capfilt, filter: only the texts that were kept" }),
        code: z.string().max(100).optional().meta({ description: "Only rows that failed with this code" }),
        search: z
          .string()
          .min(1)
          .max(200)
          .optional()
          .meta({ description: "Only rows that have it in a text, their id or image" }),
        min_score: score
          .optional()
          .meta({ description: "Only rows with such a score, as the job's `scores` count them" }),
        max_score: score.optional().meta({ description: "Scores are below it; 1: or equal" }),
        texts: flag.meta({ description: "With what was asked of the images" }),
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
        const { limit, cursor = null, code = null, search = null, min_score: min, max_score: max } = query;
        const score = min === undefined && max === undefined ? null : { from: min ?? 0, to: max ?? 1 };
        const filter = { code, search, score };
        const page = await rowPage(found, { selection, filter, cursor, limit, texts: isSet(query.texts) });
        return reply.type("application/json").send(page);
      }
      reply.header("content-disposition", `attachment; filename="${id}.jsonl"`).type("application/x-ndjson");
      return reply.send(Readable.from(download(found, selection)) as never);
    },
  });
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
