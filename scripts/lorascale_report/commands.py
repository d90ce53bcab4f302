"""What to try next with a finished (or stopped) run: commands that work as they are printed, from the folder that the
run was started in."""

import dataclasses
import shlex

from lorascale_report import words

PROGRAM = "build/release/lorascale"
RANKS = 4  # another number than most runs have: it changes the time, not the result


@dataclasses.dataclass(frozen=True)
class Command:
    what: str
    line: str


def next_commands(run, program):
    folder = run.folder
    config = shlex.quote(str(folder / "config.yaml"))
    program = shlex.quote(program)
    # The launcher finds the program beside it; another one must be named.
    chosen = "" if program == PROGRAM else f"LORASCALE_PROGRAM={program} "
    launch = f"{chosen}launch/mpirun.sh -n {RANKS}"
    commands = []
    if run.result_folder is None:
        return [
            Command("go on from its last checkpoint, on any number of ranks", f"{launch} train {config}"),
            Command("watch the curves", _tensorboard(run)),
        ]
    if run.is_lora:
        prompt = run.after[0].prompt if run.after else None
        drawn = next((row.first.prompt for row in run.pictures.rows), None)
        if drawn and drawn == words.harmless(drawn):
            commands.append(
                Command(
                    "make a picture with the adapter, of this or another prompt",
                    f"{program} generate {config} --prompt {shlex.quote(drawn)} --output picture.png",
                )
            )
        if prompt and run.unit == "byte":
            commands.append(
                Command(
                    "generate with the adapter",
                    f"{program} generate {config} --max-tokens 400 --prompt {shlex.quote(prompt)}",
                )
            )
        commands.append(Command("look at the adapter", f"{program} inspect {_path(run.result_folder)}"))
        commands.append(
            Command(
                "write a full model with the adapter in it",
                f"{program} merge --model {_path(run.setting('model', 'path') or '')} "
                f"--adapter {_path(run.result_folder)} --output {_path(folder / 'merged')}",
            )
        )
        commands.append(
            Command(
                f"train on from this adapter on {RANKS} ranks, in a folder of its own",
                f"{launch} train {config} --set run.output_dir={_path(str(folder) + '-more')} "
                f"--set adapter.init_from={_path(run.result_folder)}",
            )
        )
    commands.append(
        Command("plan the same run on 8 ranks: same batch, rates and samples", f"{program} plan {config} --ranks 8")
    )
    commands.append(Command("watch the curves", _tensorboard(run)))
    return commands


def _path(path):
    return shlex.quote(str(path))


def _tensorboard(run):
    return f'"$(scripts/setup.sh --print-python)" -m tensorboard.main --logdir {_path(run.folder / "tensorboard")}'

