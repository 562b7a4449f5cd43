"""What transformers answers: float32, one image and one text at a time, so that nothing depends on a batch or on padding.

Tasks and answers have the shapes of capfleet's own (TaskSpec in packages/shared, Output in packages/worker), so that a
golden row can be compared field by field. Every text and choice comes with its margin: by how much the closest of the
decisions that led to it was decided. Rounding far below the margin can't change it.
"""
import json
import os

import torch
import transformers
from PIL import Image, ImageOps
from torch.nn.functional import log_softmax, normalize

#: transformers gives places that no hypothesis has taken yet a score of -1e9.
IMPOSSIBLE = -1e8
torch.set_num_threads(1)  # small models are faster so


class Reference:
    """A BLIP checkpoint as transformers runs it. What BLIP-2 does otherwise is in golden_blip2.py."""

    def __init__(self, checkpoint):
        self.config = transformers.AutoConfig.from_pretrained(checkpoint)
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
        architecture = getattr(transformers, self.config.architectures[0])
        self.model = architecture.from_pretrained(checkpoint, dtype=torch.float32).eval()
        processor, older = (f"{checkpoint}/{name}" for name in ("processor_config.json", "preprocessor_config.json"))
        self.pre = (os.path.exists(processor) and json.load(open(processor)).get("image_processor")) or json.load(open(older))

    def decoder(self):
        """The model that makes texts, and its end token."""
        return self.model.text_decoder, self.config.text_config.sep_token_id

    def positions(self):
        """The most tokens that a text can have."""
        return self.config.text_config.max_position_embeddings

    def resized(self, file):
        """The upright RGB image at the model's size, which is what both sides are given."""
        size = self.pre["size"]
        image = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
        return image.resize((size["width"], size["height"]), Image.BICUBIC)

    def pixels(self, image):
        """float32 [1, 3, height, width]."""
        mean, std = (torch.tensor(self.pre[name]).view(3, 1, 1) for name in ("image_mean", "image_std"))
        bytes = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(image.height, image.width, 3)
        return ((bytes.permute(2, 0, 1) / 255 - mean) / std)[None]

    @torch.inference_mode()
    def label(self, task, texts, pixels):
        """The fields of an Output, and `margins`: one per text that is made or chosen."""
        if task["name"] == "caption":
            return self.caption(task, pixels)
        tokens = [self.encode(text) for text in texts]
        cut = [i for i, text in enumerate(texts) if len(self.tokenizer(text).input_ids) > tokens[i].shape[1]]
        if task["name"] == "vqa":
            answer = self.choose if task.get("answers") else self.answer
            answers, margins = zip(*(answer(task, question, pixels) for question in tokens))
            return dict(answers=answers, margins=margins, cut=cut)
        if task["name"] == "embed":
            vectors = map(self.text_vector, tokens) if task.get("texts") else self.image_vectors(pixels)
            return dict(embeddings=[[round(x, 7) for x in vector.tolist()] for vector in vectors], cut=cut)
        score = self.matching if task["name"] == "itm" else self.similarity
        return dict(scores=[score(text, pixels) for text in tokens], cut=cut)

    def encode(self, text):
        """int64 [1, tokens], [CLS] first and [SEP] last, cut to what the model can see."""
        return self.tokenizer(text, truncation=True, max_length=self.positions(), return_tensors="pt").input_ids

    def caption(self, task, pixels):
        prompt, inputs = self.prompted(task, pixels)
        captions, margin = self.generate(task, prompt, inputs, task.get("captions", 1), prompt)
        return dict(captions=captions, margins=[margin])

    def prompted(self, task, pixels):
        """The tokens that a caption begins with, and what makes transformers do so: it puts the start token in place of
        [CLS] and leaves out [SEP]."""
        start = [self.config.text_config.bos_token_id]
        if not task.get("prompt"):
            return start, dict(pixel_values=pixels)
        ids = self.tokenizer(task["prompt"], return_tensors="pt").input_ids
        return start + ids[0, 1:-1].tolist(), dict(pixel_values=pixels, input_ids=ids)

    def answer(self, task, question, pixels):
        inputs = dict(pixel_values=pixels, input_ids=question, attention_mask=torch.ones_like(question))
        start = [self.config.text_config.bos_token_id]
        [answer], margin = self.generate(task, start, inputs, 1, start)
        return answer, margin

    def choose(self, task, question, pixels):
        """The answer whose tokens, the end token included, have the largest sum of log-probabilities: `rank_answer` of
        Li et al. 2022, which transformers has no function for, by its modules."""
        model, config = self.model, self.config.text_config
        image = model.vision_model(pixels)[0]
        states = model.text_encoder(input_ids=question, attention_mask=torch.ones_like(question), encoder_hidden_states=image)[0]
        ranked = []
        for text in task["answers"]:
            ids = self.tokenizer(text).input_ids[1:-1] + [config.sep_token_id]
            given = torch.tensor([[config.bos_token_id, *ids[:-1]]])
            logits = model.text_decoder(input_ids=given, encoder_hidden_states=states).logits[0]
            total = log_softmax(logits, -1)[range(len(ids)), ids].sum().item()
            ranked.append(dict(ids=ids, text=text, score=total / len(ids), rank=total))
        best, second = sorted(ranked, key=lambda answer: -answer["rank"])[:2]
        return best, best["rank"] - second["rank"]

    def generate(self, task, prompt, inputs, count, beginning):
        """`count` texts that follow the prompt, and their margin. `score` is of the model's raw probabilities; `rank` is
        what beam search orders by. `beginning`: the tokens that a text begins with."""
        (decoder, end), beams = self.decoder(), task["decoding"].get("beams", 1)
        decisions = BeamDecisions(decoder) if beams > 1 else None
        made = self.model.generate(**inputs, **options(task["decoding"]), num_return_sequences=count, do_sample=False,
                                   return_dict_in_generate=True, output_logits=True, output_scores=True)
        texts = []
        for i, sequence in enumerate(made.sequences.tolist()):
            assert sequence[: len(prompt)] == prompt
            ids = sequence[len(prompt) :]
            ids = ids[: ids.index(end) + 1] if end in ids else ids
            rows = made.beam_indices[i].tolist() if decisions else [0] * len(ids)
            steps = zip(made.logits, rows, ids)
            score = sum(log_softmax(logits[row], -1)[token].item() for logits, row, token in steps) / len(ids)
            rank = made.sequences_scores[i].item() if decisions else score
            text = self.tokenizer.decode(beginning + ids, skip_special_tokens=True).strip()
            texts.append(dict(ids=ids, text=text, score=score, rank=rank))
        if decisions:
            return texts, decisions.margin(count)
        best = [scores[0].topk(2).values for scores in made.scores]
        return texts, min((first - second).item() for first, second in best)

    @torch.inference_mode()
    def first_token(self, task, pixels):
        """Probabilities of a caption's first new token as sampling has them, {token id: probability}, those above 0."""
        _, inputs = self.prompted(task, pixels)
        made = self.model.generate(**inputs, **options(task["decoding"]), do_sample=True, return_dict_in_generate=True, output_scores=True)
        probabilities = made.scores[0][0].softmax(-1).tolist()
        return {token: float(f"{p:.7g}") for token, p in enumerate(probabilities) if p > 0}

    def matching(self, text, pixels):
        logits = self.model(input_ids=text, attention_mask=torch.ones_like(text), pixel_values=pixels).itm_score
        return logits.softmax(-1)[0, 1].item()

    def similarity(self, text, pixels):
        return self.model(input_ids=text, attention_mask=torch.ones_like(text), pixel_values=pixels, use_itm_head=False).itm_score.item()

    def image_vectors(self, pixels):
        return [normalize(self.model.vision_proj(self.model.vision_model(pixels)[0][0, 0]), dim=-1)]

    def text_vector(self, text):
        states = self.model.text_encoder(input_ids=text, attention_mask=torch.ones_like(text))[0]
        return normalize(self.model.text_proj(states[0, 0]), dim=-1)


