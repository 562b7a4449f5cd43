/** The options of each task, as `run` and `submit` take them. */
import { many, numberAbove0, numberFrom, someText, wholeNumber } from "@capfleet/shared/command-line";
import {
  MAX_ANSWERS,
  MAX_BEAMS,
  MAX_CAPTIONS,
  MAX_NEW_TOKENS,
  MAX_TEXT_CHARACTERS,
  MAX_TEXTS,
  QUESTION_SLOT,
} from "@capfleet/shared/contract";
import type { Command } from "commander";

const TEMPLATE_HELP =
  `what the model reads, with ${QUESTION_SLOT} where the question goes (default: the model's own: ` +
  `of BLIP, the question as it is; of BLIP-2, "Question: ${QUESTION_SLOT} Answer:")`;

const text = someText(MAX_TEXT_CHARACTERS);
const column = someText(1_000);

/** Adds the options of all tasks, in groups. Other options have to be added before. */
export function addTaskOptions(command: Command): Command {
  return command
    .optionsGroup("caption, vqa, capfilt: how the text is made (as in transformers' generate):")
    .option("--max-new-tokens <n>", "longest text, in tokens (default: 20)", wholeNumber(MAX_NEW_TOKENS))
    .option("--min-new-tokens <n>", "shortest text, in tokens (default: 0)", wholeNumber(MAX_NEW_TOKENS, 0))
    .option("--num-beams <n>", "beam search; 1 is greedy (default: 1)", wholeNumber(MAX_BEAMS))
    .option("--length-penalty <x>", "beams: above 0 favours long texts (default: 1)", numberFrom(-10, 10))
    .option("--repetition-penalty <x>", "above 1: fewer repeated tokens (default: 1)", numberAbove0(100))
    .option("--sample", "draw tokens at random; implied by the next four")
    .option("--temperature <x>", "below 1: nearer to the likeliest (default: 1)", numberAbove0(100))
    .option("--top-k <n>", "draw from the n likeliest tokens; 0: from all (default: 0)", wholeNumber(1e9, 0))
    .option("--top-p <x>", "draw from the likeliest that add up to x (default: 1)", numberAbove0(1))
    .option("--seed <n>", "the same seed draws the same texts (default: 0)", wholeNumber(0xffffffff, 0))
    .optionsGroup("caption, capfilt:")
    .option("--num-captions <n>", "captions per image, of beams or samples (default: 1)", wholeNumber(MAX_CAPTIONS))
    .option("--prompt <text>", 'what every caption begins with, such as "a picture of"', text)
    .optionsGroup("vqa (one of the first two is needed):")
    .option("--question <text>", "asked of every image; may be repeated", many(text, MAX_TEXTS))
    .option("--question-column <name>", "the manifest's field with a question, or a list of them", column)
    .option("--template <text>", TEMPLATE_HELP, text)
    .option("--answers <file|list>", "the only answers: a file with one a line, or a,b,c")
    .option("--answer <text>", "one of the only answers; may be repeated", many(text, MAX_ANSWERS))
    .optionsGroup("itm, itc, filter (one of them is needed), embed (without: the images), capfilt (a column, or none):")
    .option("--text <text>", "compared with every image; may be repeated", many(text, MAX_TEXTS))
    .option("--text-column <name>", "the manifest's field with a text, or a list of them", column)
    .optionsGroup("capfilt, filter:")
    .option(
      "--threshold <p>",
      "the least probability to match of a text that is kept (default: 0.5)",
      numberFrom(0, 1),
    );
}
