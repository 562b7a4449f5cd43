"""transformers' captions for a BLIP checkpoint: greedy, fp32, one image at a time, so that nothing depends on a batch.

golden.py CHECKPOINT ROWS.jsonl OUT.jsonl [--pixels DIR] [--max-new-tokens N]

A row: {"id", "image": path relative to the rows file}. A row out: {"id", "ids": with the start token, "text", "score": mean
log-probability of the generated ids, the end token included, "margin": the least by which a chosen token's logit was
above the runner-up's; rounding far below it can't change the ids, "max_new_tokens"}. --pixels DIR also writes the upright, resized RGB image
that the model saw as DIR/<id>.png, so that another implementation can be fed the same pixels.
"""
import argparse, json, os, torch
from PIL import Image, ImageOps
from transformers import AutoTokenizer, BlipForConditionalGeneration

p = argparse.ArgumentParser()
p.add_argument("checkpoint"); p.add_argument("rows"); p.add_argument("out"); p.add_argument("--pixels")
p.add_argument("--max-new-tokens", type=int, default=20)
a = p.parse_args()
tok = AutoTokenizer.from_pretrained(a.checkpoint)
processor, older = (f"{a.checkpoint}/{name}" for name in ("processor_config.json", "preprocessor_config.json"))
pre = json.load(open(processor))["image_processor"] if os.path.exists(processor) else json.load(open(older))
size = pre["size"]
mean, std = (torch.tensor(pre[k]).view(3, 1, 1) for k in ("image_mean", "image_std"))
model = BlipForConditionalGeneration.from_pretrained(a.checkpoint, dtype=torch.float32).eval()
root = os.path.dirname(os.path.abspath(a.rows))
if a.pixels: os.makedirs(a.pixels, exist_ok=True)

def pixels(row):
    im = ImageOps.exif_transpose(Image.open(os.path.join(root, row["image"]))).convert("RGB").resize((size["width"], size["height"]), Image.BICUBIC)
    if a.pixels: im.save(f"{a.pixels}/{row['id']}.png")
    return ((torch.frombuffer(bytearray(im.tobytes()), dtype=torch.uint8).view(size["height"], size["width"], 3).permute(2, 0, 1) / 255 - mean) / std)[None]

with torch.inference_mode(), open(a.out, "w") as out:
    for row in map(json.loads, open(a.rows)):
        g = model.generate(pixel_values=pixels(row), max_new_tokens=a.max_new_tokens, num_beams=1, do_sample=False, return_dict_in_generate=True, output_logits=True)
        ids = g.sequences[0].tolist(); new = ids[1:]
        assert len(new) == len(g.logits)
        score = sum(step[0].double().log_softmax(-1)[i].item() for step, i in zip(g.logits, new)) / len(new)
        margin = min((step[0].topk(2).values[0] - step[0].topk(2).values[1]).item() for step in g.logits)
        out.write(json.dumps({"id": row["id"], "ids": ids, "text": tok.decode(ids, skip_special_tokens=True).strip(), "score": score, "margin": margin, "max_new_tokens": a.max_new_tokens}) + "\n")
