"""Makes texts/: a small vocabulary full of what decoding treats specially, and transformers' texts for random ids of it.

make_texts.py      run in this folder; see README.md
"""
import json, os, random, shutil
from transformers import AutoTokenizer

WORDS = "[PAD] [unused0] [UNK] [CLS] [SEP] [MASK] a dog cat it they don do not n't s t m ve re ll ' \" . , ! ? : ; - ( ) / & $ % 's 'm 've 're ##s ##ing ##' ##. ##n't 3 ##4 5th é ##ß 日 本 ñandú … the of [DEC]".split(" ")
FOLDERS = {  # how the files say which tokens are special, and how texts are cleaned up
    "vocabulary": dict(tokenizer_class="BertTokenizer", do_lower_case=True),
    "special-tokens": dict(tokenizer_class="BertTokenizer", bos_token={"__type": "AddedToken", "content": "[DEC]", "special": True, "lstrip": False, "rstrip": False, "single_word": False, "normalized": False}, additional_special_tokens=["[unused0]"]),
    "clean-up": dict(tokenizer_class="BertTokenizer", clean_up_tokenization_spaces=True),
    "tokenizer-json": dict(tokenizer_class="BertTokenizer", bos_token="[DEC]"),
}
for n, (name, config) in enumerate(FOLDERS.items()):
    out = f"texts/{name}"; shutil.rmtree(out, ignore_errors=True); os.makedirs(out); random.seed(n)
    open(f"{out}/vocab.txt", "w").write("".join(w + "\n" for w in WORDS))
    json.dump(config, open(f"{out}/tokenizer_config.json", "w"), indent=2)
    tok = AutoTokenizer.from_pretrained(out)
    if name == "tokenizer-json":
        tok.save_pretrained(out); os.remove(f"{out}/vocab.txt")
    # Two ids beyond the vocabulary: a model's can be larger than its tokenizer's.
    rows = [[random.randrange(len(WORDS) + 2) for _ in range(random.randrange(1, 14))] for _ in range(300)]
    with open(f"{out}/golden.jsonl", "w") as f:
        for ids in rows: f.write(json.dumps({"ids": ids, "text": tok.decode(ids, skip_special_tokens=True).strip()}, ensure_ascii=False) + "\n")
    print(name, tok.all_special_tokens)
