/** The frame around the pages, which page it is, and the key where one is needed. */
import { useEffect, useState } from "preact/hooks";
import { KEY_NEEDED, storedKey, storeKey } from "./api.ts";
import { useRoute } from "./hooks.ts";
import { FleetPage } from "./pages/fleet.tsx";
import { JobPage } from "./pages/job.tsx";
import { JobsPage } from "./pages/jobs.tsx";
import { KeyPage } from "./pages/key.tsx";
import { SchedulesPage } from "./pages/schedules.tsx";
import { SubmitPage } from "./pages/submit.tsx";
import { TryPage } from "./pages/try.tsx";
import { Empty, Page } from "./parts/basics.tsx";
import { Icon, type IconName } from "./parts/icons.tsx";

const NAV: readonly { name: IconName; label: string }[] = [
  { name: "jobs", label: "Jobs" },
  { name: "try", label: "Try" },
  { name: "submit", label: "Submit" },
  { name: "schedules", label: "Schedules" },
  { name: "fleet", label: "Fleet" },
];

export function App() {
  const [page = "", item] = useRoute();
  const [key, setKey] = useState(storedKey());
  const [isKeyNeeded, setKeyNeeded] = useState(false);
  useEffect(() => {
    const needed = () => setKeyNeeded(true);
    window.addEventListener(KEY_NEEDED, needed);
    return () => window.removeEventListener(KEY_NEEDED, needed);
  }, []);
  const change = (given: string | null) => {
    storeKey(given);
    setKey(given);
    setKeyNeeded(given === null);
  };
  const here = page === "" ? "jobs" : page;
  return (
    <div class="frame">
      <button type="button" class="skip" onClick={() => document.getElementById("main")?.focus()}>
        To the content
      </button>
      <header>
        <a class="brand" href="#/" aria-label="capfleet, jobs">
          <img src={document.querySelector<HTMLLinkElement>("link[rel=icon]")!.href} alt="" />
          capfleet
        </a>
        <nav aria-label="Pages">
          {NAV.map(({ name, label }) => (
            <a key={name} href={`#/${name}`} aria-current={here === name ? "page" : undefined}>
              <Icon name={name} />
              {label}
            </a>
          ))}
        </nav>
        <div class="foot">
          {key !== null && (
            <button type="button" class="quiet" onClick={() => change(null)}>
              Forget the key
            </button>
          )}
          <a href="/docs">API</a>
        </div>
      </header>
      <main id="main" tabIndex={-1} key={key ?? ""}>
        {isKeyNeeded ? <KeyPage wasWrong={key !== null} onKey={change} /> : pageOf(here, item)}
      </main>
    </div>
  );
}

function pageOf(name: string, item: string | undefined) {
  if (name === "jobs") return item ? <JobPage key={item} id={item} /> : <JobsPage />;
  if (name === "try") return <TryPage />;
  if (name === "submit") return <SubmitPage />;
  if (name === "schedules") return <SchedulesPage />;
  if (name === "fleet") return <FleetPage />;
  return (
    <Page title="Not here">
      <Empty>
        <p>The console has no such page.</p>
        <a class="button" href="#/">
          To the jobs
        </a>
      </Empty>
    </Page>
  );
}
