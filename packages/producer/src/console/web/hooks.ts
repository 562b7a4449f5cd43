/** Data that comes from the API, and where in the console its reader is. */
import { useCallback, useEffect, useState } from "preact/hooks";
import { ApiError, call, follow } from "./api.ts";
import type { Job } from "./types.ts";

export interface Loaded<T> {
  data: T | null;
  error: ApiError | null;
  reload(): void;
}

/** Asked again every `everyMs` while the page is looked at. */
export function useLoad<T>(path: string, everyMs = 0): Loaded<T> {
  const [loaded, setLoaded] = useState<{ path: string; data: T } | null>(null);
  const [error, setError] = useState<ApiError | null>(null);
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const gone = new AbortController();
    const load = async () => {
      try {
        const data = await call<T>(path, { signal: gone.signal });
        if (gone.signal.aborted) return;
        setLoaded({ path, data });
        setError(null);
      } catch (thrown) {
        if (!gone.signal.aborted) setError(asError(thrown));
      }
      if (everyMs > 0 && !gone.signal.aborted) timer = setTimeout(again, everyMs);
    };
    const again = () => {
      if (document.hidden) timer = setTimeout(again, everyMs);
      else void load();
    };
    let timer = setTimeout(load, 0);
    return () => {
      gone.abort();
      clearTimeout(timer);
    };
  }, [path, everyMs, turn]);
  // What was asked before is not the answer to what is asked now.
  const data = loaded?.path === path ? loaded.data : null;
  return { data, error, reload: useCallback(() => setTurn((n) => n + 1), []) };
}

/** A job, as it goes on. `again` opens the stream anew, of a job that had ended. */
export function useJob(id: string): { job: Job | null; error: ApiError | null; set(job: Job): void } {
  const [job, setJob] = useState<Job | null>(null);
  const [error, setError] = useState<ApiError | null>(null);
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const gone = new AbortController();
    const told = (next: Job) => {
      setJob(next);
      setError(null);
    };
    void call<Job>(`/v1/jobs/${id}`, { signal: gone.signal }).then(told, (thrown) => {
      if (!gone.signal.aborted) setError(asError(thrown));
      if (asError(thrown).code === "JOB_NOT_FOUND") gone.abort();
    });
    void follow(id, told, (thrown) => setError(asError(thrown)), gone.signal);
    return () => gone.abort();
  }, [id, turn]);
  const set = useCallback((next: Job) => {
    setJob(next);
    setTurn((n) => n + 1);
  }, []);
  return { job, error, set };
}

/** The part of the address behind `#/`, in pieces. */
export function useRoute(): string[] {
  const [hash, setHash] = useState(location.hash);
  useEffect(() => {
    const moved = () => setHash(location.hash);
    window.addEventListener("hashchange", moved);
    return () => window.removeEventListener("hashchange", moved);
  }, []);
  return hash
    .replace(/^#\/?/, "")
    .split("/")
    .map((part) => {
      try {
        return decodeURIComponent(part);
      } catch {
        return part;
      }
    });
}

export function asError(thrown: unknown): ApiError {
  if (thrown instanceof ApiError) return thrown;
  return new ApiError("PAGE_ERROR", thrown instanceof Error ? thrown.message : String(thrown), "Load the page anew.");
}
