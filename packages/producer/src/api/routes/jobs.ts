/** Jobs: submitted, listed, looked at, steered. */
import { CapfleetError, datasetLayout, type Intent } from "@capfleet/shared/contract";
import { findServedModel } from "@capfleet/shared/models";
import { JOB_STATES, keys } from "@capfleet/shared/queues";
import * as z from "zod";
import { create, type NothingNew } from "../../incremental/start.ts";
import { readJobFile } from "../../jobs/create.ts";
import { retryJob } from "../../jobs/retry.ts";
import { addWebhook } from "../../webhooks/webhook.ts";
import { type Caller, checkLocations } from "../access.ts";
import type { Api, Server } from "../api.ts";
import { once, type Submitted } from "../idempotency.ts";
import { errorResponses, fields, jobPageSchema, jobSchema, pageLimit } from "../schemas.ts";
import { askedOf, type Submission, submissionSchema, webhookOf } from "../submission.ts";

const params = z.object({ id: z.string().meta({ description: "The job's id" }) });

/** What can be wanted of a job at work. */
const ACTIONS: Record<string, { intent: Intent; summary: string }> = {
  pause: { intent: "paused", summary: "Hold a job: what is in work commits, the rest waits" },
  resume: { intent: "run", summary: "Go on with a paused job" },
  cancel: { intent: "cancelled", summary: "End a job early: what is committed stays" },
};

export function jobRoutes(server: Server, api: Api): void {
  const { views, state, states, redis } = api;
  const wake = (job: string) => redis.publish(keys.wake(), job).catch(() => {});

  server.post("/v1/jobs", {
    config: { scope: "submit" },
    schema: {
      summary: "Submit a job",
      description:
        "The fields are the options of `capfleet submit`. The very same job for the same output again is the job that is there. " +
        "With `incremental` and nothing new, there is no job: the answer is the dataset's last run, with 200.",
      tags: ["jobs"],
      headers: z.object({
        "idempotency-key": z
          .string()
          .min(1)
          .max(255)
          .optional()
          .meta({ description: "The same key and body again: the same job, once" }),
      }),
      body: submissionSchema,
      response: { 200: jobSchema, 202: jobSchema, ...errorResponses(404, 409, 413, 415, 422) },
    },
    handler: async ({ headers, body, caller }, reply) => {
      const request = { key: headers["idempotency-key"] ?? null, caller: caller!.key ?? "", body };
      const { job, isNew } = await once(request, state, () => submit(body, caller!, api));
      if (isNew) await wake(job);
      return reply.code(isNew ? 202 : 200).send(await views.view(await views.find(job, caller!)));
    },
  });

  server.get("/v1/jobs", {
    schema: {
      summary: "List jobs, the newest first",
      description: "A page may be shorter than `limit`, even empty, and yet have a `next_cursor`.",
      tags: ["jobs"],
      querystring: fields({
        state: z.enum(JOB_STATES).optional(),
        limit: pageLimit(100, 20),
        cursor: z
          .string()
          .regex(/^job_[0-9A-Z]{26}$/, "must be a page's next_cursor")
          .optional(),
      }),
      response: { 200: jobPageSchema, ...errorResponses() },
    },
    handler: async ({ query: { state = null, limit, cursor = null }, caller }) => {
      const { jobs, next } = await views.page({ before: cursor, limit, state }, caller!);
      return { jobs, next_cursor: next };
    },
  });

  server.get("/v1/jobs/:id", {
    schema: {
      summary: "How a job is doing",
      tags: ["jobs"],
      params,
      response: { 200: jobSchema, ...errorResponses(404) },
    },
    handler: async ({ params: { id }, caller }) => views.view(await views.find(id, caller!)),
  });

  for (const [action, { intent, summary }] of Object.entries(ACTIONS)) {
    server.post(`/v1/jobs/:id/${action}`, {
      config: { scope: "submit" },
      schema: { summary, tags: ["jobs"], params, response: { 200: jobSchema, ...errorResponses(404, 409, 413, 415) } },
      handler: async ({ params: { id }, caller }) => {
        const found = await views.find(id, caller!);
        const changed = await states.want(id, intent);
        await wake(id);
        return views.view({ ...found, state: changed });
      },
    });
  }

  server.post("/v1/jobs/:id/retry", {
    config: { scope: "submit" },
    schema: {
      summary: "Once more for the rows that failed and may succeed, and for what a failed job has left undone",
      tags: ["jobs"],
      params,
      response: { 200: jobSchema, ...errorResponses(404, 409, 413, 415) },
    },
    handler: async ({ params: { id }, caller }) => {
      const found = await views.find(id, caller!);
      const { state: changed } = await retryJob({ job: found.state, store: found.store, maxErrorRate: null }, api);
      await wake(id);
      return views.view({ ...found, state: changed });
    },
  });
}

async function submit(body: Submission, caller: Caller, api: Api): Promise<Submitted> {
  const { stores, state, states, config } = api;
  checkLocations(caller, body.input, body.output);
  const webhook = webhookOf(body, config.api.webhookNetworks);
  const { request, models: names, precision } = askedOf(body);
  const models = await Promise.all(names.map((name) => findServedModel(name, precision, state, config)));
  const created = await create({ ...request, readable: caller.readable }, models, stores, states);
  if ("nothingNew" in created) return { job: await lastRun(created, api), isNew: false };
  const { file } = created;
  // Dying before this line leaves a job without it, and a client without an answer: sent again, the request adds it.
  if (webhook) await addWebhook(file.id, webhook, state);
  return { job: file.id, isNew: true };
}

/** Throws JOB_NOT_FOUND where it has been deleted. */
async function lastRun({ root, nothingNew: { run } }: NothingNew, { stores }: Api): Promise<string> {
  const out = `${root}${datasetLayout.run(run)}`;
  const file = await readJobFile(stores.at(out));
  if (file) return file.id;
  throw new CapfleetError(
    "JOB_NOT_FOUND",
    `there is nothing new, and the job that labelled what is there, ${out}, is gone`,
  );
}
