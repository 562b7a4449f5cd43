"""Images per second of transformers' BLIP captioning: BLIP-base geometry, random weights, batch 8, 20 new tokens.

blip.py      [LOOKS]      the best of LOOKS (2) runs counts. Prints a line of JSON per figure:
                          {"name": "transformers.fp32.greedy", "value": 0.85, "unit": "img/s"}

The speed of a transformer does not depend on what its weights say. Threads are torch's default: all cores.
"""
import json
import sys
import time

import torch
from transformers import BlipConfig, BlipForConditionalGeneration

BATCH, NEW_TOKENS = 8, 20
LOOKS = int(sys.argv[1]) if len(sys.argv) > 1 else 2
SIZE = dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)

torch.manual_seed(0)
config = BlipConfig(text_config=dict(SIZE, vocab_size=30524, encoder_hidden_size=768), vision_config=dict(SIZE, image_size=384, patch_size=16))
model = BlipForConditionalGeneration(config).eval()
pixels = torch.randn(BATCH, 3, 384, 384)


def seconds(**options):
    """Of one batch. No caption ends early, so every run makes the same number of tokens."""
    started = time.perf_counter()
    model.generate(pixels, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False, **options)
    return time.perf_counter() - started


with torch.inference_mode():
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        model, pixels = model.to(dtype), pixels.to(dtype)
        model.vision_model(pixels)  # the first run sets things up
        for decoding, beams in (("greedy", 1), ("beam3", 3)):
            best = min(seconds(num_beams=beams) for _ in range(LOOKS))
            print(json.dumps(dict(name=f"transformers.{precision}.{decoding}", value=round(BATCH / best, 3), unit="img/s")), flush=True)
