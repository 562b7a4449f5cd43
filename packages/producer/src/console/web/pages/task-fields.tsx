/** The options of each task. */
import { TextField, type Wrong } from "../parts/fields.tsx";
import type { JobTask } from "../types.ts";
import type { Values } from "./submit-body.ts";

interface TaskFieldsProps {
  task: JobTask;
  values: Values;
  set(part: Partial<Values>): void;
  text(name: keyof Values): { name: string; wrong: Wrong | null; value: string; onValue(value: string): void };
}

export function TaskFields({ task, text }: TaskFieldsProps) {
  const makesTexts = task === "caption" || task === "vqa" || task === "capfilt";
  const hasTexts = ["itm", "itc", "embed", "filter"].includes(task);
  const number = { type: "number", min: 0 } as const;
  return (
    <>
      {task === "vqa" && (
        <>
          <TextField
            {...text("question")}
            label="Questions"
            rows={3}
            placeholder="is there a dog?"
            help="One a line; asked of every picture."
          />
          <TextField {...text("question_column")} label="Or the column that has them" help="Of the manifest." />
          <TextField {...text("answer")} label="The only answers" rows={2} help="One a line; empty: any." />
        </>
      )}
      {hasTexts && task !== "filter" && (
        <TextField
          {...text("text")}
          label="Texts"
          rows={3}
          placeholder="a dog"
          help={
            task === "embed"
              ? "One a line; empty: the pictures are embedded."
              : "One a line; the same for every picture."
          }
        />
      )}
      {(hasTexts || task === "capfilt") && (
        <TextField
          {...text("text_column")}
          label={
            task === "filter" || task === "capfilt"
              ? "The column of the dataset's texts"
              : "Or the column that has them"
          }
          placeholder="alt"
          help="Of the manifest; of tars, txt or a field of their json."
        />
      )}
      {(task === "caption" || task === "capfilt") && (
        <div class="pair">
          <TextField {...text("num_captions")} label="Captions per picture" placeholder="1" {...number} />
          <TextField {...text("prompt")} label="Each begins with" placeholder="a picture of" />
        </div>
      )}
      {(task === "filter" || task === "capfilt") && (
        <TextField
          {...text("threshold")}
          label="Texts are kept from"
          placeholder="0.5"
          help="A probability to match, from 0 to 1."
          type="number"
          step="any"
        />
      )}
      {makesTexts && (
        <details>
          <summary>How texts are made</summary>
          <div class="pair">
            <TextField {...text("num_beams")} label="Beams" placeholder="1" {...number} />
            <TextField {...text("max_new_tokens")} label="Most new tokens" placeholder="20" {...number} />
            <TextField {...text("min_new_tokens")} label="Fewest new tokens" placeholder="0" {...number} />
            <TextField
              {...text("repetition_penalty")}
              label="Repetition penalty"
              placeholder="1"
              step="any"
              {...number}
            />
            <TextField
              {...text("length_penalty")}
              label="Length penalty (beams)"
              placeholder="1"
              step="any"
              type="number"
            />
            <TextField {...text("top_p")} label="Sample from the nucleus of" placeholder="0.9" step="any" {...number} />
            <TextField {...text("temperature")} label="Temperature (sampling)" placeholder="1" step="any" {...number} />
            <TextField {...text("top_k")} label="Sample from the top" placeholder="all" {...number} />
            <TextField {...text("seed")} label="Seed (sampling)" placeholder="0" {...number} />
          </div>
        </details>
      )}
    </>
  );
}
