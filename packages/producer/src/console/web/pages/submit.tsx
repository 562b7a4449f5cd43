/** A job, or a schedule of jobs, as a form. The server judges; what it finds wrong is said beside the field. */
import { useRef, useState } from "preact/hooks";
import { type ApiError, post } from "../api.ts";
import { asError } from "../hooks.ts";
import { Notice, Page } from "../parts/basics.tsx";
import { CheckField, Choice, SelectField, TextField, type Wrong } from "../parts/fields.tsx";
import type { Job, JobTask, Schedule } from "../types.ts";
import { Estimate } from "./estimate.tsx";
import { useModels } from "./models.tsx";
import { bodyOf, EMPTY, missingIn, type Values, wrongField } from "./submit-body.ts";
import { TaskFields } from "./task-fields.tsx";

const TASKS: readonly { value: JobTask; label: string; note: string }[] = [
  { value: "caption", label: "Caption", note: "say what is there" },
  { value: "vqa", label: "Ask", note: "questions about each picture" },
  { value: "itm", label: "Match", note: "how likely texts fit" },
  { value: "itc", label: "Similarity", note: "cosine of picture and text" },
  { value: "embed", label: "Embed", note: "a vector for each" },
  { value: "capfilt", label: "Clean", note: "make captions, keep what fits" },
  { value: "filter", label: "Filter", note: "keep the texts that fit" },
];

export function SubmitPage() {
  const [values, setValues] = useState<Values>(EMPTY);
  const [when, setWhen] = useState("once");
  const [wrong, setWrong] = useState<Wrong | null>(null);
  const [error, setError] = useState<ApiError | null>(null);
  const [isBusy, setBusy] = useState(false);
  const form = useRef<HTMLFormElement>(null);
  const models = useModels();
  // One request, however often its button is pressed or the network breaks, until something in it is changed.
  const once = useRef(crypto.randomUUID());

  const set = (part: Partial<Values>) => {
    setValues({ ...values, ...part });
    setWrong(null);
    setError(null);
    once.current = crypto.randomUUID();
  };
  const text = (name: keyof Values) => ({
    name,
    wrong,
    value: String(values[name]),
    onValue: (value: string) => set({ [name]: value }),
  });
  const show = (found: Wrong | null, thrown: ApiError | null) => {
    setWrong(found);
    setError(found ? null : thrown);
    if (found) setTimeout(() => focusField(form.current!, found.field), 0);
  };

  const submit = async () => {
    const missing = missingIn(values, when === "scheduled");
    if (missing) return show(missing, null);
    setBusy(true);
    try {
      const job = bodyOf(values);
      if (when === "once") {
        const made = await post<Job>("/v1/jobs", job, { "idempotency-key": once.current });
        location.hash = `#/jobs/${made.id}`;
      } else {
        const { name, cron, time_zone } = values;
        await post<Schedule>("/v1/schedules", { name, cron, time_zone: time_zone || "UTC", job });
        location.hash = "#/schedules";
      }
    } catch (thrown) {
      const failure = asError(thrown);
      show(wrongField(failure, values), failure);
    }
    setBusy(false);
  };

  const { task } = values;
  const cleans = task === "capfilt" || task === "filter";
  const demo = { value: "", label: "the demo model" };
  return (
    <Page title="Submit a job">
      <form
        ref={form}
        class="card form"
        noValidate
        onSubmit={(event) => {
          event.preventDefault();
          void submit();
        }}
      >
        <Choice
          legend="Task"
          name="task"
          value={task}
          options={TASKS}
          onValue={(value) => set({ task: value as JobTask })}
        />
        <TextField
          {...text("input")}
          label="Input"
          placeholder="s3://photos/2026/"
          help="A prefix or folder of images, a manifest (.jsonl, .csv, .tsv, .parquet), or tar shards."
        />
        <TextField
          {...text("output")}
          label="Output"
          placeholder="s3://labels/2026/"
          help="An empty prefix, outside of the input."
        />
        {!cleans && (
          <SelectField
            {...text("model")}
            label="Model"
            options={[demo, ...models.options(task)]}
            help="The demo models know drawn scenes only. Others appear here once a worker has them."
          />
        )}
        {task === "capfilt" && (
          <SelectField {...text("captioner")} label="Captioner" options={[demo, ...models.options("caption")]} />
        )}
        {cleans && <SelectField {...text("filter")} label="Filter" options={[demo, ...models.options("itm")]} />}
        <TaskFields task={task} text={text} values={values} set={set} />
        <details>
          <summary>More options</summary>
          <div class="pair">
            <TextField {...text("limit")} label="Only the first so many" type="number" min={1} />
            <TextField {...text("shard_size")} label="Rows per shard" type="number" min={1} />
            <SelectField
              {...text("precision")}
              label="Precision"
              options={["", "fp32", "fp16", "int8", "int4"].map((p) => ({ value: p, label: p || "what workers run" }))}
            />
            <SelectField
              {...text("format")}
              label="Also written as"
              options={[
                { value: "", label: "nothing more than rows (JSONL)" },
                { value: "parquet", label: "Parquet" },
                { value: "webdataset", label: "tars with the images" },
              ]}
            />
            <SelectField
              {...text("lane")}
              label="Lane"
              options={[
                { value: "", label: "normal" },
                { value: "bulk", label: "bulk: what is left of the fleet" },
              ]}
            />
            <TextField
              {...text("max_error_rate")}
              label="Fails where more rows fail than"
              placeholder="0.5"
              type="number"
              min={0}
              max={1}
              step="any"
            />
            <TextField {...text("image_column")} label="Manifest's image column" placeholder="image" />
            <TextField {...text("id_column")} label="Manifest's id column" placeholder="id" />
          </div>
          <TextField {...text("keep")} label="Further columns for each row" help="With commas between them." />
          <CheckField
            name="incremental"
            label="Incremental"
            help="Only what is new or has changed since the last run into this output; all runs make one dataset."
            checked={values.incremental}
            onChecked={(incremental) => set({ incremental })}
          />
        </details>
        <Choice
          legend="When"
          name="when"
          value={when}
          onValue={setWhen}
          options={[
            { value: "once", label: "Now, once" },
            { value: "scheduled", label: "On a schedule", note: "again and again" },
          ]}
        />
        {when === "scheduled" && (
          <div class="pair">
            <TextField {...text("name")} label="Name" placeholder="nightly" />
            <TextField
              {...text("cron")}
              label="Cron pattern"
              placeholder="0 2 * * *"
              help="Minute, hour, day, month, day of the week."
            />
            <TextField {...text("time_zone")} label="Time zone" placeholder="UTC" help="Such as Europe/Berlin." />
          </div>
        )}
        {error && <Notice error={error} />}
        <div class="actions">
          <button type="submit" class="primary" disabled={isBusy}>
            {isBusy ? "Checking and submitting…" : when === "once" ? "Submit the job" : "Make the schedule"}
          </button>
        </div>
        <Estimate values={values} />
      </form>
    </Page>
  );
}

/** Opens what hides the field, and goes there. */
function focusField(form: HTMLFormElement, name: string): void {
  const field = form.elements.namedItem(name);
  if (!(field instanceof HTMLElement)) return;
  const details = field.closest("details");
  if (details) details.open = true;
  field.focus();
}
