/** What a job would take and cost, before it is one. */
import { useState } from "preact/hooks";
import { type ApiError, post } from "../api.ts";
import { count, duration, money, plural, short } from "../format.ts";
import { asError } from "../hooks.ts";
import { Foreign, Notice } from "../parts/basics.tsx";
import { TextField } from "../parts/fields.tsx";
import type { Plan } from "../types.ts";
import type { Values } from "./submit-body.ts";

export function Estimate({ values }: { values: Values }) {
  const [images, setImages] = useState("");
  const [workers, setWorkers] = useState("1");
  const [price, setPrice] = useState("");
  const [plan, setPlan] = useState<Plan | null>(null);
  const [error, setError] = useState<ApiError | null>(null);
  const ask = async () => {
    setError(null);
    setPlan(null);
    const { task, model, captioner, filter, precision, input } = values;
    const given = Object.entries({ model, captioner, filter, precision }).filter(([, value]) => value !== "");
    const size = images === "" ? { input } : { images: Number(images) };
    const more = { workers: Number(workers || 1), ...(price !== "" && { price_per_hour: Number(price) }) };
    try {
      setPlan(await post<Plan>("/v1/plan", { task, ...Object.fromEntries(given), ...size, ...more }));
    } catch (thrown) {
      setError(asError(thrown));
    }
  };
  return (
    <details>
      <summary>How long will it take, and what will it cost?</summary>
      <div class="pair">
        <TextField
          name="plan_images"
          label="Pictures"
          type="number"
          min={1}
          value={images}
          onValue={setImages}
          help="Empty: those of the input."
        />
        <TextField name="plan_workers" label="Workers" type="number" min={1} value={workers} onValue={setWorkers} />
        <TextField
          name="plan_price"
          label="Price of a worker's hour"
          type="number"
          min={0}
          step="any"
          value={price}
          onValue={setPrice}
        />
      </div>
      <button type="button" onClick={() => void ask()}>
        Estimate
      </button>
      <div aria-live="polite">
        {error && <Notice error={error} />}
        {plan && (
          <>
            <p>
              <strong>{duration(plan.seconds)}</strong> for {plural(plan.images, "picture")} on{" "}
              {plural(plan.workers, "worker")}, {short(plan.rate_per_worker)} a second each
              {plan.cost !== null && plan.per_1000 !== null && (
                <>
                  ; <strong>{money(plan.cost)}</strong>, {money(plan.per_1000)} per {count(1_000)}
                </>
              )}
              .
            </p>
            <ul class="muted">
              {plan.assumed.map((sentence) => (
                <li key={sentence}>
                  <Foreign>{sentence}</Foreign>
                </li>
              ))}
            </ul>
          </>
        )}
      </div>
    </details>
  );
}
