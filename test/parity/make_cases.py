"""Makes the golden files, and the checkpoints with random weights that some of them are of. See README.md.

make_cases.py [NAME...]      a case or a demo checkpoint; without a name: all
"""
import filecmp
import glob
import json
import os
import sys

from transformers import (Blip2ForConditionalGeneration, Blip2ForImageTextRetrieval, BlipForConditionalGeneration, BlipForImageTextRetrieval,
                          BlipForQuestionAnswering)

from checkpoints import DEMO, write_checkpoint
from checkpoints_blip2 import write_blip2_checkpoint
from golden import Reference
from golden_blip2 import Blip2Reference

HERE = os.path.dirname(os.path.abspath(__file__))
SCENES = [json.loads(line) for line in open(f"{DEMO}/samples.jsonl")]
#: Images that the random checkpoints see.
IMAGES = 6
#: BlipTextConfig's default: a config.json may leave it out.
DEFAULT_TEXT_HEADS = 8

#: name: seed, (image, patch, width, MLP, layers, heads), (text width, MLP, layers, heads), how the files are written,
#: and, where texts are made, what is added to the end token's bias, so that they end before the limit. Seeds were
#: chosen for texts of different lengths and margins above 1e-4. An answer decoder attends to the question's states by
#: layers as wide as the image's, so in a vqa model texts are as wide as images.
CAPTION = {
    "narrow-text-to-last-position": (21, (56, 8, 48, 80, 3, 4), (40, 72, 2, 4), dict(), -9.0),
    "default-heads-float16": (1, (48, 16, 64, 256, 2, 2), (64, 128, 4, DEFAULT_TEXT_HEADS), dict(dtype="float16", drop_heads=True), 1.5),
    "one-text-head-untied": (42, (60, 12, 96, 100, 1, 3), (32, 64, 3, 1), dict(untied=True, processor_config=True), 1.2),
    "tokenizer-json-bfloat16": (3, (64, 4, 40, 160, 4, 5), (120, 200, 1, 6), dict(dtype="bfloat16", tokenizer_json=True), 2.5),
    "pixels-beyond-the-last-patch": (16, (50, 12, 24, 40, 2, 3), (36, 52, 2, 2), dict(), 1.5),
}
VQA = {
    "vqa-float16-sharded": (1, (48, 16, 64, 128, 2, 2), (64, 96, 2, DEFAULT_TEXT_HEADS), dict(dtype="float16", drop_heads=True, shards=3), 1.5),
    "vqa-untied-bin": (2, (60, 12, 48, 100, 1, 3), (48, 64, 3, 1), dict(untied=True, bin=True), 1.2),
    "vqa-tokenizer-json-bfloat16": (10, (64, 4, 40, 96, 3, 5), (40, 120, 1, 4), dict(dtype="bfloat16", tokenizer_json=True), 2.0),
    "vqa-sharded-bin": (8, (50, 12, 24, 40, 2, 3), (24, 52, 2, 2), dict(bin=True, shards=2), 1.5),
}
ITM = {
    "itm-narrow-text-bin": (1, (56, 8, 48, 80, 3, 4), (40, 72, 2, 4), dict(bin=True), 0),
    "itm-float16-sharded": (2, (48, 16, 64, 128, 2, 2), (72, 128, 3, DEFAULT_TEXT_HEADS), dict(dtype="float16", drop_heads=True, shards=3), 0),
    "itm-one-text-head": (3, (60, 12, 96, 100, 1, 3), (32, 64, 3, 1), dict(processor_config=True), 0),
    "itm-wide-text-bfloat16": (4, (64, 4, 40, 96, 4, 5), (96, 160, 1, 6), dict(dtype="bfloat16", tokenizer_json=True), 0),
}
#: name: seed, (image, patch, width, MLP, layers, heads), Q-Former (queries, width, MLP, layers, heads, every how many of
#: them attend to the image), OPT (width, MLP, layers, heads, positions, vocabulary), how the files are written, what is
#: added to the end token's logit.
BLIP2_OPT = {
    "blip2-opt-to-last-position": (1, (56, 14, 24, 40, 2, 3), (5, 36, 48, 3, 3, 2), (40, 72, 2, 5, 112, 389), dict(), -2.0),
    "blip2-opt-float16-sharded": (1, (48, 8, 64, 128, 1, 4), (7, 32, 64, 2, 4, 1), (64, 192, 2, 2, 128, 384), dict(dtype="float16", shards=2, tokenizer="json", lean=True, untied=True), 3.0),
    "blip2-opt-bfloat16-bin": (1, (60, 12, 40, 96, 2, 5), (11, 40, 48, 4, 2, 3), (96, 128, 1, 3, 128, 400), dict(dtype="bfloat16", bin=True, tokenizer="vocabulary"), 2.2),
    "blip2-opt-new-layout": (1, (50, 12, 28, 36, 2, 2), (3, 24, 40, 2, 2, 2), (48, 60, 3, 4, 120, 384), dict(processor_config=True), 2.0),
}
#: Checkpoints without an image token, as they were made until 2024: transformers can't run them, so theirs are the answers
#: of their twins with an image token.
OLD_LAYOUT = {"blip2-opt-old-layout": "blip2-opt-new-layout"}
BLIP2_ITM = {
    "blip2-itm-float16-sharded": (1, (64, 16, 64, 96, 1, 2), (6, 64, 96, 2, 4, 2), (), dict(dtype="float16", shards=2, image_token=False), 0),
    "blip2-itm-bin": (2, (56, 8, 24, 40, 3, 3), (9, 36, 52, 3, 3, 1), (), dict(bin=True, image_token=False, drop_text=True), 0),
    "blip2-itm-image-token-bfloat16": (3, (42, 14, 48, 80, 2, 4), (13, 56, 40, 4, 7, 3), (), dict(dtype="bfloat16", processor_config=True), 0),
}
ARCHITECTURES = {
    BlipForConditionalGeneration: CAPTION, BlipForQuestionAnswering: VQA, BlipForImageTextRetrieval: ITM,
    Blip2ForConditionalGeneration: BLIP2_OPT, Blip2ForImageTextRetrieval: BLIP2_ITM,
}

