/** What every page is made of. */
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import type { ApiError } from "../api.ts";
import type { Job } from "../types.ts";

/** Its title gets the focus when the reader comes here, so that the keyboard goes on from it. */
export function Page({
  title,
  aside,
  children,
}: {
  title: string;
  aside?: ComponentChildren;
  children: ComponentChildren;
}) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    document.title = `${title} · capfleet`;
    heading.current?.focus({ preventScroll: true });
    window.scrollTo(0, 0);
  }, [title]);
  return (
    <>
      <div class="page-head">
        <h1 ref={heading} tabIndex={-1}>
          {title}
        </h1>
        {aside}
      </div>
      {children}
    </>
  );
}

/** Text that others wrote: whatever is in it, it stays in its place, in its own direction. */
export const Foreign = ({ children, mono = false }: { children: string; mono?: boolean }) => (
  <bdi class={mono ? "mono" : undefined}>{children}</bdi>
);

export function Notice({ error, children }: { error: ApiError; children?: ComponentChildren }) {
  return (
    <div class="notice bad" role="alert">
      <p>
        <strong>
          <Foreign>{error.message}</Foreign>
        </strong>
      </p>
      {error.fix && <p>{error.fix}</p>}
      <p class="code">{error.code}</p>
      {children}
    </div>
  );
}

export const Empty = ({ children }: { children: ComponentChildren }) => <div class="empty">{children}</div>;

export const Loading = () => (
  <p class="loading" role="status">
    Loading…
  </p>
);

export const Badge = ({ state }: { state: string }) => (
  <span class={`badge ${state}`}>{state.replaceAll("_", " ")}</span>
);

/** How far a job is: labelled rows, and among them those that failed. */
export function Progress({ job }: { job: Job }) {
  const { done, failed, total, planned } = job.counts;
  const all = Math.max(total ?? planned, done, 1);
  const width = (part: number) => ({ width: `${((100 * part) / all).toFixed(2)}%` });
  const isUnknown = total === null && !["finished", "failed", "cancelled"].includes(job.state);
  return (
    <div
      class={`progress ${job.state}${isUnknown ? " open" : ""}`}
      role="progressbar"
      aria-label={`Rows of ${job.id}`}
      aria-valuemin={0}
      aria-valuemax={all}
      aria-valuenow={done}
    >
      <div class="done" style={width(done - failed)} />
      <div class="failed" style={width(failed)} />
    </div>
  );
}

export function Figure({ name, value, note }: { name: string; value: string; note?: string | undefined }) {
  return (
    <div class="figure">
      <dt>{name}</dt>
      <dd>
        {value}
        {note && <small>{note}</small>}
      </dd>
    </div>
  );
}

/** A part of 1, as a bar beside its figure. */
export const Meter = ({ part, tone = "" }: { part: number; tone?: string }) => (
  <span class={`meter ${tone}`} aria-hidden="true">
    <span style={{ width: `${(100 * Math.min(1, Math.max(0, part))).toFixed(1)}%` }} />
  </span>
);
