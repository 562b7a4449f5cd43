/**
 * A process that fetches a model: `fetcher.ts GIVEN`. Lines on stdout: `received N` as it goes, `note …`, and at the end
 * `folder PATH` or `error CODE message`.
 */
import { readConfig } from "../../src/config.ts";
import { asCapfleetError } from "../../src/contract/errors.ts";
import { fetchModel } from "../../src/models/index.ts";

try {
  const { folder } = await fetchModel(process.argv[2]!, readConfig(), {
    progress: ({ received }) => console.log(`received ${received}`),
    note: (text) => console.log(`note ${text}`),
  });
  console.log(`folder ${folder}`);
} catch (thrown) {
  const { code, message } = asCapfleetError(thrown);
  console.log(`error ${code} ${message}`);
}
