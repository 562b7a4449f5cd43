"""What transformers answers for a BLIP-2 checkpoint: like golden.py, which see."""
import torch
from torch.nn.functional import log_softmax, normalize

from golden import Reference

TEMPLATE = "Question: {question} Answer:"


class Blip2Reference(Reference):
    """A BLIP-2 checkpoint, with OPT or for retrieval, as transformers runs it."""

    def decoder(self):
        return self.model.language_model, self.config.text_config.eos_token_id

    def positions(self):
        """Of the Q-Former, which reads the texts that are compared with images; its queries have no positions."""
        return self.config.qformer_config.max_position_embeddings

    @torch.inference_mode()
    def label(self, task, texts, pixels):
        if task["name"] != "vqa":
            return super().label(task, texts, pixels)
        answer = self.choose if task.get("answers") else self.answer
        asked = [self.asked(task, question) for question in texts]
        answers, margins = zip(*(answer(task, *self.following(text, pixels)) for text, _ in asked))
        return dict(answers=answers, margins=margins, cut=[i for i, (_, cut) in enumerate(asked) if cut])

    def asked(self, task, question):
        """The question in its template, and whether it lost its end: so many tokens that there are positions for the
        longest answer, of which the last token is never looked at. transformers would fail; the rule is capfleet's."""
        template = task.get("template") or TEMPLATE
        longest = task["decoding"].get("maxNewTokens", 20)
        if task.get("answers"): longest = max(len(self.answer_ids(text)) for text in task["answers"])
        room = self.config.text_config.max_position_embeddings - self.config.num_query_tokens - (longest - 1)
        text, left = template.replace("{question}", question), self.tokens(question)
        cut = False
        while (over := len(self.tokenizer(text).input_ids) - room) > 0:
            left, cut = left[:-over], True
            text = template.replace("{question}", self.tokenizer.decode(left, skip_special_tokens=True).strip())
        return text, cut

    def tokens(self, text):
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def answer_ids(self, text):
        """Of an answer from a closed list, which follows the prompt and a space."""
        _, end = self.decoder()
        return self.tokens(" " + text) + [end]

    def prompted(self, task, pixels):
        return self.following(task.get("prompt") or "", pixels)

    def following(self, text, pixels):
        """A prompt's tokens and inputs: the image's, the start token, the text's, in Blip2Processor's order."""
        ids = self.images() + self.tokenizer(text).input_ids
        assert ids[self.config.num_query_tokens] == self.config.text_config.bos_token_id
        tokens = torch.tensor([ids])
        return ids, dict(pixel_values=pixels, input_ids=tokens, attention_mask=torch.ones_like(tokens))

    def images(self):
        """Image tokens, in whose places the Q-Former's output stands; a checkpoint for retrieval may have none."""
        token = self.config.image_token_index
        return [token] * self.config.num_query_tokens if token is not None else []

    def answer(self, task, prompt, inputs):
        [answer], margin = self.generate(task, prompt, inputs, 1, [])
        return answer, margin

    def choose(self, task, prompt, inputs):
        """The answer that is likeliest to follow the prompt, by the sum of its tokens' log-probabilities, the end
        token's included. transformers has no function for it."""
        ranked = []
        for text in task["answers"]:
            ids = self.answer_ids(text)
            given = torch.tensor([prompt + ids[:-1]])
            made = self.model(**dict(inputs, input_ids=given, attention_mask=torch.ones_like(given)))
            total = log_softmax(made.logits[0, len(prompt) - 1 :], -1)[range(len(ids)), ids].sum().item()
            ranked.append(dict(ids=ids, text=text, score=total / len(ids), rank=total))
        best, second = sorted(ranked, key=lambda answer: -answer["rank"])[:2]
        return best, best["rank"] - second["rank"]

    def matching(self, text, pixels):
        return self.compare(text, pixels, True).softmax(-1)[0, 1].item()

    def similarity(self, text, pixels):
        return self.compare(text, pixels, False).item()

    def compare(self, text, pixels, head):
        tokens = torch.cat((torch.tensor([self.images()], dtype=torch.int64), text), 1)
        return self.model(pixel_values=pixels, input_ids=tokens, attention_mask=torch.ones_like(tokens),
                          use_image_text_matching_head=head).logits_per_image

    def image_vectors(self, pixels):
        """One per query."""
        image = self.model.vision_model(pixels)[0]
        states = self.model.qformer(query_embeds=self.model.query_tokens, encoder_hidden_states=image)[0]
        return normalize(self.model.vision_projection(states[0]), dim=-1)

    def text_vector(self, text):
        embeddings = self.model.embeddings(input_ids=text)
        states = self.model.qformer(query_embeds=embeddings, query_length=0, attention_mask=torch.ones_like(text))[0]
        return normalize(self.model.text_projection(states[0, 0]), dim=-1)
