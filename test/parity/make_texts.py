"""Makes texts/: a small vocabulary full of what tokenizers treat specially, transformers' texts for random ids of it, and
transformers' ids for texts.

make_texts.py      run in this folder; see README.md
"""
import json, os, random, shutil
from transformers import AutoTokenizer

WORDS = "[PAD] [unused0] [UNK] [CLS] [SEP] [MASK] a dog cat it they don do not n't s t m ve re ll ' \" . , ! ? : ; - ( ) / & $ % 's 'm 've 're ##s ##ing ##' ##. ##n't 3 ##4 5th é ##ß 日 本 ñandú … the of [DEC]".split(" ")
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789αδοσς"
WORDS += [w for w in [*LETTERS, *("##" + c for c in LETTERS), *"A Ü ##ü ñ 国 𠀀 😀 ― ‘ ’ “ ” ~ @ # = + _ < > { } [ ] | \\ ^ ` * « » 。 ， cafe ##e ##c 가 ##ᅡ ᄀ i ##i".split(" ")] if w not in WORDS]
TEXTS = [
    "a dog", "A DOG", "", " ", "\t\n\r ", "a  dog\tin\r\nthe\u00a0sun\u2003.", "what color is the dog's collar?", "don't, won't; can't!",
    "Ünïcödé façade ñandú CAFÉ cafe\u0301", "İstanbul ΟΔΟΣ οδος ΣΑΣ Σ ß ẞ Ǆ Å", "日本国", "a日b本c", "𠀀𠀁 and 中文字幕, 。，", "가나다 ᄀ", "ひらがな カタカナ",
    "a—b–c…d‘e’f“g”h«i»", "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", "$5 + 3 = 8 ~ £7 €9 ¥ © ™ ° ½ ²", "😀 a😀dog 👩‍👩‍👧 🇩🇪 ❤️", "unknownword zzz Ωmega дом",
    "x" * 99, "x" * 100, "x" * 101, "a " + "x" * 5000 + " dog", "é" * 100 + " " + "日" * 101, "a\u0000dog", "a\ufffddog", "a\u200bdog\ufeff\u00ad\u202e", "a\u0001\u001f\u007f\u0085\u000bdog", "\ue000 \U000f0000",
    "[CLS] a [SEP] dog [MASK]", "[cls] [Sep] [unused0] [DEC]", "a[MASK]dog [PAD][PAD] [UNK]", "##s ##ing # #s", "a dog a dog a dog a dog", "one two three four five six seven eight nine ten", "." * 30, "\u0301a \u0301", "Zalgo: z\u0351\u036b\u0343\u036a\u0302a",
]
FOLDERS = {  # how the files say which tokens are special, and how texts are cleaned up
    "vocabulary": dict(tokenizer_class="BertTokenizer", do_lower_case=True),
    "special-tokens": dict(tokenizer_class="BertTokenizer", bos_token={"__type": "AddedToken", "content": "[DEC]", "special": True, "lstrip": False, "rstrip": False, "single_word": False, "normalized": False}, additional_special_tokens=["[unused0]"]),
    "clean-up": dict(tokenizer_class="BertTokenizer", clean_up_tokenization_spaces=True),
    "tokenizer-json": dict(tokenizer_class="BertTokenizer", bos_token="[DEC]"),
    "cased": dict(tokenizer_class="BertTokenizer", do_lower_case=False),
    "cased-without-accents": dict(tokenizer_class="BertTokenizer", do_lower_case=False, strip_accents=True),
    "accents-and-no-ideographs": dict(tokenizer_class="BertTokenizer", strip_accents=False, tokenize_chinese_chars=False),
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
    with open(f"{out}/encode.jsonl", "w") as f:
        for text in TEXTS:
            whole = tok(text).input_ids
            for most in (512, 8, 2):
                ids = tok(text, truncation=True, max_length=most).input_ids
                f.write(json.dumps({"text": text, "maxTokens": most, "ids": ids, "cut": len(whole) > most}) + "\n")
    print(name, tok.all_special_tokens)
