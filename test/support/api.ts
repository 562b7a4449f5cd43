/** The API of a real `capfleet serve`, and what a client makes of it. */
import type { JobView } from "../../packages/producer/src/api/schemas.ts";
import { type Running, type Sandbox, until } from "./processes.ts";

export interface Answer<T> {
  status: number;
  headers: Headers;
  // Tests say what they expect of it.
  body: T;
}

export interface AnswerError {
  error: { code: string; message: string; fix: string; retryable: boolean };
}

export class ApiClient {
  readonly url: string;
  readonly #key: string | null;
  /** Every answer, so that it can be searched for what must not be there. */
  readonly seen: string[];

  constructor(url: string, key: string | null = null, seen: string[] = []) {
    this.url = url;
    this.#key = key;
    this.seen = seen;
  }

  as(key: string): ApiClient {
    return new ApiClient(this.url, key, this.seen);
  }

  get<T>(path: string): Promise<Answer<T>> {
    return this.send("GET", path);
  }

  post<T>(path: string, body?: unknown, headers: Record<string, string> = {}): Promise<Answer<T>> {
    return this.send("POST", path, body === undefined ? undefined : JSON.stringify(body), headers);
  }

  submit(body: object, headers: Record<string, string> = {}): Promise<Answer<JobView & AnswerError>> {
    return this.post("/v1/jobs", body, headers);
  }

  async send<T>(method: string, path: string, text?: string, headers: Record<string, string> = {}): Promise<Answer<T>> {
    const auth = this.#key === null ? {} : { authorization: `Bearer ${this.#key}` };
    const type = text === undefined ? {} : { "content-type": "application/json" };
    const init = { method, headers: { ...auth, ...type, ...headers }, ...(text !== undefined && { body: text }) };
    const answer = await fetch(this.url + path, init);
    const body = await answer.text();
    this.seen.push(JSON.stringify([...answer.headers]), body);
    const isJson = answer.headers.get("content-type")?.startsWith("application/json");
    return { status: answer.status, headers: answer.headers, body: (isJson ? JSON.parse(body) : body) as T };
  }

  /** The job, once it is as wanted. */
  async when(id: string, state: JobView["state"]): Promise<JobView> {
    return until(`${id} to be ${state}`, async () => {
      const { body } = await this.get<JobView>(`/v1/jobs/${id}`);
      return body.state === state ? body : null;
    });
  }

  /** Steps of a job, as they come, until the server ends the stream. */
  async *events(id: string, signal?: AbortSignal): AsyncGenerator<{ event: string; data: JobView }> {
    const auth = this.#key === null ? {} : { authorization: `Bearer ${this.#key}` };
    const answer = await fetch(`${this.url}/v1/jobs/${id}/events`, { headers: auth, ...(signal && { signal }) });
    if (answer.status !== 200) throw new Error(`${answer.status}: ${await answer.text()}`);
    let text = "";
    for await (const chunk of answer.body!.pipeThrough(new TextDecoderStream())) {
      const blocks = (text + chunk).split("\n\n");
      text = blocks.pop()!;
      for (const block of blocks) {
        const [, event, data] = /^event: (\w+)\ndata: (.*)$/.exec(block) ?? [];
        if (event && data) yield { event, data: JSON.parse(data) as JobView };
      }
    }
  }
}

/** `capfleet serve`, once it listens. */
export async function serving(
  sandbox: Sandbox,
  env: NodeJS.ProcessEnv,
  ...args: string[]
): Promise<{ producer: Running; api: ApiClient }> {
  const producer = sandbox.capfleet(env, "serve", ...args);
  const url = await until("the API to listen", () => {
    if (producer.child.exitCode !== null) throw new Error(producer.stderr);
    return /"api":"([^"]+)"/.exec(producer.stderr)?.[1] ?? null;
  });
  return { producer, api: new ApiClient(url) };
}
