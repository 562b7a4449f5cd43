/** From the reconciler's figures to wanted workers: for each set of engines, and for a pool whose workers run certain models. */
import { CapfleetError, type Precision } from "@capfleet/shared/contract";
import { type FleetFigures, type Load, type Presence, servedSets } from "@capfleet/shared/queues";
import { type Target, wantedWorkers } from "./policy.ts";

export interface SetScale extends Load {
  engines: string;
  models: string[];
  /** As if workers served this set alone. */
  wanted: number;
}

export interface PoolModels {
  models: readonly string[];
  /** Null: whichever. */
  precision: Precision | null;
}

/** Throws FLEET_UNKNOWN: a wrong 0 would send all workers away. */
export function scaleOfSets(figures: FleetFigures | null, workers: readonly Presence[], target: Target): SetScale[] {
  return knownLoads(figures).map(({ engines, models, busy, load }) => {
    const live = workers.filter((worker) => servedSets(worker.engines).includes(engines)).length;
    const wanted = wantedWorkers([load], { live, busy }, target);
    return { engines, models: models.map(({ model }) => model), ...load, wanted };
  });
}

/** The same for all that a worker with these models can do: each model's sets, and those of every two. Throws FLEET_UNKNOWN. */
export function scaleOfPool(
  { models, precision }: PoolModels,
  figures: FleetFigures | null,
  workers: readonly Presence[],
  target: Target,
): number {
  const isOfPool = ({ model, precision: its }: { model: string; precision: Precision }) =>
    models.includes(model) && (precision === null || its === precision);
  const loads = knownLoads(figures).flatMap((set) => (set.models.every(isOfPool) ? [set.load] : []));
  const pool = workers.filter(
    ({ engines }) => engines.every(isOfPool) && models.every((name) => engines.some(({ model }) => model === name)),
  );
  const busy = pool.filter(({ inFlight }) => inFlight.length > 0).length;
  return wantedWorkers(loads, { live: pool.length, busy }, target);
}

/** What is wanted can be said. */
export const isKnown = ({ unread, backlog }: FleetFigures) =>
  unread === 0 && backlog.every(({ load }) => load !== null);

function knownLoads(figures: FleetFigures | null) {
  if (!figures) throw new CapfleetError("FLEET_UNKNOWN", "no producer has said lately what there is to do");
  if (figures.unread > 0) throw new CapfleetError("FLEET_UNKNOWN", `the state of ${figures.unread} jobs can't be read`);
  return figures.backlog.map(({ load, ...set }) => {
    // Only while producers of two versions run side by side.
    if (!load)
      throw new CapfleetError("FLEET_UNKNOWN", "the producer that looks after the jobs is of an older version");
    return { ...set, load };
  });
}
