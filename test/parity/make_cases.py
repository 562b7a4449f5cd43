"""Makes the golden files, and the checkpoints with random weights that some of them are of. See README.md.

make_cases.py [NAME...]      a case or a demo checkpoint; without a name: all
"""
import glob
import json
import os
import shutil
import sys

import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, BlipConfig, BlipForConditionalGeneration, BlipForImageTextRetrieval, BlipForQuestionAnswering

from golden import Reference

HERE = os.path.dirname(os.path.abspath(__file__))
DEMO = f"{HERE}/../demo"
VOCABULARY = f"{DEMO}/models/demo-caption"
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
ARCHITECTURES = {BlipForConditionalGeneration: CAPTION, BlipForQuestionAnswering: VQA, BlipForImageTextRetrieval: ITM}
GEOMETRY = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")

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
#: temperature, top k, top p; the demo is sure of itself and says one thing only unless it is hot.
SAMPLING = {
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
    if "last-position" in name:
        yield from (task(beams=beams, maxNewTokens=48) for beams in (1, 2))


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


def itm_tasks(_):
    yield from (dict(name=name, texts=dict(column="text")) for name in ("itm", "itc", "embed"))
    yield dict(name="embed")


TASKS = {BlipForConditionalGeneration: caption_tasks, BlipForQuestionAnswering: vqa_tasks, BlipForImageTextRetrieval: itm_tasks}


def texts_of(architecture, task, scene):
    if architecture is BlipForConditionalGeneration or task == dict(name="embed"):
        return []
    if architecture is BlipForQuestionAnswering:
        return [scene["question"]] if task.get("answers") == MANY_ANSWERS else [scene["question"], *QUESTIONS]
    return [scene["alt"], scene["truth"]["caption"], *TEXTS]


def write_checkpoint(out, architecture, seed, vision, text, how, end_bias):
    """A checkpoint with random weights, in Hugging Face's layout."""
    shutil.rmtree(out, ignore_errors=True)
    os.makedirs(out)
    torch.manual_seed(seed)
    vocabulary = {word.rstrip("\n"): i for i, word in enumerate(open(f"{VOCABULARY}/vocab.txt"))}
    end, tied = vocabulary["[SEP]"], not how.get("untied", False)
    tokens = dict(bos_token_id=vocabulary["[DEC]"], pad_token_id=vocabulary["[PAD]"], eos_token_id=end, sep_token_id=end, vocab_size=len(vocabulary))
    model = architecture(BlipConfig(
        text_config=dict(max_position_embeddings=48, tie_word_embeddings=tied, **tokens, **dict(zip(GEOMETRY, text))),
        vision_config=dict(zip(("image_size", "patch_size", *GEOMETRY), vision)), image_text_hidden_size=32, tie_word_embeddings=tied))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1: weight.normal_(0, 0.12)
            elif "bias" in name: weight.normal_(0, 0.05)
            else: weight.normal_(1, 0.05)
        for name, weight in model.named_parameters():
            if name.endswith(("predictions.bias", "predictions.decoder.bias")): weight[end] += end_bias

    model.to(getattr(torch, how.get("dtype", "float32"))).save_pretrained(out)
    if os.path.exists(f"{out}/generation_config.json"): os.remove(f"{out}/generation_config.json")
    write_weights(out, model, how)
    if how.get("drop_heads"): edit_json(f"{out}/config.json", lambda config: config["text_config"].pop("num_attention_heads"))
    if how.get("tokenizer_json"): AutoTokenizer.from_pretrained(VOCABULARY).save_pretrained(out)
    else:
        for file in ("vocab.txt", "tokenizer_config.json"): shutil.copyfile(f"{VOCABULARY}/{file}", f"{out}/{file}")
    pre = dict(json.load(open(f"{VOCABULARY}/preprocessor_config.json")), size=dict(height=vision[0], width=vision[0]))
    if how.get("processor_config"): write_json(f"{out}/processor_config.json", dict(image_processor=pre, processor_class="BlipProcessor"))
    else: write_json(f"{out}/preprocessor_config.json", pre)
    for file in os.listdir(out): os.chmod(f"{out}/{file}", 0o644)


def write_weights(out, model, how):
    """Replaces model.safetensors where the case has its weights in another kind of file, or in several."""
    shards, bin = how.get("shards", 1), how.get("bin", False)
    if shards == 1 and not bin: return
    os.remove(f"{out}/model.safetensors")
    # A pickle has tied tensors under both names (they share their storage), and public ones have a buffer of positions.
    tensors = model.state_dict()
    embeddings = next(name.removesuffix("word_embeddings.weight") for name in tensors if "word_embeddings" in name)
    if bin: tensors[f"{embeddings}position_ids"] = torch.arange(48)[None]
    else: tensors = {name: tensors[name].contiguous() for name in tensors if "predictions.decoder" not in name}
    stem, ending, save = ("pytorch_model", "bin", torch.save) if bin else ("model", "safetensors", lambda part, file: save_file(part, file, dict(format="pt")))
    names = list(tensors)
    parts = [names[len(names) * i // shards : len(names) * (i + 1) // shards] for i in range(shards)]
    files = [f"{stem}-{i + 1:05}-of-{shards:05}.{ending}" if shards > 1 else f"{stem}.{ending}" for i in range(shards)]
    for part, file in zip(parts, files): save({name: tensors[name] for name in part}, f"{out}/{file}")
    if shards > 1:
        size = sum(tensor.nbytes for tensor in tensors.values())
        places = {name: file for part, file in zip(parts, files) for name in part}
        write_json(f"{out}/{stem}.{ending}.index.json", dict(metadata=dict(total_size=size), weight_map=places))


def write_golden(out, name, architecture, checkpoint, scenes):
    """golden.jsonl: a row per task and image. The images' pixels go where all cases of their size share them."""
    reference = Reference(checkpoint)
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


def write_json(file, content):
    with open(file, "w") as out: json.dump(content, out, indent=2)


def edit_json(file, edit):
    content = json.load(open(file))
    edit(content)
    write_json(file, content)


for architecture, cases in ARCHITECTURES.items():
    for name, case in cases.items():
        if sys.argv[1:] and name not in sys.argv[1:]: continue
        write_checkpoint(f"{HERE}/cases/{name}", architecture, *case)
        write_golden(f"{HERE}/cases/{name}", name, architecture, f"{HERE}/cases/{name}", SCENES[:IMAGES])
for checkpoint in sorted(glob.glob(f"{DEMO}/models/*")):
    name = os.path.basename(checkpoint)
    if sys.argv[1:] and name not in sys.argv[1:]: continue
    kind = json.load(open(f"{checkpoint}/config.json"))["architectures"][0]
    architecture = next(one for one in ARCHITECTURES if one.__name__ == kind)
    os.makedirs(f"{HERE}/demo/{name}", exist_ok=True)
    write_golden(f"{HERE}/demo/{name}", name, architecture, checkpoint, SCENES)
