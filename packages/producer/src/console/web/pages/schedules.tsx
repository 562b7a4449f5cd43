/** Jobs that start by themselves: when, and how their runs went. */
import { useState } from "preact/hooks";
import { type ApiError, call, post } from "../api.ts";
import { ago, count, time } from "../format.ts";
import { asError, useLoad } from "../hooks.ts";
import { Badge, Empty, Foreign, Loading, Notice, Page } from "../parts/basics.tsx";
import { Confirm } from "../parts/dialog.tsx";
import type { Run, Schedule } from "../types.ts";

export function SchedulesPage() {
  const { data, error, reload } = useLoad<{ schedules: Schedule[] }>("/v1/schedules", 3_000);
  return (
    <Page
      title="Schedules"
      aside={
        <a class="button primary" href="#/submit">
          New schedule
        </a>
      }
    >
      {error && <Notice error={error} />}
      {!data && !error && <Loading />}
      {data?.schedules.length === 0 && (
        <Empty>
          <p>
            <strong>No schedules.</strong> A job that is submitted “on a schedule” runs every night, or whenever its
            pattern says, by itself.
          </p>
        </Empty>
      )}
      <ul class="schedules">
        {data?.schedules.map((schedule) => (
          <li key={schedule.name}>
            <ScheduleCard schedule={schedule} onChanged={reload} />
          </li>
        ))}
      </ul>
    </Page>
  );
}

function ScheduleCard({ schedule, onChanged }: { schedule: Schedule; onChanged(): void }) {
  const { name, cron, time_zone, state, task, input, output, incremental, next_due_at: due, runs } = schedule;
  const [error, setError] = useState<ApiError | null>(null);
  const [busy, setBusy] = useState(false);
  const path = `/v1/schedules/${encodeURIComponent(name)}`;
  const act = (work: () => Promise<unknown>) => async () => {
    setBusy(true);
    setError(null);
    await work().catch((thrown: unknown) => setError(asError(thrown)));
    setBusy(false);
    onChanged();
  };
  return (
    <article class="card">
      <div class="section-head">
        <h2>{name}</h2>
        <Badge state={state} />
      </div>
      <p>
        <code>{cron}</code> <span class="muted">{time_zone}</span>
        {due && (
          <>
            {" · next "}
            <time dateTime={due} title={time(due)}>
              {ago(due)}
            </time>
          </>
        )}
      </p>
      <p class="where">
        {task} <Foreign mono>{input}</Foreign>
        <span class="muted">{" → "}</span>
        <Foreign mono>{output}</Foreign>
        {incremental && <span class="chip">incremental</span>}
      </p>
      {runs.length > 0 && <Runs runs={runs} name={name} />}
      <div class="actions">
        <button type="button" disabled={busy} onClick={act(() => post(`${path}/run`))}>
          Run now
        </button>
        <button
          type="button"
          disabled={busy}
          onClick={act(() => post(`${path}/${state === "active" ? "pause" : "resume"}`))}
        >
          {state === "active" ? "Pause" : "Resume"}
        </button>
        <Confirm
          label="Delete"
          question={`Delete the schedule ${name}?`}
          consequence="Its jobs and datasets stay, and a run under way goes on."
          disabled={busy}
          onYes={act(() => call(path, { method: "DELETE" }))}
        />
      </div>
      {error && <Notice error={error} />}
    </article>
  );
}

function Runs({ runs, name }: { runs: Run[]; name: string }) {
  return (
    <details>
      <summary>
        Last run: <Badge state={runs[0]!.outcome ?? "running"} />
      </summary>
      <div class="scroll">
        <table>
          <caption class="hidden">Runs of {name}</caption>
          <thead>
            <tr>
              <th>Due</th>
              <th>Outcome</th>
              <th class="number">Rows</th>
              <th class="number">Failed</th>
            </tr>
          </thead>
          <tbody>
            {runs.map((run) => (
              <tr key={run.due_at}>
                <td>{run.job_id ? <a href={`#/jobs/${run.job_id}`}>{time(run.due_at)}</a> : time(run.due_at)}</td>
                <td>
                  <Badge state={run.outcome ?? "running"} />{" "}
                  {run.error && <Foreign>{`${run.error.code}: ${run.error.message}`}</Foreign>}
                </td>
                <td class="number">{run.rows === null ? "–" : count(run.rows)}</td>
                <td class="number">{run.failed === null ? "–" : count(run.failed)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </details>
  );
}
