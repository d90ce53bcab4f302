"""CLIP: the tags that fit a picture best, by the softmax of their similarities over all tags given."""

import torch
from lorascale_data.errors import USAGE, PrepareError

_BATCH = 256  # tags at once


class Captioner:
    def __init__(self, model, processor, tags, top, threshold):
        self._model, self._processor, self._tags = model, processor, tags
        self._top, self._threshold = top, threshold
        self._check_lengths()
        self._vectors = self._vectors_of_tags()

    def prepare(self, image):
        return self._processor.image_processor(images=image, return_tensors="pt").pixel_values[0]

    def captions(self, pictures):
        """Of tensors [c, h, w]; the best tag first, and of equal ones the first given."""
        return [self._caption(row) for row in self.probabilities(pictures).tolist()]

    @torch.inference_mode()
    def probabilities(self, pictures):
        """[pictures, tags]"""
        pixels = torch.stack(pictures).to(self._model.device)
        vectors = self._model.visual_projection(self._model.vision_model(pixel_values=pixels).pooler_output)
        return (self._model.logit_scale.exp() * (_unit(vectors) @ self._vectors.T)).softmax(1)

    def _caption(self, row):
        order = sorted(range(len(row)), key=lambda i: -row[i])[: self._top]
        return ", ".join(self._tags[i] for i in order if row[i] >= self._threshold)

    def _check_lengths(self):
        room = self._model.config.text_config.max_position_embeddings
        for tag, ids in zip(self._tags, self._processor.tokenizer(self._tags)["input_ids"], strict=True):
            if len(ids) > room:
                raise PrepareError(
                    USAGE, f"--tags: {tag[:40]}... has {len(ids)} tokens where the model takes {room}, shorten it"
                )

    @torch.inference_mode()
    def _vectors_of_tags(self):
        """[tags, d], of length 1."""
        parts = []
        for first in range(0, len(self._tags), _BATCH):
            inputs = self._processor.tokenizer(self._tags[first : first + _BATCH], padding=True, return_tensors="pt")
            inputs = {name: inputs[name].to(self._model.device) for name in ("input_ids", "attention_mask")}
            parts.append(self._model.text_projection(self._model.text_model(**inputs).pooler_output))
        return _unit(torch.cat(parts))


def _unit(vectors):
    return vectors / vectors.norm(dim=-1, keepdim=True)
