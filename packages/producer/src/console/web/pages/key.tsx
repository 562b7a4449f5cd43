/** Asks for an API key. */
import { useState } from "preact/hooks";
import { Page } from "../parts/basics.tsx";
import { TextField } from "../parts/fields.tsx";

export function KeyPage({ wasWrong, onKey }: { wasWrong: boolean; onKey(key: string): void }) {
  const [given, setGiven] = useState("");
  const wrong = { field: "key", message: "The key is unknown or revoked.", fix: "Give another one." };
  return (
    <Page title="A key, please">
      <form
        class="card narrow"
        onSubmit={(event) => {
          event.preventDefault();
          if (given.trim() !== "") onKey(given.trim());
        }}
      >
        <p>
          This server lets in who has an API key. It stays in this tab, and is gone when you close it; what you see and
          may do is what the key may.
        </p>
        <TextField
          name="key"
          label="API key"
          type="password"
          value={given}
          onValue={setGiven}
          wrong={wasWrong ? wrong : null}
          help="It begins with cf_. An operator makes one with `capfleet keys create`."
        />
        <button type="submit" class="primary">
          Go on
        </button>
      </form>
    </Page>
  );
}
