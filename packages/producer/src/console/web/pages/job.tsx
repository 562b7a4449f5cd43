/** One job: how far it is, what it costs, what can be done about it, and its rows. */
import { useState } from "preact/hooks";
import { ApiError, file, post, storedKey } from "../api.ts";
import { count, duration, MADE, money, percent, plural, short, time } from "../format.ts";
import { asError, useJob } from "../hooks.ts";
import { Badge, Figure, Foreign, Loading, Notice, Page, Progress } from "../parts/basics.tsx";
import { Confirm } from "../parts/dialog.tsx";
import { FINAL, type Job } from "../types.ts";
import { Rows } from "./rows.tsx";

export function JobPage({ id }: { id: string }) {
  const { job, error, set } = useJob(id);
  if (!job) return <Page title="Job">{error ? <Notice error={error} /> : <Loading />}</Page>;
  return (
    <Page title={MADE[job.task]} aside={<Badge state={job.state} />}>
      <p class="mono muted id">{job.id}</p>
      {error && <Notice error={error} />}
      {job.reason && <Notice error={new ApiError(job.reason.code, job.reason.message, "")} />}
      {job.waiting && (
        <p class="notice warn" role="status">
          Waiting: <Foreign>{job.waiting}</Foreign>
        </p>
      )}
      <section class="card" aria-label="Progress">
        <Progress job={job} />
        <Figures job={job} />
        <Actions job={job} onChanged={set} />
      </section>
      <Facts job={job} />
      <Rows job={job} />
    </Page>
  );
}

function Figures({ job: { counts, rate, eta_seconds: eta, cost, state } }: { job: Job }) {
  const { done, total, failed, planned } = counts;
  const share = total ? percent(done / total) : undefined;
  const all = total === null ? `${count(planned)} planned so far` : `of ${count(total)}`;
  const isOver = FINAL.includes(state);
  const isMoving = state === "running" && rate !== null;
  return (
    <dl class="figures" aria-live="off">
      <Figure name="Rows" value={count(done)} note={share ? `${all}, ${share}` : all} />
      <Figure name="Failed" value={count(failed)} note={done > 0 ? percent(failed / done) : undefined} />
      {!isOver && <Figure name="Rate" value={isMoving ? `${short(rate)}/s` : "–"} note="over the last half minute" />}
      {!isOver && <Figure name="Time left" value={isMoving && eta !== null ? duration(eta) : "–"} />}
      {cost && cost.spent !== null && (
        <Figure
          name="Cost"
          value={money(cost.spent)}
          note={[
            ...(cost.estimated !== null && !isOver ? [`about ${money(cost.estimated)} in all`] : []),
            ...(cost.per_1000 !== null ? [`${money(cost.per_1000)} per 1,000 rows`] : []),
          ].join(", ")}
        />
      )}
      {cost && cost.spent === null && (
        <Figure name="Worker time" value={duration(cost.worker_seconds)} note="workers have no price" />
      )}
    </dl>
  );
}

function Actions({ job, onChanged }: { job: Job; onChanged(job: Job): void }) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<ApiError | null>(null);
  const [said, setSaid] = useState("");
  const act = (action: string, done: string) => async () => {
    setBusy(true);
    setError(null);
    try {
      onChanged(await post<Job>(`/v1/jobs/${job.id}/${action}`));
      setSaid(done);
    } catch (thrown) {
      setError(asError(thrown));
    }
    setBusy(false);
  };
  const isOver = FINAL.includes(job.state);
  const canRetry = job.state === "failed" || (job.state === "finished" && job.counts.failed > 0);
  return (
    <>
      <div class="actions">
        {!isOver && job.state !== "paused" && (
          <button type="button" disabled={busy} onClick={act("pause", "The job is paused.")}>
            Pause
          </button>
        )}
        {job.state === "paused" && (
          <button type="button" class="primary" disabled={busy} onClick={act("resume", "The job goes on.")}>
            Resume
          </button>
        )}
        {canRetry && (
          <button
            type="button"
            disabled={busy}
            title="Once more for the rows that failed and may succeed"
            onClick={act("retry", "The rows that may succeed are done again.")}
          >
            Retry
          </button>
        )}
        {!isOver && (
          <Confirm
            label="Cancel"
            question="End this job early?"
            consequence="Rows that are committed stay; the rest is not labelled. A cancelled job can't be resumed."
            disabled={busy}
            onYes={act("cancel", "The job is cancelled.")}
          />
        )}
        {job.counts.committed > 0 && <Download job={job.id} onFailed={setError} />}
      </div>
      <p class="muted" role="status">
        {said}
      </p>
      {error && <Notice error={error} />}
    </>
  );
}

/** A link where it will do, since it writes to the disk as it comes; it can't send a key. */
function Download({ job, onFailed }: { job: string; onFailed(error: ApiError): void }) {
  const [busy, setBusy] = useState(false);
  const path = `/v1/jobs/${job}/results?download`;
  const name = `${job}.jsonl`;
  if (storedKey() === null) {
    return (
      <a class="button" href={path} download={name}>
        Download rows
      </a>
    );
  }
  const save = async () => {
    setBusy(true);
    try {
      const href = URL.createObjectURL(await file(path));
      Object.assign(document.createElement("a"), { href, download: name }).click();
      // Not before the browser has begun to read it.
      setTimeout(() => URL.revokeObjectURL(href), 60_000);
    } catch (thrown) {
      onFailed(asError(thrown));
    }
    setBusy(false);
  };
  return (
    <button type="button" disabled={busy} onClick={save}>
      Download rows
    </button>
  );
}

function Facts({ job }: { job: Job }) {
  const models = job.models.map(({ model, precision }) => `${model} (${precision})`).join(" + ");
  return (
    <dl class="facts">
      <dt>Input</dt>
      <dd>
        <Foreign mono>{job.input}</Foreign>
      </dd>
      <dt>Output</dt>
      <dd>
        <Foreign mono>{job.output}</Foreign>
      </dd>
      <dt>Model</dt>
      <dd>
        <Foreign>{models}</Foreign>
      </dd>
      <dt>Submitted</dt>
      <dd>
        {time(job.created_at)}
        {job.lane === "bulk" ? ", bulk lane" : ""}
        {job.format === "jsonl" ? "" : `, also as ${job.format}`}
        {job.counts.committed < job.counts.done ? `; ${plural(job.counts.committed, "row")} committed` : ""}
      </dd>
    </dl>
  );
}
