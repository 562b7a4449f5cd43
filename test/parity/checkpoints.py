"""BLIP checkpoints with random weights, in Hugging Face's layout."""
import json
import os
import shutil

import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, BlipConfig

DEMO = f"{os.path.dirname(os.path.abspath(__file__))}/../demo"
VOCABULARY = f"{DEMO}/models/demo-caption"
GEOMETRY = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")


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
    # Public pickles have a buffer of positions.
    tensors = model.state_dict()
    embeddings = next(name.removesuffix("word_embeddings.weight") for name in tensors if "word_embeddings" in name)
    if how.get("bin"): tensors[f"{embeddings}position_ids"] = torch.arange(48)[None]
    write_weights(out, tensors, how)
    if how.get("drop_heads"): edit_json(f"{out}/config.json", lambda config: config["text_config"].pop("num_attention_heads"))
    if how.get("tokenizer_json"): AutoTokenizer.from_pretrained(VOCABULARY).save_pretrained(out)
    else:
        for file in ("vocab.txt", "tokenizer_config.json"): shutil.copyfile(f"{VOCABULARY}/{file}", f"{out}/{file}")
    pre = dict(json.load(open(f"{VOCABULARY}/preprocessor_config.json")), size=dict(height=vision[0], width=vision[0]))
    if how.get("processor_config"): write_json(f"{out}/processor_config.json", dict(image_processor=pre, processor_class="BlipProcessor"))
    else: write_json(f"{out}/preprocessor_config.json", pre)
    for file in os.listdir(out): os.chmod(f"{out}/{file}", 0o644)


def write_weights(out, tensors, how):
    """Replaces model.safetensors where the case has its weights in another kind of file, or in several."""
    shards, bin = how.get("shards", 1), how.get("bin", False)
    if shards == 1 and not bin: return
    os.remove(f"{out}/model.safetensors")
    # A pickle has tied tensors under both names: they share their storage.
    if not bin: tensors = {name: tensors[name].contiguous() for name in tensors if how.get("untied") or not is_head(name)}
    stem, ending, save = ("pytorch_model", "bin", torch.save) if bin else ("model", "safetensors", lambda part, file: save_file(part, file, dict(format="pt")))
    names = list(tensors)
    parts = [names[len(names) * i // shards : len(names) * (i + 1) // shards] for i in range(shards)]
    files = [f"{stem}-{i + 1:05}-of-{shards:05}.{ending}" if shards > 1 else f"{stem}.{ending}" for i in range(shards)]
    for part, file in zip(parts, files): save({name: tensors[name] for name in part}, f"{out}/{file}")
    if shards > 1:
        size = sum(tensor.nbytes for tensor in tensors.values())
        places = {name: file for part, file in zip(parts, files) for name in part}
        write_json(f"{out}/{stem}.{ending}.index.json", dict(metadata=dict(total_size=size), weight_map=places))


def is_head(name):
    return "predictions.decoder" in name or "lm_head" in name


def write_json(file, content):
    with open(file, "w") as out: json.dump(content, out, indent=2)


def edit_json(file, edit):
    content = json.load(open(file))
    edit(content)
    write_json(file, content)
