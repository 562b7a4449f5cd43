/** A job's rows: how they scored, which errors there are, and a gallery of those that are looked for. */
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { type ApiError, call } from "../api.ts";
import { count, plural } from "../format.ts";
import { asError } from "../hooks.ts";
import { Empty, Foreign, Notice } from "../parts/basics.tsx";
import { Histogram } from "../parts/histogram.tsx";
import { FINAL, type Job, type Row, type RowPage } from "../types.ts";
import { RowCard, type Shown } from "./row-card.tsx";

const LIMIT = 24;
/** Pages that one click looks through for something rare. */
const LOOKS = 5;

interface Wanted {
  show: "all" | "failed";
  code: string | null;
  search: string;
  bin: number | null;
}
const ALL: Wanted = { show: "all", code: null, search: "", bin: null };

export function Rows({ job }: { job: Job }) {
  const [wanted, setWanted] = useState<Wanted>(ALL);
  const change = (part: Partial<Wanted>) => setWanted({ ...wanted, ...part });
  const codes = Object.entries(job.errors).sort(([, a], [, b]) => b - a);
  return (
    <section aria-label="Rows">
      <div class="section-head">
        <h2>Rows</h2>
        <Filters wanted={wanted} failed={job.counts.failed} onChange={change} />
      </div>
      {codes.length > 0 && (
        <fieldset class="chips" aria-label="Errors by code">
          {codes.map(([code, n]) => (
            <button
              key={code}
              type="button"
              class="chip bad"
              aria-pressed={wanted.code === code}
              onClick={() => change(wanted.code === code ? { code: null } : { code, show: "all", bin: null })}
            >
              {code} <b>{count(n)}</b>
            </button>
          ))}
        </fieldset>
      )}
      <Scores job={job} bin={wanted.bin} onBin={(bin) => change({ bin, code: null, show: "all" })} />
      <Gallery key={JSON.stringify(wanted)} job={job} wanted={wanted} onAll={() => setWanted(ALL)} />
    </section>
  );
}

interface FiltersProps {
  wanted: Wanted;
  failed: number;
  onChange(part: Partial<Wanted>): void;
}

function Filters({ wanted, failed, onChange }: FiltersProps) {
  const [typed, setTyped] = useState(wanted.search);
  useEffect(() => setTyped(wanted.search), [wanted.search]);
  return (
    <search>
      <form
        class="filters"
        onSubmit={(event) => {
          event.preventDefault();
          onChange({ search: typed.trim() });
        }}
      >
        <select
          aria-label="Which rows"
          value={wanted.show}
          onChange={(event) => onChange({ show: event.currentTarget.value as Wanted["show"], code: null, bin: null })}
        >
          <option value="all">all rows</option>
          <option value="failed">failed ({count(failed)})</option>
        </select>
        <input
          type="search"
          aria-label="Search in texts, ids and locations"
          placeholder="Search in texts and ids"
          maxLength={200}
          value={typed}
          onInput={(event) => {
            setTyped(event.currentTarget.value);
            if (event.currentTarget.value === "") onChange({ search: "" });
          }}
        />
        <button type="submit">Search</button>
      </form>
    </search>
  );
}

const WHAT: Partial<Record<Job["task"], string>> = {
  caption: "How likely the model found its captions' tokens (e to the power of the score)",
  vqa: "How likely the model found its answers' tokens (e to the power of the score)",
  itm: "How likely the texts are to match",
  itc: "How similar the texts are to their pictures",
};

function Scores({ job, bin, onBin }: { job: Job; bin: number | null; onBin(bin: number | null): void }) {
  const { scores, pairs, task } = job;
  const range = task === "itc" ? ([-1, 1] as const) : ([0, 1] as const);
  const all = [
    ...(scores ? [{ label: WHAT[task] ?? "Scores", counts: scores }] : []),
    ...(["web", "synthetic"] as const).flatMap((origin) => {
      const sums = pairs?.[origin];
      if (!sums || sums.kept + sums.dropped === 0) return [];
      const name = origin === "web" ? "Texts of the dataset" : "Made captions";
      const label = `${name}: ${count(sums.kept)} kept, ${count(sums.dropped)} dropped, by how likely they are to match`;
      return [{ label, counts: sums.histogram }];
    }),
  ];
  if (all.length === 0) return null;
  return (
    <div class="card histograms">
      {all.map(({ label, counts }) => (
        <Histogram key={label} label={label} counts={counts} range={range} chosen={bin} onChoose={onBin} />
      ))}
    </div>
  );
}

interface GalleryProps {
  job: Job;
  wanted: Wanted;
  onAll(): void;
}

