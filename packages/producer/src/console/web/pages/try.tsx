/** One picture, now: what a model says about it. */
import { useEffect, useRef, useState } from "preact/hooks";
import { type ApiError, post } from "../api.ts";
import { duration } from "../format.ts";
import { asError } from "../hooks.ts";
import { Empty, Notice, Page } from "../parts/basics.tsx";
import { Choice, SelectField, TextField } from "../parts/fields.tsx";
import type { Answer } from "../types.ts";
import { useModels } from "./models.tsx";
import { PictureField } from "./picture-field.tsx";
import { Said } from "./row-card.tsx";

const ASKS = [
  { value: "caption", label: "Caption", note: "say what is there" },
  { value: "vqa", label: "Ask", note: "questions about it" },
  { value: "itm", label: "Match", note: "which texts fit" },
] as const;
type Ask = (typeof ASKS)[number]["value"];

interface Asked {
  answer: Answer;
  texts: string[] | null;
  seconds: number;
}

const linesIn = (text: string) => text.split("\n").flatMap((line) => line.trim() || []);

export function TryPage() {
  const [picture, setPicture] = useState<File | null>(null);
  const [ask, setAsk] = useState<Ask>("caption");
  const [model, setModel] = useState("");
  const [candidates, setCandidates] = useState("3");
  const [way, setWay] = useState("beams");
  const [questions, setQuestions] = useState("what is in the picture?");
  const [texts, setTexts] = useState("a cat on a red background\na house on a blue background");
  const [asked, setAsked] = useState<Asked | null>(null);
  const [error, setError] = useState<ApiError | null>(null);
  const [isBusy, setBusy] = useState(false);
  const models = useModels();
  const said = useRef<HTMLElement>(null);
  // On a phone the answer is below the window.
  useEffect(() => {
    if (asked || error) said.current?.scrollIntoView({ block: "nearest" });
  }, [asked, error]);

  const options = models.options(ask);
  const chosen = options.some(({ value }) => value === model) ? model : (options[0]?.value ?? "");
  const forget = () => {
    setAsked(null);
    setError(null);
  };

  const run = async () => {
    const given = ask === "vqa" ? linesIn(questions) : ask === "itm" ? linesIn(texts) : null;
    const body = {
      task: ask,
      ...(chosen && { model: chosen }),
      ...(ask === "caption" && captionOptions(Number(candidates), way)),
      ...(ask === "vqa" && { question: given }),
      ...(ask === "itm" && { text: given }),
    };
    setBusy(true);
    forget();
    try {
      const image = await dataUrl(picture!);
      const begun = performance.now();
      const answer = await post<Answer>("/v1/infer", { ...body, image });
      setAsked({ answer, texts: given, seconds: (performance.now() - begun) / 1_000 });
    } catch (thrown) {
      setError(asError(thrown));
    }
    setBusy(false);
  };

  return (
    <Page title="Try a model">
      <div class="columns">
        <form
          class="card"
          onSubmit={(event) => {
            event.preventDefault();
            void run();
          }}
        >
          <PictureField
            picture={picture}
            onPicture={(file) => {
              setPicture(file);
              forget();
            }}
          />
          <Choice
            legend="What to ask"
            name="ask"
            value={ask}
            options={ASKS}
            onValue={(value) => {
              setAsk(value as Ask);
              forget();
            }}
          />
          {ask === "caption" && (
            <div class="pair">
              <TextField
                name="num_captions"
                label="Candidates"
                type="number"
                min={1}
                max={16}
                value={candidates}
                onValue={setCandidates}
              />
              <SelectField
                name="way"
                label="Found by"
                value={way}
                onValue={setWay}
                options={[
                  { value: "beams", label: "likeliest (beams)" },
                  { value: "sample", label: "varied (sampling)" },
                ]}
              />
            </div>
          )}
          {ask === "vqa" && (
            <TextField
              name="question"
              label="Questions, one a line"
              rows={3}
              value={questions}
              onValue={setQuestions}
            />
          )}
          {ask === "itm" && (
            <TextField name="text" label="Texts, one a line" rows={4} value={texts} onValue={setTexts} />
          )}
          <SelectField name="model" label="Model" value={chosen} onValue={setModel} options={options} />
          <button type="submit" class="primary" disabled={!picture || isBusy}>
            {isBusy ? "Waiting for an answer…" : picture ? "Ask the model" : "Choose a picture first"}
          </button>
        </form>
        <section ref={said} aria-label="The answer" aria-live="polite" aria-busy={isBusy}>
          {error && <Notice error={error} />}
          {asked && (
            <div class="card answer">
              <Said answer={asked.answer} texts={asked.texts} most={1_000} />
              <p class="muted">
                {chosen}, in {duration(asked.seconds)}. Nothing of it is kept.
              </p>
            </div>
          )}
          {!asked && !error && (
            <Empty>
              {isBusy ? "The workers answer ahead of their bulk work." : "The answer appears here, with its scores."}
            </Empty>
          )}
        </section>
      </div>
    </Page>
  );
}

function captionOptions(candidates: number, way: string) {
  if (way === "beams") return { num_captions: candidates, num_beams: Math.min(16, Math.max(3, candidates)) };
  return { num_captions: candidates, top_p: 0.9, seed: Math.floor(Math.random() * 2 ** 32) };
}

function dataUrl(file: File): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    // What the browser takes a file for says nothing about its bytes; the worker looks at these.
    reader.onload = () => resolve(`data:image/jpeg;base64,${String(reader.result).split(",")[1] ?? ""}`);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}
