"""Checks with their numbers, bounds and verdicts; the JSON file and the Markdown table made of them."""
import json
import math
import pathlib
import threading
import time

PASS, FAIL, SEEN, SKIPPED = "pass", "FAIL", "seen", "skipped"


def shown(value):
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)


def wanted(check):
    """Whether a note goes into the table: a unit, or why something is not well."""
    return check["verdict"] != PASS or len(check["note"]) <= 8


class Part:
    """One part of the day; several threads may add checks."""

    def __init__(self, number: int, title: str, limit: float):
        self.number, self.title, self.limit = number, title, limit
        self.checks, self.tables, self.seconds = [], [], 0.0
        self._lock = threading.Lock()
        self.begin = time.monotonic()

    def remaining(self):
        return self.limit - (time.monotonic() - self.begin)

    def _add(self, name, verdict, value=None, bound=None, note=""):
        if isinstance(value, float) and not math.isfinite(value):
            value = str(value)  # JSON has no word for it
        with self._lock:
            self.checks.append({"name": name, "value": value, "bound": bound, "verdict": verdict, "note": note})

    def at_most(self, name, value, bound, note=""):
        self._add(name, PASS if value <= bound else FAIL, value, f"<= {shown(bound)}", note)

    def at_least(self, name, value, bound, note=""):
        self._add(name, PASS if value >= bound else FAIL, value, f">= {shown(bound)}", note)

    def equal(self, name, value, expected, note=""):
        self._add(name, PASS if value == expected else FAIL, value, f"= {shown(expected)}", note)

    def true(self, name, value, note=""):
        self._add(name, PASS if value else FAIL, bool(value), "= True", note)

    def one_of(self, name, value, expected, note=""):
        self._add(name, PASS if value in expected else FAIL, value, "in " + ", ".join(map(str, expected)), note)

    def fail(self, name, note):
        self._add(name, FAIL, note=note)

    def seen(self, name, value, note=""):
        """A number without a bound: for the record."""
        self._add(name, SEEN, value, note=note)

    def skip(self, name, note):
        self._add(name, SKIPPED, note=note)

    def table(self, title, header, rows):
        with self._lock:
            self.tables.append({"title": title, "header": header, "rows": rows})

    @property
    def verdict(self):
        verdicts = {check["verdict"] for check in self.checks}
        return FAIL if FAIL in verdicts or not verdicts - {SEEN} else (SKIPPED if verdicts <= {SKIPPED, SEEN} else PASS)

    def to_json(self):
        return {"part": self.number, "title": self.title, "seconds": round(self.seconds, 1), "limit": self.limit,
                "verdict": self.verdict, "checks": self.checks, "tables": self.tables}


class Results:
    def __init__(self, folder: pathlib.Path, about: dict):
        self.folder, self.about, self.parts = folder, about, []
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, part: Part):
        """Writes everything anew, so that what was measured stays if the machine goes."""
        self.parts.append(part)
        text = json.dumps({"about": self.about, "parts": [each.to_json() for each in self.parts]}, indent=1, default=str)
        for name, content in (("gpu-day.json", text + "\n"), ("gpu-day.md", self.markdown())):
            path = self.folder / name
            path.with_suffix(".part").write_text(content)
            path.with_suffix(".part").replace(path)

    def markdown(self):
        about = self.about
        lines = [f"## A day on {about.get('gpu') or 'a CPU (stand-in sizes: no figure counts)'}", "",
                 ", ".join(f"{key} {value}" for key, value in about.items() if key != "gpu" and value), "",
                 "| part | checks | result | time |", "|---|---|---|---|"]
        for part in self.parts:
            done = sum(check["verdict"] == PASS for check in part.checks)
            judged = sum(check["verdict"] in (PASS, FAIL) for check in part.checks)
            lines.append(f"| {part.number}. {part.title} | {done} of {judged} | {part.verdict} | {part.seconds:.0f} s |")
        for part in self.parts:
            for table in part.tables:
                lines += ["", f"{table['title']}:", "", "| " + " | ".join(table["header"]) + " |",
                          "|" + "---|" * len(table["header"])]
                lines += ["| " + " | ".join(map(shown, row)) + " |" for row in table["rows"]]
            lines += ["", f"Part {part.number}, {part.title}:", "", "| check | value | bound | result |",
                      "|---|---|---|---|"]
            for check in part.checks:
                cells = (check["name"], "" if check["value"] is None else shown(check["value"]), check["bound"] or "",
                         check["verdict"] + (f": {check['note']}" if check["note"] and wanted(check) else ""))
                lines.append("| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
        return "\n".join(lines) + "\n"

    @property
    def passed(self):
        return all(part.verdict != FAIL for part in self.parts)
