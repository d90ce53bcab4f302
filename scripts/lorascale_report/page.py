"""The run as one HTML page without scripts or anything from elsewhere: it can be kept, mailed and opened anywhere."""

import html

from lorascale_report import facts, words
from lorascale_report.chart import Chart, Line
from lorascale_report.pictures import data_uri
from lorascale_report.run_folder import smoothed

MOST_ROWS, OPEN_ROWS, MOST_OF_STRIP = 16, 4, 16  # prompts, those that are not folded away, pictures over training
MOST_BYTES = 8 << 20  # of all pictures

STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1c2430;--soft:#5d6878;--line:#e2e6ec;--panel:#f6f8fa;
--train:#a9c0dc;--smooth:#2f6db3;--val:#c8511b;--rate:#3d7f5f}
@media(prefers-color-scheme:dark){:root{--paper:#14181e;--ink:#e3e8ef;--soft:#98a4b4;--line:#2b323c;--panel:#1b2129;
--train:#3d5878;--smooth:#6aa8ef;--val:#f08a55;--rate:#6cc49a}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:920px;padding:32px 20px 64px;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,sans-serif}
h1{font-size:22px;margin:0}h2{font-size:17px;margin:36px 0 10px}
.sub{color:var(--soft);margin:2px 0 20px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(200px,1fr));gap:12px}
.tile{background:var(--panel);border-radius:8px;padding:12px 16px}
.tile b{display:block;font-size:20px;font-variant-numeric:tabular-nums}
.tile span{color:var(--soft);font-size:13px}
figure{margin:18px 0 0}figcaption{font-size:13px;color:var(--soft);display:flex;gap:16px;flex-wrap:wrap;
justify-content:space-between}
.keys span{margin-left:14px}.keys i{display:inline-block;width:14px;height:3px;border-radius:2px;margin-right:5px;
vertical-align:middle;background:currentColor}
svg{width:100%;height:auto;display:block}svg text{font:11px system-ui,sans-serif;fill:var(--soft)}
.grid{stroke:var(--line);stroke-width:1}.axis{stroke:var(--soft);stroke-width:1}
.line{fill:none;stroke:currentColor;stroke-width:2;stroke-linejoin:round}
.train{color:var(--train);stroke-width:1}.smooth{color:var(--smooth)}.val{color:var(--val)}.rate{color:var(--rate)}
circle{fill:currentColor}
table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums}
th{text-align:left;color:var(--soft);font-weight:500}td,th{padding:5px 10px 5px 0;border-bottom:1px solid var(--line);
vertical-align:top}.n{text-align:right}
.wide{overflow-x:auto}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:12px;margin:8px 0 20px}
@media(max-width:640px){.pair{grid-template-columns:1fr}}
.text{background:var(--panel);border-radius:8px;padding:12px 16px;white-space:pre-wrap;overflow-wrap:anywhere;
font:15px/1.5 Georgia,serif}
.text h3{font:500 12px system-ui,sans-serif;color:var(--soft);margin:0 0 4px}.prompt{color:var(--soft)}
.q1{color:var(--smooth)}.q2{color:var(--rate)}.q3{color:var(--val)}.q4{color:var(--soft)}
.drawn{margin:0 0 32px}.drawn h3{font-size:16px;margin:0;overflow-wrap:anywhere;white-space:pre-line}
.drawn .sub{font-size:13px;margin:0;overflow-wrap:anywhere}
.ends{display:grid;grid-template-columns:1fr 1fr;gap:12px;margin-top:10px}
.made{margin:0}.made img{display:block;width:100%;height:auto;max-height:640px;object-fit:contain;border-radius:6px}.dots img{image-rendering:pixelated}
.made figcaption{margin-top:3px}
.strip{display:grid;grid-template-columns:repeat(8,1fr);gap:8px;margin-top:10px}
.strip .made figcaption{font-size:12px}
@media(max-width:640px){.strip{grid-template-columns:repeat(4,1fr)}}
summary{cursor:pointer;color:var(--soft);margin-bottom:16px}
pre{background:var(--panel);border-radius:8px;padding:12px 16px;overflow-x:auto;font-size:13px}
pre i{color:var(--soft);font-style:normal}
"""


def _text(value):
    return html.escape(words.harmless(value))


def _tiles(run):
    first, last = run.first_validation, run.last_validation
    tiles = []
    if first is not None and first.step != last.step:
        tiles.append((f"{first.loss:.3f} \N{RIGHTWARDS ARROW} {last.loss:.3f}", f"validation loss, {run.measure}"))
        if meaning := facts.quality(run):
            name, before, after, of = meaning
            tiles.append((f"{before} \N{RIGHTWARDS ARROW} {after}", f"{name} {of}"))
    tiles.append((words.count(run.updates[-1]["samples"]), f"samples in {words.count(run.updates[-1]['step'])} updates"))
    tiles.append(
        (words.duration(run.training_seconds), f"on {words.ranks_of(run.updates)} rank(s), {words.speed(run)}")
    )
    return "".join(
        f'<div class="tile"><b>{html.escape(value)}</b><span>{html.escape(name)}</span></div>' for value, name in tiles
    )


def _points(run, key):
    return [(update["step"], update.get(key)) for update in run.updates]


def _charts(run):
    losses = [update["loss"] for update in run.updates]
    means = smoothed(losses, 0.04)
    steps = [update["step"] for update in run.updates]
    lines = [
        Line("each update", "train", list(zip(steps, losses, strict=True))),
        Line("smoothed", "smooth", list(zip(steps, means, strict=True))),
    ]
    if run.validations:
        lines.append(Line("validation", "val", [(v.step, v.loss) for v in run.validations], dots=True))
    across = (min(0, steps[0]), steps[-1])
    yield Chart(lines, 320, across, y_label=f"loss, {run.measure}").svg()
    quarters = [Line(name, f"q{i}", points, dots=True) for i, (name, points) in enumerate(facts.noise_curves(run), 1)]
    if quarters:
        yield Chart(quarters, 220, across, y_label="validation loss by the amount of noise, % of the first").svg()
    if run.measures_accuracy:
        yield Chart(_accuracies(run), 220, across, y_label="share of right answers, %").svg()
    rate = Line("learning rate", "rate", _points(run, "lr"))
    yield Chart([rate], 130, across, y_label="learning rate", zero=True).svg()
    yield Chart(
        [
            Line("samples of an update", "smooth", _points(run, "global_batch"), stairs=True),
            Line("ranks", "val", _points(run, "world_size"), stairs=True),
        ],
        130,
        across,
        x_label="update",
        y_label="global batch and ranks",
        zero=True,
    ).svg()


def _accuracies(run):
    points = facts.accuracies(run)
    lines = [
        Line("each update", "train", points),
        Line("smoothed", "smooth", list(zip((x for x, _ in points), smoothed([y for _, y in points], 0.04), strict=True))),
    ]
    measured = facts.validation_accuracies(run)
    return [*lines, Line("validation", "val", measured, dots=True)] if measured else lines


def _image(run, picture, edge):
    """(the picture as a figure, bytes of it), or None for what is damaged."""
    image = run.pictures.small(picture, edge)
    if image is None:
        return None
    what, kept = words.moment(picture), " dots" if max(image.size) < 128 else ""
    uri = data_uri(image)
    alt = html.escape(words.harmless(f"{what}: {picture.prompt}"[:200]))
    figure = (
        f'<figure class="made{kept}"><img src="{uri}" width="{image.width}" height="{image.height}" alt="{alt}">'
        f"<figcaption>{html.escape(what)}</figcaption></figure>"
    )
    return figure, len(uri)


def _drawn_of(run, row, edge):
    """(HTML of a prompt's pictures, bytes of it)."""
    ends = [_image(run, picture, edge) for picture in (row.before, row.latest) if picture]
    strip = [_image(run, picture, edge // 2) for picture in row.strip(MOST_OF_STRIP)]
    shown = row.latest or row.first
    about = [f"Negative prompt: {_brief(shown.negative)}"] if shown.negative else []
    about += [_brief(shown.settings)] if shown.settings else []
    parts = [
        f'<section class="drawn"><h3>{_brief(shown.prompt) or "(an empty prompt)"}</h3>',
        *(f'<p class="sub">{line}</p>' for line in about),
        f'<div class="ends">{"".join(end[0] for end in ends if end)}</div>',
    ]
    if any(strip):
        parts.append(f'<div class="strip">{"".join(each[0] for each in strip if each)}</div>')
    parts.append("</section>")
    return "".join(parts), sum(each[1] for each in ends + strip if each)


def _strengths(run, edge=1024):
    """The adapter at several strengths, where the run made that picture."""
    shown = run.pictures.strengths
    image = run.pictures.small(shown, edge) if shown else None
    if image is None:
        return
    prompts = "; ".join(shown.prompt.split("\n"))
    uri = data_uri(image)
    yield (
        f'<section class="drawn"><h3>The adapter at several strengths</h3>'
        f'<p class="sub">Downwards: {_brief(prompts)}</p>'
        f'<div class="ends"><figure class="made"><img src="{uri}" width="{image.width}" height="{image.height}" '
        f'alt="strengths of the adapter"><figcaption>{_brief(shown.settings, 100)}, from left to right</figcaption></figure>'
        "</div></section>"
    )


def _brief(text, most=400):
    return _text(text if len(text) <= most else text[:most] + "...")


def _drawn(run):
    """Before and after of each prompt; the page stays one to be mailed, whatever the number of pictures."""
    rows = run.pictures.rows
    edge = 512 if len(rows) <= 6 else 384 if len(rows) <= 12 else 256
    shown, size = [], 0
    for row in rows[:MOST_ROWS]:
        section, more = _drawn_of(run, row, edge)
        if shown and size + more > MOST_BYTES:
            break
        shown.append(section)
        size += more
    course = "; the small pictures show the course of training" if any(row.strip(MOST_OF_STRIP) for row in rows) else ""
    yield (
        f'<p class="sub">Each prompt before training and {"after it" if run.finished else "so far"}, with the same seed '
        f"and settings{course}.</p>"
    )
    yield from shown[:OPEN_ROWS]
    if len(shown) > OPEN_ROWS:
        yield f"<details><summary>{len(shown) - OPEN_ROWS} more prompts</summary>{''.join(shown[OPEN_ROWS:])}</details>"
    if len(shown) < len(rows):
        yield f'<p class="sub">{len(rows) - len(shown)} more prompts are in {_text(run.pictures.folder)}</p>'


def _samples(run):
    for prompt, before, after in facts.sample_pairs(run):
        boxes = [
            f'<div class="text"><h3>{name}</h3><span class="prompt">{_text(prompt)}</span>{_text(text)}</div>'
            for name, text in (("before", before), ("after", after))
            if text is not None
        ]
        yield f'<div class="pair">{"".join(boxes)}</div>'


def _table(run):
    def cell(value, form):
        return f'<td class="n">{"" if value is None else format(value, form)}</td>'

    right = '<th class="n">accuracy' if run.measures_accuracy else ""
    yield (
        '<div class="wide"><table><tr><th class="n">update<th class="n">samples<th class="n">loss<th class="n">validation'
        f'{right}<th class="n">learning rate<th class="n">global batch<th class="n">ranks</tr>'
    )
    for row in facts.trace(run, 12):
        yield (
            f"<tr>{cell(row.step, ',')}{cell(row.samples, ',')}{cell(row.loss, '.4f')}{cell(row.validation, '.4f')}"
            f"{cell(row.accuracy, '.2%') if right else ''}{cell(row.lr, '.3g')}{cell(row.batch, ',')}{cell(row.ranks, '')}</tr>"
        )
    yield "</table></div>"


def _decisions(run, most=60):
    shown = run.decisions if len(run.decisions) <= most else run.decisions[: most // 2] + run.decisions[-most // 2 :]
    yield '<div class="wide"><table><tr><th class="n">update<th>decision<th>reason</tr>'
    for decision in shown:
        yield (
            f'<tr><td class="n">{decision["step"]:,}</td><td>{_text(decision.get("kind", ""))}</td>'
            f"<td>{_text(decision.get('reason', ''))}</td></tr>"
        )
    yield "</table></div>"
    if len(shown) < len(run.decisions):
        yield f'<p class="sub">{len(run.decisions) - len(shown)} in the middle are left out; all are in decisions.jsonl</p>'


def render(run, commands):
    name = _text(run.folder)
    drawn = [*_drawn(run), *_strengths(run)] if run.pictures.rows else []  # first: it finds out which are damaged
    rows = "".join(
        f"<tr><th>{html.escape(key)}</th><td>{html.escape(value)}</td></tr>" for key, value in facts.facts(run)
    )
    parts = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title>',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<style>{STYLE}</style>",
        f'<h1>{name}</h1><p class="sub">{_text(facts.headline(run))}; {_text(facts.state(run))}</p>',
        f'<div class="tiles">{_tiles(run)}</div>',
    ]
    if drawn:
        parts += ["<h2>What it draws</h2>", *drawn, "<h2>Curves</h2>"]
    parts += _charts(run)
    if run.before or run.after:
        parts += ["<h2>What it writes</h2>", *_samples(run)]
    parts += ["<h2>The run</h2><table>", rows, "</table>", "<h2>Course</h2>", *_table(run)]
    if run.decisions:
        parts += ["<h2>Decisions and their reasons</h2>", *_decisions(run)]
    parts.append("<h2>Next</h2><pre>")
    parts += [f"<i># {html.escape(c.what)}</i>\n{html.escape(c.line)}\n" for c in commands]
    parts.append("</pre></html>\n")
    return "\n".join(parts)
