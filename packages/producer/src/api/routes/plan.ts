/** How long a job would take, and what it would cost. */
import { CapfleetError, JOB_TASKS } from "@capfleet/shared/contract";
import { findServedModel } from "@capfleet/shared/models";
import * as z from "zod";
import { answerPlan } from "../../estimate/plan.ts";
import { modelsOf } from "../../jobs/asked-job.ts";
import { checkInputOf } from "../access.ts";
import type { Api, Server } from "../api.ts";
import { errorResponses, fields } from "../schemas.ts";
import { camelOf, submissionSchema } from "../submission.ts";

/** Somebody waits. */
const COUNT_MS = 10_000;

const { model, captioner, filter, precision, input } = submissionSchema.shape;
const price = z.number().min(0).max(1e6);

const questionSchema = fields({
  task: z.enum(JOB_TASKS),
  ...{ model, captioner, filter, precision },
  images: z.int().min(1).max(1e12).optional().meta({ description: "Their number; this or `input`" }),
  input: input.optional().meta({ description: "Where they are, to be counted, within ten seconds" }),
  workers: z.int().min(1).max(1e6).default(1),
  price_per_hour: price.optional().meta({ description: "Of a worker; default: what it was when it was measured" }),
  rate_per_worker: z
    .number()
    .positive()
    .max(1e6)
    .optional()
    .meta({ description: "Images a second of one worker; default: as jobs have measured it" }),
}).meta({ id: "PlanRequest" });

const answerSchema = z
  .strictObject({
    images: z.int(),
    workers: z.int(),
    rate_per_worker: z.number().meta({ description: "Images a second" }),
    seconds: z.number(),
    worker_hours: z.number(),
    price_per_hour: z.number().nullable(),
    cost: z.number().nullable().meta({ description: "In the currency of the price; null: there is none" }),
    per_1000: z.number().nullable(),
    assumed: z.array(z.string()).meta({ description: "Sentences" }),
  })
  .meta({ id: "Plan" });
export type PlanView = z.infer<typeof answerSchema>;

export function planRoutes(server: Server, { state, stores, config }: Api): void {
  server.post("/v1/plan", {
    schema: {
      summary: "How long a job would take, and what it would cost, by what jobs have measured",
      tags: ["jobs"],
      body: questionSchema,
      response: { 200: answerSchema, ...errorResponses(409, 413, 415, 422) },
    },
    handler: async ({ body, caller }) => {
      const { task, images, input, workers, price_per_hour: price, rate_per_worker: rate } = body;
      if ((images === undefined) === (input === undefined))
        throw new CapfleetError("REQUEST_INVALID", "body: give either images or input");
      if (input !== undefined) checkInputOf(caller!, input);
      const names = modelsOf(task, camelOf(body));
      const engineOf = async (name: string) => (await findServedModel(name, body.precision ?? null, state, config)).ref;
      const found = await answerPlan(
        {
          task,
          engines: () => Promise.all(names.map(engineOf)),
          images: images ?? { input: input!, counting: { withinMs: COUNT_MS } },
          workers,
          pricePerHour: price ?? null,
          rate: rate ?? null,
          seesJobs: caller!.visible === null,
        },
        stores,
        state,
      );
      return {
        images: found.images,
        workers: found.workers,
        rate_per_worker: found.ratePerWorker,
        seconds: found.seconds,
        worker_hours: found.workerHours,
        price_per_hour: found.pricePerHour,
        cost: found.cost,
        per_1000: found.per1000,
        assumed: found.assumed,
      };
    },
  });
}