PROMPTS = ["a", "a picture of", "a photograph of three orange houses above the"]
QUESTIONS = [
    "color?",
    "what is to the left of the two yellow butterflies and above the three keys in this purple photograph?",
    "is it a star? " * 20,  # longer than the models' texts
]
TEXTS = ["star", "a picture of three orange sunflowers to the left of two blue butterflies on a purple background", "two keys above a cup " * 16]
ANSWERS = ["yes", "no", "1", "2", "3", "blue", "a dog", "two cups and a car", "to the left of the orange sunflowers"]
#: More than are compared in full, so that the first token decides which are.
MANY_ANSWERS = [f"{number}{word}" for word in ("star", "moon", "key", "cup", "cat", "dog", "bus", "car", "clock", "book", "gray", "pink", "purple", "yellow")
                for number in ("", "a ", "no ", "one ", "two ", "three ", "many ", "1 ", "2 ", "3 ")] + ANSWERS
#: The last: what byte-level BPE takes apart otherwise than BERT.
BLIP2_QUESTIONS = ["color?", QUESTIONS[1], "is it a star? " * 40, "what's  the colour of\nthe CAFÉ's 3 keys, here?"]
TEMPLATE = "Look: {question}\nShort answer:"
#: Tokens that reach a model's last position.
TO_LAST_POSITION = {"narrow-text-to-last-position": 48, "blip2-opt-to-last-position": 107}
#: temperature, top k, top p; the demo is sure of itself and says one thing only unless it is hot.
SAMPLING = {
    "blip2-opt-new-layout": [(1, 0, 1), (0.5, 0, 1), (2, 5, 1), (1.5, 0, 0.8), (3, 12, 0.7)],
    "pixels-beyond-the-last-patch": [(1, 0, 1), (0.5, 0, 1), (2, 5, 1), (1.5, 0, 0.8), (3, 12, 0.7)],
    "demo-caption": [(4, 0, 1), (10, 5, 1), (8, 0, 0.8), (9, 12, 0.7)],
}


