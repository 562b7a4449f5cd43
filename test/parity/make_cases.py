"""Makes the cases: checkpoints of odd geometries with random weights, and what transformers captions with them.

make_cases.py VOCABULARY IMAGES.jsonl      run in this folder; see README.md

Every case differs from the others in geometry and in something of the format or the decoding. IMAGES.jsonl's first rows
are the images; VOCABULARY is a folder with vocab.txt, tokenizer_config.json and preprocessor_config.json.
"""
import json, os, shutil, subprocess, sys, torch
from transformers import AutoTokenizer, BlipConfig, BlipForConditionalGeneration

VOCABULARY, ROWS = sys.argv[1:]; IMAGES = 6; DEFAULT_TEXT_HEADS = 8
# name: seed, (image, patch, width, MLP, layers, heads), (text width, MLP, layers, heads), how the file is written,
# added to the end token's bias (so that captions end before the limit), new tokens. Seeds were chosen for captions of
# different lengths and for margins above 1e-4.
CASES = {
    "narrow-text-to-last-position": (20, (56, 8, 48, 80, 3, 4), (40, 72, 2, 4), dict(), -9.0, 48),
    "default-heads-float16": (1, (48, 16, 64, 256, 2, 2), (64, 128, 4, DEFAULT_TEXT_HEADS), dict(dtype=torch.float16, drop_heads=True), 1.5, 20),
    "one-text-head-untied": (42, (60, 12, 96, 100, 1, 3), (32, 64, 3, 1), dict(untied=True, processor_config=True), 1.2, 20),
    "tokenizer-json-bfloat16": (3, (64, 4, 40, 160, 4, 5), (120, 200, 1, 6), dict(dtype=torch.bfloat16, tokenizer_json=True), 2.5, 20),
    "pixels-beyond-the-last-patch": (14, (50, 12, 24, 40, 2, 3), (36, 52, 2, 2), dict(), 1.5, 20),
}

vocab = [l.rstrip("\n") for l in open(f"{VOCABULARY}/vocab.txt")]; tid = {w: i for i, w in enumerate(vocab)}
rows = [json.loads(l) for l in open(ROWS)][:IMAGES]
for r in rows: r["image"] = os.path.join(os.path.dirname(os.path.abspath(ROWS)), r["image"])
GEOMETRY = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")

for name, (seed, vision, text, how, end_bias, new_tokens) in CASES.items():
    out = f"cases/{name}"; shutil.rmtree(out, ignore_errors=True); os.makedirs(out); torch.manual_seed(seed)
    ids = dict(bos_token_id=tid["[DEC]"], pad_token_id=tid["[PAD]"], eos_token_id=tid["[SEP]"], sep_token_id=tid["[SEP]"], vocab_size=len(vocab))
    tied = not how.get("untied", False)
    config = BlipConfig(
        text_config=dict(max_position_embeddings=48, tie_word_embeddings=tied, **ids, **dict(zip(GEOMETRY, text))),
        vision_config=dict(zip(("image_size", "patch_size", *GEOMETRY), vision)), image_text_hidden_size=32, tie_word_embeddings=tied)
    model = BlipForConditionalGeneration(config)
    with torch.no_grad():
        for n, w in model.named_parameters():
            if w.dim() > 1: w.normal_(0, 0.12)
            elif "bias" in n: w.normal_(0, 0.05)
            else: w.normal_(1, 0.05)
        for n, w in model.named_parameters():
            if n.endswith(("predictions.bias", "predictions.decoder.bias")): w[ids["sep_token_id"]] += end_bias
    model.to(how.get("dtype", torch.float32)).save_pretrained(out)
    os.chmod(f"{out}/model.safetensors", 0o644)
    os.remove(f"{out}/generation_config.json")
    if how.get("drop_heads"):
        c = json.load(open(f"{out}/config.json")); del c["text_config"]["num_attention_heads"]; json.dump(c, open(f"{out}/config.json", "w"), indent=2)
    if how.get("tokenizer_json"): AutoTokenizer.from_pretrained(VOCABULARY).save_pretrained(out)
    else:
        for f in ("vocab.txt", "tokenizer_config.json"): shutil.copyfile(f"{VOCABULARY}/{f}", f"{out}/{f}")
    pre = json.load(open(f"{VOCABULARY}/preprocessor_config.json")); pre["size"] = dict(height=vision[0], width=vision[0])
    if how.get("processor_config"): json.dump({"image_processor": pre, "processor_class": "BlipProcessor"}, open(f"{out}/processor_config.json", "w"), indent=2)
    else: json.dump(pre, open(f"{out}/preprocessor_config.json", "w"), indent=2)
    with open(f"{out}/rows.jsonl", "w") as f: f.writelines(json.dumps(r) + "\n" for r in rows)
    golden_py = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden.py")
    subprocess.run([sys.executable, golden_py, out, f"{out}/rows.jsonl", f"{out}/golden.jsonl", "--pixels", f"{out}/pixels", "--max-new-tokens", str(new_tokens)], check=True)
    os.remove(f"{out}/rows.jsonl")
    golden = [json.loads(l) for l in open(f"{out}/golden.jsonl")]
    print(name, "lengths", [len(g["ids"]) - 1 for g in golden], "different tokens", len({t for g in golden for t in g["ids"]}), "least margin", min(g["margin"] for g in golden), flush=True)
