/** All jobs, the newest first, as they go on. */
import { useState } from "preact/hooks";
import { type ApiError, call } from "../api.ts";
import { ago, count, duration, MADE, short, time } from "../format.ts";
import { asError, useLoad } from "../hooks.ts";
import { Badge, Empty, Foreign, Loading, Notice, Page, Progress } from "../parts/basics.tsx";
import type { Job, JobPage } from "../types.ts";

const STATES = ["planning", "running", "paused", "blocked", "finished", "failed", "cancelled"];
const LIMIT = 20;

export function JobsPage() {
  const [state, setState] = useState("");
  return (
    <Page
      title="Jobs"
      aside={
        <div class="actions">
          <select
            aria-label="Only jobs that are"
            value={state}
            onChange={(event) => setState(event.currentTarget.value)}
          >
            <option value="">all states</option>
            {STATES.map((name) => (
              <option key={name} value={name}>
                {name}
              </option>
            ))}
          </select>
          <a class="button primary" href="#/submit">
            New job
          </a>
        </div>
      }
    >
      <JobList key={state} state={state} />
    </Page>
  );
}

function JobList({ state }: { state: string }) {
  const path = `/v1/jobs?limit=${LIMIT}${state && `&state=${state}`}`;
  const { data, error } = useLoad<JobPage>(path, 2_000);
  const [older, setOlder] = useState<JobPage | null>(null);
  const [olderError, setOlderError] = useState<ApiError | null>(null);
  if (!data) return error ? <Notice error={error} /> : <Loading />;
  const cursor = older ? older.next_cursor : data.next_cursor;
  const more = async () => {
    try {
      const next = await call<JobPage>(`${path}&cursor=${cursor}`);
      setOlder({ jobs: [...(older?.jobs ?? []), ...next.jobs], next_cursor: next.next_cursor });
    } catch (thrown) {
      setOlderError(asError(thrown));
    }
  };
  const known = new Set(data.jobs.map(({ id }) => id));
  const jobs = [...data.jobs, ...(older?.jobs ?? []).filter(({ id }) => !known.has(id))];
  const wrong = error ?? olderError;
  return (
    <>
      {wrong && <Notice error={wrong} />}
      {jobs.length === 0 && <NoJobs state={state} isMore={cursor !== null} />}
      <ul class="job-list">
        {jobs.map((job) => (
          <JobLine key={job.id} job={job} />
        ))}
      </ul>
      {cursor !== null && (
        <button type="button" class="more" onClick={more}>
          Older jobs
        </button>
      )}
    </>
  );
}

function NoJobs({ state, isMore }: { state: string; isMore: boolean }) {
  if (state !== "") return <Empty>{isMore ? `None of the newest jobs is ${state}.` : `No job is ${state}.`}</Empty>;
  return (
    <Empty>
      <p>
        <strong>No jobs yet.</strong> Point one at a bucket or a folder, or try a model on one picture first.
      </p>
      <div class="actions center">
        <a class="button primary" href="#/submit">
          Submit a job
        </a>
        <a class="button" href="#/try">
          Try a model
        </a>
      </div>
    </Empty>
  );
}

function JobLine({ job }: { job: Job }) {
  const { counts, rate, eta_seconds: eta } = job;
  const isMoving = job.state === "running" || job.state === "planning";
  const figures = [
    `${count(counts.done)}${counts.total === null ? "" : ` of ${count(counts.total)}`} rows`,
    ...(counts.failed > 0 ? [`${count(counts.failed)} failed`] : []),
    ...(isMoving && rate !== null ? [`${short(rate)} a second`] : []),
    ...(isMoving && eta !== null ? [`${duration(eta)} left`] : []),
  ];
  return (
    <li>
      <a class="card job-line" href={`#/jobs/${job.id}`}>
        <span class="what">
          <Badge state={job.state} />
          <strong>{MADE[job.task]}</strong>
          <span class="muted">{job.models.map(({ model }) => model).join(" + ")}</span>
        </span>
        <time class="muted" dateTime={job.created_at} title={time(job.created_at)}>
          {ago(job.created_at)}
        </time>
        <span class="where">
          <Foreign mono>{job.input}</Foreign>
          <span class="muted" role="img" aria-label="to">
            {" → "}
          </span>
          <Foreign mono>{job.output}</Foreign>
        </span>
        <span class="how-far">
          <Progress job={job} />
          <span class="muted">{figures.join(" · ")}</span>
        </span>
      </a>
    </li>
  );
}
