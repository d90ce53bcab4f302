"""The day: all parts or some, one after the other, each with its own limit. Started by scripts/gpu_day.sh."""
import argparse
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback

from . import (machine, part1_start, part2_parity, part3_exact, part4_ranks, part5_memory, part6_rules, part7_speed,
               results)
from .day import Day, PartOver, end

PARTS = {  # number: (title, module, seconds)
    1: ("start, devices, versions", part1_start, 100),
    2: ("device against CPU", part2_parity, 55),
    3: ("bit for bit", part3_exact, 40),
    4: ("several ranks on one card", part4_ranks, 110),
    5: ("memory", part5_memory, 70),
    6: ("optimizers, averages, export", part6_rules, 45),
    7: ("speed beside transformers + peft", part7_speed, 180),
}


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(64, f"gpu_day.sh: {message} (see --help)\n")


def arguments():
    parser = Parser(prog="gpu_day.sh", description=__doc__)
    parser.add_argument("--package", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("gpu-day-results"),
                        help="folder for gpu-day.json, gpu-day.md and gpu-day.log")
    parser.add_argument("--work", type=pathlib.Path, help="scratch folder, 25 GB with the real shapes; emptied")
    parser.add_argument("--parts", default="1,2,3,4,5,6,7", help="numbers, separated by commas, in this order")
    parser.add_argument("--seconds", type=float, help="of the whole day; the last part gets what is left "
                        "(480; 1800 for --stand-in, whose CPU may be shared)")
    parser.add_argument("--stand-in", action="store_true", help="on the CPU with small sizes: tries the script itself")
    parser.add_argument("--program", type=pathlib.Path, help="a lorascale other than the package's")
    parser.add_argument("--launcher", type=pathlib.Path, help="a launch/mpirun.sh other than the package's")
    values = parser.parse_args()
    values.seconds = values.seconds or (1800 if values.stand_in else 480)
    try:
        values.parts = [int(word) for word in values.parts.split(",")]
        if not set(values.parts) <= set(PARTS) or not values.parts:
            raise ValueError
    except ValueError:
        parser.error(f"--parts takes numbers from 1 to {len(PARTS)}")
    return values


def refuse(code, message):
    print(f"gpu_day.sh: {message}", file=sys.stderr)
    sys.exit(code)


def run_part(day, number, limit):
    title, module, _ = PARTS[number]
    day.part = part = results.Part(number, title, limit)
    try:
        module.run(day, part)
    except PartOver as over:
        part.fail(str(over), f"not reached: the part's {limit:.0f} s were used up")
    except Exception as error:  # the next part is tried all the same
        traceback.print_exc()
        part.fail("the part itself", f"{type(error).__name__}: {error}")
    part.seconds = time.monotonic() - part.begin
    day.part = None
    left = day.clean()
    if left:
        part.fail("processes left behind, killed", str(left))
    return part


def end_on_request(days):
    """A request to end kills what the Day in `days`, if there is one yet, runs, then is an exception: the scratch folder
    goes."""
    def stop(number, _):
        for day in days:
            day.stopped = True
            end(day.token)
        sys.exit(128 + number)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, stop)


def unpacked(package, work):
    """The package is a folder, or a file that is unpacked into the scratch folder."""
    if package.is_dir():
        return package.resolve()
    if subprocess.run(["tar", "-C", work, "-xf", package]).returncode or not (work / "gpu-day").is_dir():
        refuse(65, f"{package} is not what `gpu_day.sh pack` makes; make it anew")
    return work / "gpu-day"


def main():
    values = arguments()
    if (values.output / "gpu-day.json").exists():
        refuse(73, f"{values.output} holds the results of another day; choose another --output")
    values.output.mkdir(parents=True, exist_ok=True)
    about = machine.about()
    if not values.stand_in and not about["gpu"]:
        refuse(69, "nvidia-smi shows no GPU here; --stand-in tries the script itself on a CPU")
    if values.stand_in:
        about["gpu"] = None
    begin, code, days = time.monotonic(), 1, []
    end_on_request(days)
    work = pathlib.Path(tempfile.mkdtemp(prefix="gpu-day-", dir=values.work))
    try:
        day = Day(unpacked(values.package, work), work, values.output.resolve(), "cpu" if values.stand_in else "cuda",
                  values.stand_in, *(path and path.resolve() for path in (values.program, values.launcher)))
        days.append(day)
        all_results = results.Results(values.output, about)
        if 7 in values.parts and not values.stand_in:
            day.make_shapes(part7_speed.REAL["shapes"])
        for number in values.parts:
            left = values.seconds - (time.monotonic() - begin) - 3  # for the end itself
            limit = left if number == values.parts[-1] else min(PARTS[number][2] * (4 if values.stand_in else 1), left)
            part = run_part(day, number, limit) if limit > 3 else results.Part(number, PARTS[number][0], 0)
            if limit <= 3:
                part.fail("the whole part", "not reached: the day's time was used up")
            all_results.add(part)
            bad = [check for check in part.checks if check["verdict"] == results.FAIL]
            print(f"part {number}, {part.title}: {part.verdict} after {part.seconds:.0f} s", flush=True)
            for check in bad:
                print(f"  {check['name']}: {check['value']} ({check['bound']}) {check['note']}", flush=True)
        code = 0 if all_results.passed else 1
    finally:
        for day in days:
            day.stop_making_shapes()
            end(day.token)
        for thread in threading.enumerate():  # those of a part that was broken off write no more after this
            if thread is not threading.main_thread():
                thread.join(10)
        begin = time.monotonic()
        while work.exists() and time.monotonic() - begin < 10:  # on a busy machine what is killed still writes a moment
            for day in days:
                end(day.token)
            shutil.rmtree(work, ignore_errors=True)
    print(f"results: {os.path.relpath(values.output)}/gpu-day.json and gpu-day.md", flush=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
