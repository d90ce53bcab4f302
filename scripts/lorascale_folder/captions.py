"""Whether pictures have captions, before anything is opened."""

import os
import re

from lorascale_captions import layouts, sidecars
from lorascale_data.errors import BAD_INPUT, USAGE, PrepareError
from lorascale_images import listing

GROUP = re.compile(r"[0-9]+_.*", re.DOTALL)  # a folder N_class, whose words are captions, too


def are_to_be_made(settings, can_label):
    """Whether a model is to write captions: there are none, or a table may lack some. `can_label`: there is one."""
    folder, extension = settings.pictures, settings.extension
    pictures, names = _listed(folder)
    if not pictures:
        raise PrepareError(BAD_INPUT, f"{folder}: holds no picture, check the path and the names of the files")
    tables = [folder / name for name in layouts.METADATA if (folder / name).exists()]
    if settings.source != folder or tables:
        return can_label and settings.source == folder and tables == [folder / layouts.METADATA[0]]
    if any(GROUP.fullmatch(path.name) for path in folder.iterdir() if path.is_dir()):
        if can_label:
            raise PrepareError(
                USAGE,
                f"--label writes metadata.csv, which knows no folders N_class, and {folder} has some: write captions "
                "beside the pictures, or move these out of them",
            )
        return False
    stems = [os.path.splitext(name)[0] for name in pictures]
    if any(stem + extension in names for stem in stems):
        return False
    if not can_label:
        _refuse(folder, extension, len(pictures), stems, names)
    return True


def _refuse(folder, extension, count, stems, names):
    for other in sidecars.OTHERS:
        if beside := sum(stem + other in names for stem in stems):
            raise PrepareError(
                BAD_INPUT,
                f"{folder}: {count:,} pictures have no caption {extension}; {beside:,} {other} files lie beside them, "
                f"which caption_extension: {other} takes",
            )
    raise PrepareError(
        BAD_INPUT,
        f"{folder}: {count:,} pictures have no caption; --label MODEL_FOLDER has a model write them "
        f"(docs/auto-label.md), or write metadata.csv (file_name,text) or NAME{extension} beside each yourself",
    )


def _listed(folder):
    """The names of the pictures and of all files, relative to the folder."""
    pictures, names = [], set()
    for place, _, files in listing.walk(folder):
        for name in files:
            relative = os.path.relpath(os.path.join(place, name), folder)
            names.add(relative)
            if listing.is_picture(name):
                pictures.append(relative)
    return pictures, names
