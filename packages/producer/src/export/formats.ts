/** Which tasks' rows can be written as what. */
import { CapfleetError, type Format, type JobTaskSpec, needsImage } from "@capfleet/shared/contract";

/** `flag` is the option that asked for the format. Throws INVALID_OPTION. */
export function checkFormat(task: JobTaskSpec, format: Format, flag: string): void {
  if (format !== "webdataset" || needsImage(task)) return;
  const message = `${flag} webdataset: the job embeds texts, and a sample of WebDataset is an image; take parquet`;
  throw new CapfleetError("INVALID_OPTION", message);
}
