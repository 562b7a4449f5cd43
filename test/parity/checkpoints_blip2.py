"""BLIP-2 checkpoints with random weights, in Hugging Face's layout."""
import json
import os
import shutil

import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    AutoTokenizer, Blip2Config, Blip2ForConditionalGeneration, Blip2QFormerConfig, Blip2VisionConfig, OPTConfig)

from checkpoints import DEMO, GEOMETRY, VOCABULARY, edit_json, write_json, write_weights

#: As in OPT's vocabulary; texts begin with </s> and end with a line break.
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
START, PAD = SPECIAL.index("</s>"), SPECIAL.index("<pad>")
#: Tokens of the tokenizer: the bytes, and what is frequent in the demo's texts. The image token comes after them.
TOKENS = 380
#: Taken from the logits of bytes that are rarely seen, and of what is no text, so that not all of a text is such.
RARE = 3
#: How many of a text's tokens the Q-Former reads.
QFORMER_POSITIONS = 48


def write_blip2_checkpoint(out, architecture, seed, vision, qformer, text, how, end_bias):
    shutil.rmtree(out, ignore_errors=True)
    os.makedirs(out)
    torch.manual_seed(seed)
    makes_texts = architecture is Blip2ForConditionalGeneration
    queries, *qformer, frequency = qformer
    words = sum(1 for _ in open(f"{VOCABULARY}/vocab.txt"))
    end, rare = (write_byte_tokenizer if makes_texts else write_word_tokenizer)(out, how)
    image = (TOKENS if makes_texts else words) if how.get("image_token", True) else None
    config = Blip2Config(
        vision_config=dict(zip(("image_size", "patch_size", *GEOMETRY), vision)),
        num_query_tokens=queries, image_token_index=image, image_text_hidden_size=32,
        qformer_config=dict(zip(GEOMETRY, qformer), cross_attention_frequency=frequency, vocab_size=words,
                            max_position_embeddings=QFORMER_POSITIONS, use_qformer_text_input=not makes_texts),
        text_config=opt(end, not how.get("untied", False), *text) if makes_texts else None)
    model = architecture(config)
    with torch.no_grad():
        randomize(model)
        if makes_texts:
            beyond = range(TOKENS, config.text_config.vocab_size)  # the image token first
            add_to_logits(model.language_model, {end: end_bias, **{token: -RARE for token in (*rare, *beyond)}})

    model.to(getattr(torch, how.get("dtype", "float32"))).save_pretrained(out)
    write_weights(out, model.state_dict(), how)
    edit_json(f"{out}/config.json", lambda config: without_defaults(config, how))
    size = dict(height=vision[0], width=vision[0])
    named = dict(processor_class="Blip2Processor")
    pre = dict(json.load(open(f"{VOCABULARY}/preprocessor_config.json")), size=size, **named)
    processor = dict(num_query_tokens=queries, **named)
    if how.get("processor_config"): write_json(f"{out}/processor_config.json", dict(processor, image_processor=pre))
    else:
        write_json(f"{out}/preprocessor_config.json", pre)
        if how.get("image_token", True): write_json(f"{out}/processor_config.json", processor)
    for file in os.listdir(out): os.chmod(f"{out}/{file}", 0o644)


def without_defaults(config, how):
    """What older checkpoints, and lean ones, don't have in their config.json."""
    if not how.get("image_token", True): config.pop("image_token_index", None)
    if how.get("drop_text"): config.pop("text_config")
    if not how.get("lean"): return
    parts = dict(vision_config=Blip2VisionConfig(), qformer_config=Blip2QFormerConfig(), text_config=OPTConfig())
    for name, defaults in parts.items():
        part = config[name]
        for key in [key for key in part if key != "model_type" and getattr(defaults, key, part) == part[key]]: del part[key]


def opt(end, tied, width, mlp, layers, heads, positions, vocabulary):
    return dict(model_type="opt", tie_word_embeddings=tied, hidden_size=width, word_embed_proj_dim=width, ffn_dim=mlp,
                num_hidden_layers=layers, num_attention_heads=heads, max_position_embeddings=positions,
                vocab_size=vocabulary, bos_token_id=START, pad_token_id=PAD, eos_token_id=end)


def randomize(model):
    """Wide enough that texts differ with images and prompts."""
    for name, weight in model.named_parameters():
        if name == "query_tokens": weight.normal_(0, 1)
        elif "position_embedding" in name or "embed_positions" in name: weight.normal_(0, 0.25)
        elif "embed_tokens" in name or "lm_head" in name: weight.normal_(0, 0.15)
        elif weight.dim() > 1: weight.normal_(0, 2 / weight[0].numel() ** 0.5)
        else: weight.normal_(0 if "bias" in name else 1, 0.05)


def add_to_logits(language_model, amounts):
    """OPT's head has no bias, but its input has: of the last LayerNorm. A vector along it is a bias, and some noise."""
    bias = language_model.model.decoder.final_layer_norm.bias
    bias.normal_(0, 0.3)
    head = language_model.get_output_embeddings().weight
    for token, amount in amounts.items(): head[token] += amount * bias / bias.dot(bias)


def write_byte_tokenizer(out, how):
    """A byte-level BPE laid out as OPT's. Returns the id of the line break, and those of bytes that the demo's texts
    don't have."""
    scenes = [json.loads(line) for line in open(f"{DEMO}/samples.jsonl")]
    texts = [text for scene in scenes
             for text in (scene["alt"], scene["question"], scene["truth"]["caption"], scene["truth"]["answer"])]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    given = dict(special_tokens=SPECIAL, initial_alphabet=alphabet)
    texts = [f"Question: {text} Answer: {text}\n" for text in texts]
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=TOKENS, show_progress=False, **given))
    tokenizer.model.save(out)
    special = {PAD: "<pad>", START: "</s>", **({TOKENS: "<image>"} if how.get("image_token", True) else {})}
    flags = dict(lstrip=False, rstrip=False, single_word=False, special=True)
    added = {str(id): dict(content=token, normalized=id != TOKENS, **flags) for id, token in special.items()}
    write_json(f"{out}/tokenizer_config.json", dict(
        add_bos_token=True, add_prefix_space=False, added_tokens_decoder=added, bos_token="</s>",
        clean_up_tokenization_spaces=True, eos_token="</s>", errors="replace", model_max_length=10**30,
        pad_token="<pad>", tokenizer_class="GPT2Tokenizer", unk_token="</s>"))
    whole = AutoTokenizer.from_pretrained(out)
    if how.get("tokenizer") != "vocabulary": whole.backend_tokenizer.save(f"{out}/tokenizer.json")
    vocabulary = json.load(open(f"{out}/vocab.json"))
    if how.get("tokenizer") == "json":
        for file in ("vocab.json", "merges.txt"): os.remove(f"{out}/{file}")
    seen = {letter for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str("".join(texts)) for letter in word}
    return vocabulary["Ċ"], [vocabulary[letter] for letter in alphabet if letter not in seen]


def write_word_tokenizer(out, how):
    """BERT's, as BLIP's demo has it."""
    if how.get("image_token", True):
        tokenizer = AutoTokenizer.from_pretrained(VOCABULARY)
        tokenizer.add_tokens([AddedToken("<image>", normalized=False, special=True)], special_tokens=True)
        tokenizer.save_pretrained(out)
    else:
        for file in ("vocab.txt", "tokenizer_config.json"): shutil.copyfile(f"{VOCABULARY}/{file}", f"{out}/{file}")
    return None, []