def caption_tasks(name):
    def task(captions=1, prompt=None, **decoding):
        return dict(name="caption", decoding=decoding, **({"captions": captions} if captions > 1 else {}), **({"prompt": prompt} if prompt else {}))

    yield task()
    yield from (task(beams=beams, lengthPenalty=penalty) for beams in (2, 3, 5) for penalty in (0, 1, 2))
    yield from (task(beams=beams, repetitionPenalty=1.5) for beams in (1, 3))
    yield from (task(beams=beams, minNewTokens=12) for beams in (1, 3))
    yield from (task(beams=beams, prompt=prompt) for prompt in PROMPTS for beams in (1, 3))
    yield from (task(captions=captions, beams=beams) for captions, beams in ((3, 3), (4, 5)))
    yield task(captions=2, beams=3, prompt=PROMPTS[1], minNewTokens=6, repetitionPenalty=1.2, lengthPenalty=2)
    if name in TO_LAST_POSITION:
        yield from (task(beams=beams, maxNewTokens=TO_LAST_POSITION[name]) for beams in (1, 2))


def sampling_tasks(name):
    def task(temperature, top_k, top_p, **decoding):
        sampling = dict(temperature=temperature, topK=top_k, topP=top_p)
        return dict(name="caption", decoding=dict(maxNewTokens=1, sampling=sampling, **decoding))

    settings = SAMPLING.get(name, [])
    yield from (task(*setting) for setting in settings)
    # Penalties come before temperature, top k and top p.
    yield from (dict(task(*setting, repetitionPenalty=1.5, minNewTokens=1), prompt=PROMPTS[1]) for setting in settings[-1:])


def vqa_tasks(_):
    def task(**decoding):
        return dict(name="vqa", decoding=decoding, questions=dict(column="question"))

    yield task()
    yield from (task(beams=beams, lengthPenalty=penalty) for beams, penalty in ((2, 0), (3, 1), (5, 2)))
    yield from (task(beams=beams, minNewTokens=4, repetitionPenalty=1.5) for beams in (1, 3))
    yield from (dict(task(), answers=answers) for answers in (ANSWERS, MANY_ANSWERS))


def blip2_tasks(name):
    yield from caption_tasks(name)
    yield from vqa_tasks(name)
    yield from (dict(task, template=TEMPLATE) for task in vqa_tasks(name) if task["decoding"].get("beams", 1) in (1, 3))


def itm_tasks(_):
    yield from (dict(name=name, texts=dict(column="text")) for name in ("itm", "itc", "embed"))
    yield dict(name="embed")


TASKS = {
    BlipForConditionalGeneration: caption_tasks, BlipForQuestionAnswering: vqa_tasks, BlipForImageTextRetrieval: itm_tasks,
    Blip2ForConditionalGeneration: blip2_tasks, Blip2ForImageTextRetrieval: itm_tasks,
}


def texts_of(architecture, task, scene):
    if task["name"] == "caption" or task == dict(name="embed"):
        return []
    if task["name"] == "vqa":
        others = BLIP2_QUESTIONS if architecture is Blip2ForConditionalGeneration else QUESTIONS
        return [scene["question"]] if task.get("answers") == MANY_ANSWERS else [scene["question"], *others]
    return [scene["alt"], scene["truth"]["caption"], *TEXTS]