def options(decoding):
    """capfleet's Decoding, where absent fields have its defaults, as arguments of transformers' generate."""
    arguments = dict(max_new_tokens=decoding.get("maxNewTokens", 20), num_beams=decoding.get("beams", 1),
                     repetition_penalty=decoding.get("repetitionPenalty", 1.0))
    if decoding.get("minNewTokens"):
        arguments["min_new_tokens"] = decoding["minNewTokens"]
    if decoding.get("beams", 1) > 1:
        arguments["length_penalty"] = float(decoding.get("lengthPenalty", 1))
    sampling = decoding.get("sampling")
    if sampling is not None:
        arguments.update(temperature=float(sampling.get("temperature", 1)), top_k=sampling.get("topK", 0), top_p=float(sampling.get("topP", 1)))
    return arguments


class BeamDecisions:
    """Watches transformers' beam search and notes by how much each of its decisions was decided.

    These are: which `beams` of the continuations that go on are kept; which of those that end are among the best `beams`
    and so count; which hypotheses are kept; whether an open beam could still become better than the worst of them; and in
    which order they are returned. (That 2 × beams continuations are looked at decides nothing: at most `beams` can end.)

    Gaps are in log-probability, which is what rounding changes: by how much a hypothesis' would have to be another for
    the decision to be another. Where log-probability / length ^ penalty is compared, that is the gap times the shorter
    length ^ penalty.
    """

    def __init__(self, decoder):
        self.gaps, self.order, self.kept, self.outside = [], [], [], None
        for name in ("_get_top_k_continuations", "_get_running_beams_for_next_iteration", "_update_finished_beams", "_check_early_stop_heuristic"):
            self.watch(decoder, name)

    def watch(self, decoder, name):
        vars(decoder).pop(name, None)  # of an earlier search
        original, notice = getattr(decoder, name), getattr(self, name)

        def watched(**arguments):
            result = original(**arguments)
            notice(result, **arguments)
            return result

        setattr(decoder, name, watched)

    def _get_top_k_continuations(self, _, accumulated_log_probs, beams_to_keep, **__):
        self.outside = accumulated_log_probs[0].topk(beams_to_keep + 1).values[-1:]

    def _get_running_beams_for_next_iteration(self, _, topk_log_probs, next_token_hits_stopping_criteria, num_beams, **__):
        scores, ends = topk_log_probs[0], next_token_hits_stopping_criteria[0]
        going_on = torch.cat((scores[~ends], self.outside))
        if len(going_on) > num_beams:
            self.gaps.append((going_on[num_beams - 1] - going_on[num_beams]).item())
        for place in ends.nonzero().flatten().tolist():
            rival = num_beams if place < num_beams else num_beams - 1
            self.gaps.append((scores[place] - scores[rival]).abs().item())

    def _update_finished_beams(self, result, beam_scores, beam_indices, topk_log_probs, next_token_hits_stopping_criteria, num_beams,
                               cur_len, decoder_prompt_len, length_penalty, **_):
        length = cur_len + 1 - decoder_prompt_len
        ended = topk_log_probs[0, :num_beams][next_token_hits_stopping_criteria[0, :num_beams]] / length**length_penalty
        rivals = hypotheses(beam_scores, beam_indices) + [(score, length) for score in ended.tolist()]
        rivals.sort(key=lambda rival: -rival[0])
        if len(rivals) > num_beams:
            self.gaps.append(gap(rivals[num_beams - 1], rivals[num_beams], length_penalty))
        _, kept_scores, kept_indices, _ = result
        self.kept = hypotheses(kept_scores, kept_indices)
        self.order = [gap(*pair, length_penalty) for pair in zip(self.kept, self.kept[1:])]

    def _check_early_stop_heuristic(self, _, running_beam_scores, is_sent_finished, cur_len, decoder_prompt_len, length_penalty, **__):
        if is_sent_finished.all():
            length = cur_len - decoder_prompt_len
            hope = running_beam_scores[0, 0].item() / length**length_penalty
            self.gaps.append(gap((hope, length), self.kept[-1], length_penalty))

    def margin(self, count):
        """The least of all, where the best `count` hypotheses are returned."""
        return min(self.gaps + self.order[:count])


def hypotheses(scores, beam_indices):
    """(score, length) of each that there is, the best first."""
    lengths = (beam_indices[0] >= 0).sum(-1).tolist()
    return [(score, length) for score, length in zip(scores[0].tolist(), lengths) if score > IMPOSSIBLE]


def gap(one, other, length_penalty):
    (a, length_a), (b, length_b) = one, other
    return abs(a - b) * min(length_a, length_b) ** length_penalty