interface Pages {
  rows: Shown[];
  /** Where the next page begins; null: there is none. */
  cursor: string | null;
  looked: number;
  isLoading: boolean;
}

const NOTHING: Pages = { rows: [], cursor: "0.0", looked: 0, isLoading: true };

function Gallery({ job, wanted, onAll }: GalleryProps) {
  const [pages, setPages] = useState<Pages>(NOTHING);
  const [error, setError] = useState<ApiError | null>(null);
  const latest = useRef(pages);
  const gone = useRef(new AbortController());
  const busy = useRef(false);

  const more = useCallback(async () => {
    if (busy.current) return;
    busy.current = true;
    const show = (next: Pages) => {
      latest.current = next;
      if (!gone.current.signal.aborted) setPages(next);
    };
    show({ ...latest.current, isLoading: true });
    try {
      for (let look = 0; look < LOOKS; look++) {
        const { cursor, rows, looked } = latest.current;
        const page = await call<RowPage>(pathOf(job.id, wanted, cursor!), { signal: gone.current.signal });
        const found = page.rows.map((row, i) => shownOf(row, page, i));
        const next = { rows: [...rows, ...found], cursor: page.next_cursor, looked: looked + page.looked_at };
        show({ ...next, isLoading: true });
        if (found.length > 0 || page.next_cursor === null || page.next_cursor === cursor) break;
      }
      setError(null);
    } catch (thrown) {
      if (!gone.current.signal.aborted) setError(asError(thrown));
    }
    busy.current = false;
    show({ ...latest.current, isLoading: false });
  }, [job.id, wanted]);

  const before = useRef(job.counts.committed);
  // The first page; of a job that goes on, also what comes until it is full.
  const { committed } = job.counts;
  useEffect(() => {
    // Fewer than before: a retry does some of them again.
    if (committed < before.current) latest.current = NOTHING;
    before.current = committed;
    const { rows, cursor } = latest.current;
    if (cursor !== null && rows.length < LIMIT) void more();
  }, [committed, job.state, more]);
  useEffect(() => () => gone.current.abort(), []);

  const { rows, cursor, looked, isLoading } = pages;
  const isFiltered = wanted.show !== "all" || wanted.code !== null || wanted.search !== "" || wanted.bin !== null;
  const isOpen = cursor !== null && looked < committed;
  return (
    <>
      <p class="muted looked" role="status">
        {isFiltered && (
          <>
            {plural(rows.length, "row")} found in{" "}
            {isOpen ? `the first ${count(looked)} of ${count(committed)} rows` : `all ${plural(committed, "row")}`}.{" "}
            <button type="button" class="link" onClick={onAll}>
              Show all
            </button>
          </>
        )}
        {!isFiltered && rows.length > 0 && `${count(rows.length)} of ${count(committed)} committed rows`}
        {wanted.search && (
          <>
            {" "}
            Searched for “<Foreign>{wanted.search}</Foreign>”.
          </>
        )}
      </p>
      {error && (
        <Notice error={error}>
          <button type="button" onClick={() => void more()}>
            Try again
          </button>
        </Notice>
      )}
      {rows.length === 0 && !isLoading && !error && <Empty>{nothing(job, isFiltered, isOpen)}</Empty>}
      <ul class="gallery" aria-busy={isLoading}>
        {rows.map((shown) => (
          <RowCard key={shown.position} job={job} shown={shown} />
        ))}
      </ul>
      {isOpen && (
        <button type="button" class="more" disabled={isLoading} onClick={() => void more()}>
          {isLoading ? "Looking…" : isFiltered ? "Look further" : "More rows"}
        </button>
      )}
    </>
  );
}

function nothing(job: Job, isFiltered: boolean, isOpen: boolean): string {
  if (isFiltered) return isOpen ? "Nothing so far; there is more to look at." : "No row is like that.";
  return FINAL.includes(job.state) ? "The job has no rows." : "No rows yet. They appear as shards are committed.";
}

function shownOf(row: Row, { positions, texts }: RowPage, i: number): Shown {
  return { row, position: positions[i]!, texts: texts?.given ?? texts?.rows[i] ?? null };
}

function pathOf(id: string, { show, code, search, bin }: Wanted, cursor: string): string {
  const query = new URLSearchParams({ limit: String(LIMIT), texts: "true", cursor });
  if (show === "failed") query.set("errors", "true");
  if (code !== null) query.set("code", code);
  if (search !== "") query.set("search", search);
  if (bin !== null) {
    query.set("min_score", String(bin / 20));
    query.set("max_score", String((bin + 1) / 20));
  }
  return `/v1/jobs/${id}/results?${query}`;
}
