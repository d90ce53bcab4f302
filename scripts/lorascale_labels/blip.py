"""BLIP: a caption for each picture, by greedy or beam search."""

import torch
from lorascale_data.errors import USAGE, PrepareError


class Captioner:
    def __init__(self, model, processor, prompt, beams, max_tokens):
        self._model, self._processor = model, processor
        self._search = {"num_beams": beams, "max_new_tokens": max_tokens, "do_sample": False}
        self._prompt = processor.tokenizer(prompt, return_tensors="pt").to(model.device) if prompt else {}
        self._check_length(max_tokens)

    def prepare(self, image):
        return self._processor.image_processor(images=image, return_tensors="pt").pixel_values[0]

    @torch.inference_mode()
    def captions(self, pictures):
        """Of tensors [c, h, w]; with a prompt they begin with it."""
        # Copies: `generate` writes into the ids. All prompts are alike, so that none is padded.
        prompt = {
            name: self._prompt[name].repeat(len(pictures), 1)
            for name in ("input_ids", "attention_mask")
            if name in self._prompt
        }
        pixels = torch.stack(pictures).to(self._model.device)
        ids = self._model.generate(pixel_values=pixels, **prompt, **self._search)
        # The first begins every caption, and is not in all tokenizers among those that are skipped.
        return self._processor.batch_decode(ids[:, 1:], skip_special_tokens=True)

    def _check_length(self, max_tokens):
        prompt = self._prompt["input_ids"].shape[1] if self._prompt else 1
        room = self._model.config.text_config.max_position_embeddings
        if prompt + max_tokens > room:
            raise PrepareError(
                USAGE,
                f"--max-tokens {max_tokens}: the model has room for {room - prompt} behind the prompt, give fewer",
            )
