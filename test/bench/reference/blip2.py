"""transformers' BLIP-2 in bfloat16 and float32, random weights, in the geometry that blip2.py is given.

blip2.py VISION_LAYERS TEXT_LAYERS   prints a line of JSON per figure. Images and tokens a second, of the best of 3 looks:
                                     the encoder with its Q-Former, one image at a time and 8; new tokens, for 1 and 8
                                     sequences (a text of 21 tokens less one of 1, so that what comes before is left out).
"""
import json
import sys
import time

import torch
from transformers import Blip2Config, Blip2ForConditionalGeneration

VISION_LAYERS, TEXT_LAYERS = map(int, sys.argv[1:])
LOOKS, TOKENS = 3, 20
END = 50118
torch.manual_seed(0)
text = dict(model_type="opt", hidden_size=2560, ffn_dim=10240, num_hidden_layers=TEXT_LAYERS, num_attention_heads=32,
            word_embed_proj_dim=2560, vocab_size=50304, bos_token_id=2, eos_token_id=END, pad_token_id=1)
config = Blip2Config(vision_config=dict(num_hidden_layers=VISION_LAYERS), qformer_config={}, text_config=text, image_token_index=50265)


def best(work):
    looks = []
    for _ in range(LOOKS):
        started = time.perf_counter()
        work()
        looks.append(time.perf_counter() - started)
    return min(looks)


def say(name, value, unit):
    print(json.dumps(dict(name=name, value=round(value, 3), unit=unit)), flush=True)


torch.set_default_dtype(torch.bfloat16)
with torch.inference_mode():
    model = Blip2ForConditionalGeneration(config).eval()
    for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        model = model.to(dtype)
        model.qformer.float()
        model.query_tokens.data = model.query_tokens.data.float()
        for batch in (1, 8):
            pixels = torch.randn(batch, 3, 224, 224, dtype=dtype)

            def made(tokens):
                model.generate(pixels, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)

            made(1)
            say(f"transformers.{precision}.encoder.batch{batch}", batch / best(lambda: model.get_image_features(pixels)), "img/s")
            one = best(lambda: made(1))
            many = best(lambda: made(1 + TOKENS))
            say(f"transformers.{precision}.tokens.batch{batch}", batch * TOKENS / (many - one), "new tokens/s")
            say(f"transformers.{precision}.captions.batch{batch}", batch / many, f"img/s, {1 + TOKENS} tokens")