def write_golden(out, name, architecture, checkpoint, scenes):
    """golden.jsonl: a row per task and image. The images' pixels go where all cases of their size share them."""
    blip2 = architecture in (Blip2ForConditionalGeneration, Blip2ForImageTextRetrieval)
    reference = (Blip2Reference if blip2 else Reference)(checkpoint)
    pixels = {scene["id"]: shared_pixels(reference, scene) for scene in scenes}
    rows = [dict(id=scene["id"], task=task, texts=texts_of(architecture, task, scene)) for task in TASKS[architecture](name) for scene in scenes]
    for row in rows: row.update(reference.label(row["task"], row["texts"], pixels[row["id"]]))
    write_rows(f"{out}/golden.jsonl", map(rounded, rows))
    samples = [dict(id=scene["id"], task=task) for scene, task in zip(scenes, sampling_tasks(name))]
    for row in samples: row["probabilities"] = reference.first_token(row["task"], pixels[row["id"]])
    if samples: write_rows(f"{out}/sampling.jsonl", samples)
    report(name, rows)


def shared_pixels(reference, scene):
    image = reference.resized(f"{DEMO}/{scene['image']}")
    file = f"{HERE}/pixels/{image.width}/{scene['id']}.png"
    os.makedirs(os.path.dirname(file), exist_ok=True)
    image.save(file)
    return reference.pixels(image)


def report(name, rows):
    texts = [text for row in rows for text in row.get("captions", row.get("answers", []))]
    margins = [margin for row in rows for margin in row.get("margins", [])]
    print(f"{name}: {len(rows)} rows", flush=True)
    if not margins: return
    lengths = sorted({len(text["ids"]) for text in texts})
    print(f"  {len({tuple(text['ids']) for text in texts})} different texts of {lengths} tokens")
    print(f"  least margin {min(margins):.1e}, {sum(margin < 1e-4 for margin in margins)} of {len(margins)} below 1e-4", flush=True)


def write_rows(file, rows):
    with open(file, "w") as out:
        out.writelines(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)


def rounded(value):
    """To 7 decimals: a thousandth of what answers may differ by."""
    if isinstance(value, float): return round(value, 7)
    if isinstance(value, dict): return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, (list, tuple)) else value


def write_old_layout(name, twin):
    """A twin's checkpoint as it would have been before image tokens, with the twin's answers: those that an image token
    could not have changed. (Repetition penalties look at the prompt, which it is in.)"""
    *case, how, end_bias = BLIP2_OPT[twin]
    out, old = f"{HERE}/cases/{twin}", f"{HERE}/cases/{name}"
    write_blip2_checkpoint(old, Blip2ForConditionalGeneration, *case, dict(image_token=False), end_bias)
    assert filecmp.cmp(f"{out}/model.safetensors", f"{old}/model.safetensors", shallow=False)
    rows = [json.loads(line) for line in open(f"{out}/golden.jsonl")]
    image = json.load(open(f"{out}/config.json"))["image_token_index"]
    assert not any(image in text["ids"] for row in rows for text in row.get("captions", row.get("answers")))
    write_rows(f"{old}/golden.jsonl", (row for row in rows if "repetitionPenalty" not in row["task"]["decoding"]))


for architecture, cases in ARCHITECTURES.items():
    for name, case in cases.items():
        if sys.argv[1:] and name not in sys.argv[1:]: continue
        write = write_blip2_checkpoint if architecture.__name__.startswith("Blip2") else write_checkpoint
        write(f"{HERE}/cases/{name}", architecture, *case)
        write_golden(f"{HERE}/cases/{name}", name, architecture, f"{HERE}/cases/{name}", SCENES[:IMAGES])
for name, twin in OLD_LAYOUT.items():
    if not sys.argv[1:] or name in sys.argv[1:]: write_old_layout(name, twin)
for checkpoint in sorted(glob.glob(f"{DEMO}/models/*")):
    name = os.path.basename(checkpoint)
    if sys.argv[1:] and name not in sys.argv[1:]: continue
    kind = json.load(open(f"{checkpoint}/config.json"))["architectures"][0]
    architecture = next(one for one in ARCHITECTURES if one.__name__ == kind)
    os.makedirs(f"{HERE}/demo/{name}", exist_ok=True)
    write_golden(f"{HERE}/demo/{name}", name, architecture, checkpoint, SCENES)
