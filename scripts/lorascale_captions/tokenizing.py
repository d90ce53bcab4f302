"""CLIP's tokens of captions, as transformers' CLIPTokenizer gives them."""

from pathlib import Path

from lorascale_data.errors import BAD_INPUT, PrepareError

from . import vocabulary

_PATTERN = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_DEFAULTS = {"bos_token": vocabulary.BEGIN, "eos_token": vocabulary.END, "pad_token": vocabulary.END}


class Tokenizer:
    """Never cuts, never pads, adds nothing by itself."""

    def __init__(self, path):
        self._vocabulary = vocabulary.read(path)
        self.sha256 = self._vocabulary.sha256
        self.size = len(self._vocabulary.by_id)
        names = special_tokens(Path(path))
        self.begin, self.end, self.pad = (self._id_of(key, names[key]) for key in _DEFAULTS)
        self._library = _library_tokenizer(self._vocabulary, names)

    def encode(self, texts):
        """[texts] lists of ids."""
        return [encoding.ids for encoding in self._library.encode_batch(texts, add_special_tokens=False)]

    def _id_of(self, key, name):
        ids = {token: index for index, token in enumerate(self._vocabulary.by_id)}
        if name not in ids:
            raise PrepareError(
                BAD_INPUT, f"{self._vocabulary.source}: has no token {name}, its {key}; take the files of one tokenizer"
            )
        return ids[name]


def of_model(model):
    """(Tokenizer, the id that pads for the second text encoder or None) of a diffusers folder."""
    folders = [model / "tokenizer", model / "tokenizer_2"]
    if not folders[0].is_dir():
        raise PrepareError(BAD_INPUT, f"{model}: holds no folder tokenizer; give a diffusers folder, or --tokenizer")
    first = Tokenizer(folders[0])
    if not folders[1].is_dir():
        return first, None
    second = Tokenizer(folders[1])
    if (second.sha256, second.begin, second.end) != (first.sha256, first.begin, first.end):
        raise PrepareError(BAD_INPUT, f"{folders[1]}: gives other tokens than {folders[0]}, take those of one model")
    return first, second.pad


def special_tokens(path):
    """{key: text} as the tokenizer's settings name them, or as CLIP's own are named."""
    found = dict(_DEFAULTS)
    folder = path if path.is_dir() else path.parent
    for name in ("special_tokens_map.json", "tokenizer_config.json") if path.suffix != ".gz" else ():
        if not (folder / name).is_file():
            continue
        settings = vocabulary.json_object(folder / name)
        for key in _DEFAULTS:
            value = settings.get(key)
            value = value.get("content") if isinstance(value, dict) else value
            if isinstance(value, str):
                found[key] = value
    return found


def _library_tokenizer(source, names):
    import tokenizers  # here, so that pictures of classes need no such library
    from tokenizers import normalizers, pre_tokenizers

    library = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            vocab=source.tokens,
            merges=source.merges,
            continuing_subword_prefix="",
            end_of_word_suffix=vocabulary.WORD_END,
            fuse_unk=False,
            unk_token=names["eos_token"],
        )
    )
    library.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(tokenizers.Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = pre_tokenizers.Split(tokenizers.Regex(_PATTERN), behavior="removed", invert=True)
    library.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    library.add_special_tokens([names["bos_token"], names["eos_token"]])
    library.add_tokens(sorted(source.added, key=source.added.get))
    return library
