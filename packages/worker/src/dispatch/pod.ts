/**
 * Tells Kubernetes which worker to end first where there are too many: the annotation `controller.kubernetes.io/pod-deletion-cost`
 * of this worker's own pod follows the rows that would have to be labelled again. Only a preference of Kubernetes's: whatever
 * goes wrong here is logged and met again with the next change.
 */
import { readFile } from "node:fs/promises";
import { request } from "node:https";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { setTimeout as pause } from "node:timers/promises";
import type { Logger } from "@capfleet/shared/log";

const ANNOTATION = "controller.kubernetes.io/pod-deletion-cost";
/** What Kubernetes asks of whoever keeps such annotations: not too often. */
const EVERY_MS = 10_000;
const REQUEST_MS = 5_000;
const MAX_COST = 2 ** 31 - 1;
const SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount";

export interface Pod {
  name: string;
  namespace: string;
  /** The Kubernetes API. */
  host: string;
  port: number;
  /** The folder of `token` and `ca.crt`; the token is renewed there now and then. */
  serviceAccount: string;
}

/** Null where the environment does not say that this is a pod. */
export function podOf(env: NodeJS.ProcessEnv, serviceAccount = SERVICE_ACCOUNT): Pod | null {
  const { CAPFLEET_POD_NAME: name, CAPFLEET_POD_NAMESPACE: namespace, KUBERNETES_SERVICE_HOST: host } = env;
  if (!name || !namespace || !host) return null;
  return { name, namespace, host, port: Number(env.KUBERNETES_SERVICE_PORT || 443), serviceAccount };
}

export interface Telling {
  /** Rows that are labelled and not committed. */
  rows(): number;
  log: Logger;
  signal: AbortSignal;
  everyMs?: number;
}

/** Until the signal; never throws. */
export async function tellDeletionCost(pod: Pod, { rows, log, signal, everyMs = EVERY_MS }: Telling): Promise<void> {
  let told = 0;
  while (!signal.aborted) {
    const cost = Math.min(rows(), MAX_COST);
    if (isNews(cost, told)) {
      try {
        await annotate(pod, cost);
        told = cost;
      } catch (thrown) {
        log.warn({ pod: pod.name, err: (thrown as Error).message }, "the pod's deletion cost can't be told");
      }
    }
    await pause(everyMs, undefined, { signal }).catch(() => {});
  }
}

/** A pod without the annotation costs 0. Small changes are not worth a request to the API of a whole cluster. */
const isNews = (cost: number, told: number) =>
  cost !== told && (cost === 0 || told === 0 || Math.abs(cost - told) > told / 4);

async function annotate({ name, namespace, host, port, serviceAccount }: Pod, cost: number): Promise<void> {
  const [token, ca] = await Promise.all([
    readFile(join(serviceAccount, "token"), "utf8"),
    readFile(join(serviceAccount, "ca.crt")),
  ]);
  const body = JSON.stringify({ metadata: { annotations: { [ANNOTATION]: String(cost) } } });
  const sent = request({
    ...{ host, port, ca, agent: false, method: "PATCH" },
    path: `/api/v1/namespaces/${encodeURIComponent(namespace)}/pods/${encodeURIComponent(name)}`,
    headers: { authorization: `Bearer ${token.trim()}`, "content-type": "application/merge-patch+json" },
    signal: AbortSignal.timeout(REQUEST_MS),
  });
  const answer = new Promise<string>((resolve, reject) => {
    sent.on("error", reject);
    sent.on("response", (response) => {
      text(response).then((said) => {
        if (response.statusCode === 200) resolve(said);
        else reject(new Error(`Kubernetes answers ${response.statusCode}: ${said.slice(0, 200)}`));
      }, reject);
    });
  });
  sent.end(body);
  await answer;
}
