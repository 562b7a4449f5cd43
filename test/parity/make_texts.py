"""Makes texts/: small vocabularies full of what tokenizers treat specially (BERT's WordPiece; opt-*: byte-level BPE, as
BLIP-2's OPT has it), transformers' texts for random ids of them, and transformers' ids for texts.

make_texts.py      run in this folder; see README.md
"""
import json, os, random, shutil
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
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
def write_rows(file, rows):
    with open(file, "w") as f:
        for row in rows: f.write(json.dumps(row, ensure_ascii=False) + "\n")
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
    write_rows(f"{out}/tokens.jsonl", [{"text": text, "ids": tok(text, add_special_tokens=False).input_ids} for text in TEXTS])
    print(name, tok.all_special_tokens)

CORPUS = ["Question: how many remotes are there? Answer: two remotes", " a cat and two dogs on a couch.", "it's they're we've I'll don't I'm he'd", "日本国 日本 é è ñandú café 😀 😁 😀a дом", "hello    world\n\n\nnew line        ", "in 2023 and 2024, 1999.", "!\ufeff", "\u0085\u0085"] * 3
OPT_TEXTS = TEXTS + [
    "Question: how many remotes are there? Answer:", " Question:", "two  remotes   on\n a couch\n\n", "IT'S they'RE 'twas 's' I'LL we''ve", "12345 two2two 3.14 ½x²", "</s>", "a</s>dog</s></s> <image>", "<image> <image>dog  <image>  cat</s >", "<s><pad><unk></s", "<|endoftext|>a <|endoftext|>",
    "日本国の国旗", "ñandú\u0085dog \ufeffdog\u00a0 dog", "\u3000\u2028 a\u2029", " " * 300 + "a" + "\n" * 20, "   ", "remotes" * 400, "日本" * 300, "👩‍👩‍👧👩‍👩‍👧 😀😁", "\u001c a \u001f", "a!\ufeffdog", "a\u0085\u0085dog\u0085\u0085", "[raw] 国旗 [raw]",
]
def token(content, **flags): return {"content": content, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False, **flags}
def typed(content): return {"__type": "AddedToken", **token(content)}
NAMED = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"}
OPT = {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, "add_prefix_space": False, "errors": "replace", "clean_up_tokenization_spaces": True, **NAMED}
def vocabulary_and_merges(alphabet):
    trained = Tokenizer(models.BPE()); trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=400, min_frequency=3, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], initial_alphabet=alphabet, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    return model["vocab"], model["merges"]
VOCAB, MERGES = vocabulary_and_merges(pre_tokenizers.ByteLevel.alphabet()); IMAGE = len(VOCAB)
FEW, FEW_MERGES = vocabulary_and_merges([]); FEW |= {"国旗": len(FEW), "[raw] ": len(FEW) + 1}
def decoder(image=str(IMAGE), **flags): return {"1": token("<pad>", special=True), "2": token("</s>", special=True), image: token("<image>", **{"normalized": False, "special": True, **flags})}
MAP = {name: token(content) for name, content in NAMED.items()}
# What is beside vocab.json and merges.txt. `saved`: tokenizer.json as transformers saves it is in their place, and these
# settings beside it; `instead`: only these.
FILES = {
    "opt-tokenizer-json": dict(tokenizer_config={**OPT, "added_tokens_decoder": decoder()}, saved={}),
    "opt-vocabulary-and-merges": dict(tokenizer_config={**OPT, "added_tokens_decoder": decoder()}, special_tokens_map={**NAMED, "mask_token": "<s>"}),
    "opt-without-image": dict(tokenizer_config={**OPT, **{name: typed(content) for name, content in NAMED.items()}}, special_tokens_map=MAP),
    "opt-image-added": dict(tokenizer_config=OPT, special_tokens_map={**MAP, "mask_token": "<s>"}, added_tokens={"<image>": IMAGE}),
    "opt-image-added-as-special": dict(tokenizer_config=OPT, special_tokens_map={**MAP, "additional_special_tokens": ["<image>", "<more>"]}, added_tokens={"<image>": IMAGE}),
    "opt-prefix-space": dict(tokenizer_config={**OPT, "add_prefix_space": True, "added_tokens_decoder": decoder(rstrip=True, lstrip=True)}),
    "opt-prefix-space-of-config": dict(tokenizer_config={**OPT, "added_tokens_decoder": decoder()}, saved={"add_prefix_space": True}),
    "opt-prefix-space-of-json": dict(tokenizer_config={**OPT, "added_tokens_decoder": decoder()}, saved={"tokenizer_class": "PreTrainedTokenizerFast", "extra_special_tokens": {"image_token": "<image>", "more_token": "<s>"}}, merges_as_strings=True, prefix_space=True),
    "opt-json-as-it-is": dict(vocab=FEW, merges=FEW_MERGES, tokenizer_config={**OPT, "added_tokens_decoder": decoder()}, saved={}, instead={"tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": {"1": token("<pad>", special=True)}}, unk_token="<unk>"),
    "opt-files-only": dict(config={"model_type": "blip-2"}),
    "opt-few-bytes": dict(vocab=FEW, merges=FEW_MERGES, tokenizer_config={**OPT, "added_tokens_decoder": {**decoder(str(len(FEW) + 7), special=False), "2": token("</s>", special=False)}, "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output": True}),
}
for n, (name, how) in enumerate(FILES.items()):
    out = f"texts/{name}"; shutil.rmtree(out, ignore_errors=True); os.makedirs(out); random.seed(n)
    def write(file, content):
        with open(f"{out}/{file}.json", "w") as f: json.dump(content, f, ensure_ascii=False, indent=2)
    vocab = how.get("vocab", VOCAB)
    write("vocab", vocab)
    with open(f"{out}/merges.txt", "w") as f: f.write("#version: 0.2\n" + "".join(" ".join(merge) + "\n" for merge in how.get("merges", MERGES)))
    for file in ("tokenizer_config", "special_tokens_map", "added_tokens", "config"):
        if file in how: write(file, how[file])
    tok = AutoTokenizer.from_pretrained(out)
    if "saved" in how:
        tok.save_pretrained(out); os.remove(f"{out}/vocab.json"); os.remove(f"{out}/merges.txt")
        saved = json.load(open(f"{out}/tokenizer.json"))
        if how.get("merges_as_strings"): saved["model"]["merges"] = [" ".join(merge) for merge in saved["model"]["merges"]]
        saved["pre_tokenizer"]["add_prefix_space"] = how.get("prefix_space", False)
        saved["model"]["unk_token"] = how.get("unk_token")
        write("tokenizer", saved)
        write("tokenizer_config", how.get("instead", {**json.load(open(f"{out}/tokenizer_config.json")), **how["saved"]}))
        tok = AutoTokenizer.from_pretrained(out)
    tokens = [{"text": text, "ids": tok(text, add_special_tokens=False).input_ids} for text in OPT_TEXTS]
    # Ids at random, and what is cut out of texts, where characters lose some of their bytes.
    rows = [[random.randrange(len(vocab) + 4) for _ in range(random.randrange(1, 14))] for _ in range(150)]
    for row in tokens + tokens:
        start = random.randrange(len(row["ids"]) + 1)
        rows.append(row["ids"][start : start + random.randrange(1, 20)])
    write_rows(f"{out}/tokens.jsonl", tokens)
    write_rows(f"{out}/golden.jsonl", [{"ids": ids, "text": tok.decode(ids, skip_special_tokens=True).strip()} for ids in rows])
    print(name, type(tok).__name__, len(vocab), tok.added_tokens_decoder)
