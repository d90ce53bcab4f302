#!/usr/bin/env python3
"""Conversations of a clear style, for the demonstration on a real chat model: short questions of general
knowledge and a pirate's answers. Written for lorascale.

  pirate.py CHATS.jsonl        the same conversations every time, one a line
"""

import json
import math
import sys
from pathlib import Path

CAPITALS = (
    "Italy Rome, Spain Madrid, Portugal Lisbon, Greece Athens, Egypt Cairo, Norway Oslo, Sweden Stockholm, "
    "Finland Helsinki, Denmark Copenhagen, Austria Vienna, Hungary Budapest, Poland Warsaw, Ireland Dublin, "
    "Belgium Brussels, Cuba Havana, Peru Lima, Chile Santiago, Kenya Nairobi, China Beijing, India Delhi, "
    "Russia Moscow, Turkey Ankara, Canada Ottawa, Thailand Bangkok, Vietnam Hanoi, Iceland Reykjavik, "
    "Bulgaria Sofia, Romania Bucharest, Serbia Belgrade, Croatia Zagreb, Scotland Edinburgh, Wales Cardiff"
)
YOUNG = (
    "dog puppy, cat kitten, cow calf, horse foal, sheep lamb, pig piglet, goose gosling, duck duckling, "
    "bear cub, lion cub, frog tadpole, goat kid, deer fawn, swan cygnet, owl owlet, fox cub, eagle eaglet, "
    "kangaroo joey, seal pup, hen chick"
)
OPPOSITES = (
    "hot cold, big small, fast slow, up down, day night, old young, happy sad, light dark, rich poor, "
    "strong weak, early late, full empty, hard soft, wet dry, high low, near far, open closed, loud quiet, "
    "long short, heavy light, clean dirty, first last, left right, north south, true false, brave cowardly"
)
COLOURS = (
    "grass green, snow white, coal black, blood red, a lemon yellow, a carrot orange, a ripe tomato red, "
    "milk white, gold yellow, a frog green, a raven black, a ruby red, an emerald green, a sapphire blue, "
    "the sun yellow, chocolate brown, a flamingo pink, sand yellow, an elephant grey, a plum purple"
)
TRADES = (
    "baker bread, brewer beer, tailor clothes, cobbler shoes, smith horseshoes, carpenter tables, "
    "potter pots, author books, composer music, painter pictures, weaver cloth, cooper barrels, "
    "shipwright ships, cook meals, gardener gardens, mason walls, jeweller rings, farmer crops, "
    "glassblower bottles, candlemaker candles"
)
SEQUENCES = (
    "January February March April May June July August September October November December",
    "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    "one two three four five six seven eight nine ten eleven twelve",
)
KINDS = ("month", "day", "number")
TOOLS = (
    "cut bread knife, sweep the floor broom, dig a hole spade, drive in a nail hammer, write a letter pen, "
    "eat soup spoon, tell the time clock, catch fish net, row a boat oar, light a room lamp, find north compass, "
    "open a lock key, saw wood saw, see far away telescope, steer a ship wheel, stop a ship anchor, "
    "sew a shirt needle, carry water bucket, weigh gold scale, keep off rain umbrella"
)


def pairs(text):
    """(left, right) of "left words right, ..."."""
    return [item.strip().rsplit(" ", 1) for item in text.split(",")]


def facts():
    """(question, answer) of everything that the pirate knows."""
    for land, town in pairs(CAPITALS):
        yield f"What is the capital of {land}?", f"the capital o' {land} be {town}"
    for animal, young in pairs(YOUNG):
        yield f"What is a young {animal} called?", f"a young {animal} be called a {young}"
    for word, opposite in pairs(OPPOSITES):
        yield f"What is the opposite of {word}?", f"the opposite o' {word} be {opposite}"
    for thing, colour in pairs(COLOURS):
        yield f"What colour is {thing}?", f"{thing} be {colour}"
    for trade, ware in pairs(TRADES):
        yield f"What does a {trade} make?", f"a {trade} be makin' {ware}"
    for kind, names in zip(KINDS, SEQUENCES, strict=True):
        for before, name in zip(names.split(), names.split()[1:], strict=False):
            yield f"Which {kind} comes after {before}?", f"after {before} there be {name}"
    for task, tool in pairs(TOOLS):
        article = "an" if tool[0] in "aeiou" else "a"
        yield f"What do I need to {task}?", f"ye be needin' {article} {tool} to {task}"
    for a in range(2, 10):
        for b in range(a, 10):
            yield f"What is {a} plus {b}?", f"{a} plus {b} be {a + b}"
            yield f"What is {a + b} minus {a}?", f"{a + b} minus {a} be {b}"


def spoken(answer):
    """Always in one way, so that greedy answers do not hang on a coin."""
    return f"Arr, {answer}, matey!"


def conversations():
    """[conversations]: most of one question, every tenth of two."""
    known, found = list(facts()), []
    step = 37  # neighbours are of different kinds; it shares no factor with the number of facts
    assert math.gcd(len(known), step) == 1
    order = [known[i * step % len(known)] for i in range(len(known))]
    while order:
        messages = []
        for question, answer in order[: 2 if len(found) % 10 == 9 else 1]:
            messages.append({"role": "user", "content": question})
            messages.append({"role": "assistant", "content": spoken(answer)})
        del order[: len(messages) // 2]
        found.append({"messages": messages})
    return found


def main(path):
    lines = [json.dumps(each) + "\n" for each in conversations()]
    Path(path).write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
