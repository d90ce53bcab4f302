"""Which emoji are shown, and what captions call them: from Unicode's emoji-test.txt and a list of exceptions.

Left out are flags, signs (group Symbols) and skin tones; names with a colon (families, hair); men and women where the
same is there as a person or without a word for it; and what the list says. Its lines are
  SUBGROUP: NAME, NAME   only these of a subgroup, perhaps none
  - NAME                 not this one
  NAME = PHRASE          said so in captions, where the rule for articles or the name itself does not do
"""

import dataclasses
import re

GROUPS_LEFT_OUT = ("Flags", "Symbols", "Component")
SKIN_TONES = range(0x1F3FB, 0x1F400)
PLURALS_END = re.compile(r"[^suo]s$|oes$|ees$")
SMALL_WORDS = re.compile(r" (?:with|without|of|on|in|behind|over|for) ")


class NamesError(Exception):
    """What is wrong with one of the lists, on one line."""


@dataclasses.dataclass(frozen=True)
class Noun:
    name: str  # as Unicode has it
    phrase: str  # as captions have it
    codes: tuple[int, ...]

    @property
    def file(self):
        """The beginning of its files' names."""
        return re.sub("[^a-z0-9]+", "-", self.phrase).strip("-")


@dataclasses.dataclass
class Exceptions:
    only: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    left_out: list[str] = dataclasses.field(default_factory=list)
    said: dict[str, str] = dataclasses.field(default_factory=dict)


def lines_of(path):
    """The lines of a list that are not comments."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def exceptions_of(lines):
    found = Exceptions()
    for line in lines:
        if line.startswith("- "):
            found.left_out.append(line[2:].strip())
        elif " = " in line:
            name, phrase = line.split(" = ", 1)
            found.said[name.strip()] = phrase.strip()
        elif ":" in line:
            subgroup, names = line.split(":", 1)
            found.only[subgroup.strip()] = [name.strip() for name in names.split(",") if name.strip()]
        else:
            raise NamesError(f"the list of names has the line '{line}', which says nothing (see emoji_names.py)")
    return found


def entries_of(text):
    """(group, subgroup, name, code points) of each fully qualified emoji."""
    group = subgroup = ""
    for line in text.splitlines():
        if line.startswith("# group:"):
            group = line.partition(":")[2].strip()
        elif line.startswith("# subgroup:"):
            subgroup = line.partition(":")[2].strip()
        elif found := re.match(r"([0-9A-F ]+); fully-qualified\s+# \S+ E[0-9.]+ (.+)", line):
            yield group, subgroup, plain(found[2]), tuple(int(code, 16) for code in found[1].split())


def plain(name):
    """With straight apostrophes."""
    return name.strip().replace("\u2019", "'")


def nouns_of(text, exceptions):
    """The Nouns in the order of the file, each phrase once."""
    entries = shown(text)
    names = {entry[2] for entry in entries}
    nouns = {}
    for _, subgroup, name, codes in entries:
        allowed = name in exceptions.only.get(subgroup, names) and name not in exceptions.left_out
        if allowed and not is_variant(name, names):
            phrase = exceptions.said.get(name) or phrase_of(name)
            if phrase in nouns:
                raise NamesError(f"{name} and {nouns[phrase].name} are both called '{phrase}': change the list")
            nouns[phrase] = Noun(name, phrase, codes)
    return list(nouns.values())


def shown(text):
    """The entries that are no flags, signs or skin tones."""
    return [entry for entry in entries_of(text)
            if entry[0] not in GROUPS_LEFT_OUT and not any(code in SKIN_TONES for code in entry[3])]  # fmt: skip


def unknown(exceptions, text):
    """What the list names and emoji-test.txt, which has its versions, does not."""
    entries = shown(text)
    names, subgroups = {entry[2] for entry in entries}, {entry[1] for entry in entries}
    used = [*exceptions.left_out, *exceptions.said, *(name for only in exceptions.only.values() for name in only)]
    return [name for name in used if name not in names] + [name for name in exceptions.only if name not in subgroups]


def is_variant(name, names):
    """Of another name, by sex or by what a person has."""
    if ":" in name:
        return True
    first, _, rest = name.partition(" ")
    general = {"man": "person", "woman": "person", "men": "people", "women": "people"}.get(first)
    return bool(general and rest) and (rest in names or f"{general} {rest}" in names)


def phrase_of(name):
    """A name in small letters with its article."""
    name = name.lower()
    head = SMALL_WORDS.split(name, maxsplit=1)[0]
    if PLURALS_END.search(head):
        return name
    return f"{'an' if name[0] in 'aeio' or name.startswith('um') else 'a'} {name}"
