/** The workers, what each runs, how fast they are together, and what waits for them. */
import { count, plural } from "../format.ts";
import { useLoad } from "../hooks.ts";
import { Empty, Figure, Foreign, Loading, Notice, Page } from "../parts/basics.tsx";
import { Chart } from "../parts/chart.tsx";
import type { Fleet, History } from "../types.ts";

export function FleetPage() {
  const fleet = useLoad<Fleet>("/v1/fleet", 2_000);
  const history = useLoad<History>("/v1/fleet/history", 5_000);
  return (
    <Page title="Fleet">
      {fleet.error && <Notice error={fleet.error} />}
      {!fleet.data && !fleet.error && <Loading />}
      {fleet.data && <Totals fleet={fleet.data} />}
      {history.data && <Charts history={history.data} />}
      {fleet.data && <Workers fleet={fleet.data} />}
      {fleet.data && <Backlog fleet={fleet.data} />}
    </Page>
  );
}

function Totals({ fleet: { workers, backlog } }: { fleet: Fleet }) {
  const sum = (numbers: number[]) => numbers.reduce((a, b) => a + b, 0);
  return (
    <dl class="figures card">
      <Figure name="Workers" value={count(workers.length)} />
      <Figure name="Shards at once" value={count(sum(workers.map(({ slots }) => slots)))} />
      <Figure name="In work" value={plural(sum(workers.map(({ in_flight }) => in_flight.shards)), "shard")} />
      <Figure name="Backlog" value={plural(sum(backlog.map(({ records }) => records)), "image")} />
    </dl>
  );
}

function Charts({ history: { samples, interval_seconds: interval } }: { history: History }) {
  const points = (value: (sample: History["samples"][number]) => number) =>
    samples.map((sample) => ({ at: Date.parse(sample.at), value: value(sample) }));
  const gapMs = 3 * interval * 1_000;
  return (
    <div class="card charts">
      <Chart
        label="Images a second"
        unit="a second"
        gapMs={gapMs}
        points={points((sample) => sample.rows_per_second)}
      />
      <Chart label="Backlog" unit="images" gapMs={gapMs} points={points((sample) => sample.backlog)} />
    </div>
  );
}

function Workers({ fleet: { workers } }: { fleet: Fleet }) {
  return (
    <section aria-label="Workers">
      <h2>Workers</h2>
      {workers.length === 0 && (
        <Empty>
          <p>No worker is alive. Start one:</p>
          <pre>capfleet-worker --models demo-caption</pre>
        </Empty>
      )}
      <ul class="workers">
        {workers.map(({ id, host, version, engines, slots, in_flight: { shards, rows } }) => (
          <li key={id} class="card">
            <h3>
              <Foreign>{host}</Foreign>
            </h3>
            <p class="mono muted">
              <Foreign>{id}</Foreign> · {version}
            </p>
            <p class="chips">
              {engines.map(({ model, precision, digest }) => (
                <span key={digest} class="chip" title={`engine ${digest}`}>
                  <Foreign>{model}</Foreign> {precision}
                </span>
              ))}
            </p>
            <p>
              {shards} of {plural(slots, "shard")} in work
              {rows > 0 && <span class="muted">, {plural(rows, "row")} not yet committed</span>}
            </p>
          </li>
        ))}
      </ul>
    </section>
  );
}

const wantedText = (workers: number | undefined) => (workers === undefined ? "not known" : count(workers));

function Backlog({ fleet: { backlog, workers, autoscaling } }: { fleet: Fleet }) {
  const running = new Set(workers.flatMap(({ engines }) => engines.map(({ digest }) => digest)));
  const scaleOf = new Map(autoscaling.map((scale) => [scale.engines, scale]));
  const nameOf = (engines: string) => {
    const name = scaleOf.get(engines)?.models.join(" + ") || engines;
    const missing = engines.split("+").filter((digest) => !running.has(digest));
    return missing.length === 0 ? name : `${name} (engine ${missing.join(" and ")}, which no worker runs)`;
  };
  return (
    <section aria-label="Backlog">
      <h2>Backlog</h2>
      {backlog.length === 0 && <Empty>Nothing waits.</Empty>}
      {backlog.length > 0 && (
        <div class="card scroll">
          <table>
            <thead>
              <tr>
                <th>Models</th>
                <th class="number">Jobs</th>
                <th class="number">Images</th>
                <th class="number">Shards handed out</th>
                <th class="number">Workers wanted</th>
              </tr>
            </thead>
            <tbody>
              {backlog.map(({ engines, jobs, records, shards }) => (
                <tr key={engines}>
                  <td>
                    <Foreign>{nameOf(engines)}</Foreign>
                  </td>
                  <td class="number">{count(jobs)}</td>
                  <td class="number">{count(records)}</td>
                  <td class="number">{count(shards)}</td>
                  <td class="number">{wantedText(scaleOf.get(engines)?.wanted_workers)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </section>
  );
}
