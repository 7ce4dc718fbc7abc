"""The report's templates, kept as Python text so that a change of them is a change of the code.

Rendered with autoescape; no value is ever marked safe. The page's policy forbids scripts and all
requests.
"""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fcfbf9; --raised: #f5f3ee; --ink: #1f1d1a; --soft: #6b665e; --line: #e2ded5;
  --good: #1f7a4d; --bad: #b3392c; --unsure: #8a6414; --tuned: #2b5fa8; --base: #8d877d;
  --serif: ui-serif, Charter, "Iowan Old Style", Georgia, "Noto Serif", serif;
  --sans: ui-sans-serif, system-ui, -apple-system, "Segoe UI", "Noto Sans", sans-serif;
  --mono: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #171614; --raised: #201f1c; --ink: #e8e4dc; --soft: #9d968a; --line: #35322d;
    --good: #63c08f; --bad: #ec8375; --unsure: #d9ab4d; --tuned: #7fabe6; --base: #8f887c;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 var(--sans); font-variant-numeric: tabular-nums;
  -webkit-text-size-adjust: 100%;
}
main { max-width: 66rem; margin: 0 auto; padding: 3.5rem 2rem 5rem; }
header { padding-bottom: 2.25rem; border-bottom: 1px solid var(--line); }
h1 {
  margin: 0; font: 400 3.1rem/1.1 var(--serif); letter-spacing: -0.015em;
  display: flex; align-items: baseline; gap: 0.3em;
}
h1::before {
  content: ""; width: 0.36em; height: 0.36em; border-radius: 50%;
  background: var(--verdict); flex: none; transform: translateY(-0.16em);
}
.improved { --verdict: var(--good); } .regressed { --verdict: var(--bad); }
.inconclusive { --verdict: var(--unsure); }
.title { margin: 0.5rem 0 0; color: var(--soft); font-size: 0.95rem; overflow-wrap: anywhere; }
.reason { margin: 1.1rem 0 0; max-width: 46rem; font-size: 1.08rem; text-wrap: pretty; }
.reason + .reason { margin-top: 0.4rem; }
section { padding-top: 2.75rem; }
h2 { margin: 0 0 1rem; font: 400 1.5rem/1.2 var(--serif); letter-spacing: -0.005em; }
h3 {
  margin: 0 0 0.6rem; font-size: 0.8rem; font-weight: 600; color: var(--soft); line-height: 1.3;
}
p.note { margin: 0.75rem 0 0; color: var(--soft); font-size: 0.9rem; max-width: 46rem; }
table { width: 100%; border-collapse: collapse; font-size: 0.94rem; }
th {
  padding: 0 0 0.5rem 1rem; font-size: 0.8rem; font-weight: 500; color: var(--soft);
  text-align: right; vertical-align: bottom; white-space: nowrap;
}
td {
  padding: 0.55rem 0 0.55rem 1rem; border-top: 1px solid var(--line); text-align: right;
  white-space: nowrap;
}
th:first-child, td:first-child { padding-left: 0; text-align: left; white-space: normal; }
.narrow { max-width: 46rem; }
td small { display: block; color: var(--soft); font-size: 0.8rem; line-height: 1.35; }
td strong { font-weight: 600; }
.better strong { color: var(--good); } .worse strong, .breached strong { color: var(--bad); }
.span { width: 11rem; } th.span { text-align: center; }
.track { display: block; position: relative; height: 1.4rem; min-width: 8rem; }
.track i, .track b, .track u { position: absolute; display: block; }
.track::before {
  content: ""; position: absolute; left: 50%; top: 0; bottom: 0; border-left: 1px solid var(--soft);
  opacity: 0.55;
}
.track u { top: 0.1rem; bottom: 0.1rem; border-left: 1px dashed var(--bad); opacity: 0.8; }
.track i { top: calc(50% - 1px); height: 2px; border-radius: 1px; background: currentColor; }
.track b {
  top: calc(50% - 4px); width: 8px; height: 8px; margin-left: -4px; border-radius: 50%;
  background: currentColor; box-shadow: 0 0 0 2px var(--paper);
}
.better .track { color: var(--good); } .unclear .track { color: var(--base); }
.worse .track, .breached .track { color: var(--bad); }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 2rem 3rem; }
.chart { display: grid; grid-template-columns: 2.6rem 1fr; grid-template-rows: 15rem 1.6rem; }
.chart .y, .chart .x { position: relative; font-size: 0.8rem; color: var(--soft); }
.chart .y span { position: absolute; right: 0.6rem; transform: translateY(-50%); }
.chart .x { grid-column: 2; }
.chart .x span { position: absolute; top: 0.35rem; transform: translateX(-50%); }
.chart .x span.edge { transform: translateX(-100%); }
.plot { position: relative; }
.plot svg { position: absolute; inset: 0; width: 100%; height: 100%; overflow: visible; }
.plot svg * { vector-effect: non-scaling-stroke; fill: none; }
.grid { stroke: var(--line); stroke-width: 1; }
.raw { stroke: var(--tuned); stroke-width: 1; opacity: 0.32; }
.smooth { stroke: var(--tuned); stroke-width: 2; stroke-linejoin: round; }
.plot b {
  position: absolute; width: 7px; height: 7px; margin: -3.5px; border-radius: 50%;
  background: var(--paper); border: 2px solid var(--ink);
}
dl {
  margin: 0; display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr));
  column-gap: 2.5rem; font-size: 0.9rem;
}
dl div {
  display: flex; justify-content: space-between; gap: 1rem; padding: 0.35rem 0;
  border-top: 1px solid var(--line);
}
dt { color: var(--soft); } dd { margin: 0; text-align: right; overflow-wrap: anywhere; }
.bars { display: grid; gap: 0.55rem; font-size: 0.9rem; }
.bar { display: grid; grid-template-columns: 1fr auto; column-gap: 1rem; }
.bar > span:nth-child(2) { color: var(--soft); } .bar em { font-style: normal; color: var(--ink); }
.bar s { grid-column: 1 / -1; height: 5px; margin-top: 3px; background: var(--raised); }
.bar s i { display: block; height: 100%; min-width: 1px; background: var(--base); }
.bar.all { font-weight: 600; } .bar.kept s i { background: var(--tuned); }
article { padding: 1.5rem 0 1.75rem; border-top: 1px solid var(--line); }
article > p {
  margin: 0 0 0.75rem; font-size: 0.9rem; display: flex; gap: 0.75rem; flex-wrap: wrap;
}
article > p b { font-weight: 600; }
article > p span { color: var(--soft); overflow-wrap: anywhere; }
.won > p b { color: var(--good); } .lost > p b { color: var(--bad); }
.texts { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; margin-top: 0.75rem; }
figure { margin: 0; min-width: 0; }
figcaption { font-size: 0.8rem; color: var(--soft); margin-bottom: 0.3rem; }
figcaption b { color: var(--ink); font-weight: 600; }
pre {
  margin: 0; padding: 0.8rem 0.95rem; max-height: 24rem; overflow: auto; background: var(--raised);
  border-radius: 4px; font: 0.8rem/1.5 var(--mono); white-space: pre-wrap; overflow-wrap: anywhere;
  unicode-bidi: isolate; direction: ltr; tab-size: 4;
}
details summary { cursor: pointer; font-size: 0.85rem; color: var(--soft); }
details[open] summary { margin-bottom: 0.5rem; }
.origin { border-top: 1px solid var(--line); padding: 0.55rem 0; }
.origin summary { color: var(--ink); font-size: 0.94rem; }
.origin summary b { font-weight: 600; } .origin dl { margin: 0.5rem 0 0.75rem; }
.origin summary span { color: var(--soft); margin-left: 0.6rem; overflow-wrap: anywhere; }
.origin .when { white-space: nowrap; }
code { font: 0.85em var(--mono); color: var(--soft); }
details pre { margin-bottom: 0.75rem; }
ul { margin: 0; padding-left: 1.1rem; max-width: 46rem; } li { margin: 0.25rem 0; }
@media (max-width: 46rem) {
  main { padding: 2rem 1.15rem 3.5rem; }
  h1 { font-size: 2.4rem; } .reason { font-size: 1rem; } section { padding-top: 2.25rem; }
  .pair, .texts { grid-template-columns: minmax(0, 1fr); }
  .compare thead { position: absolute; clip-path: inset(50%); height: 1px; overflow: hidden; }
  .compare, .compare tbody { display: block; }
  .compare tr {
    display: grid; grid-template-columns: 1fr 1fr 1fr; gap: 0.35rem 0.75rem; padding: 0.9rem 0;
    border-top: 1px solid var(--line);
  }
  .compare td { display: block; border: 0; padding: 0; text-align: left; width: auto; }
  .compare td:first-child, .compare .span { grid-column: 1 / -1; }
  .compare .wide { grid-column: span 2; }
  .compare td[data-is]::before {
    content: attr(data-is); display: block; color: var(--soft); font-size: 0.75rem;
  }
  .chart { grid-template-rows: 11rem 1.6rem; }
  .costs th, .costs td { padding-left: 0.55rem; font-size: 0.8rem; white-space: normal; }
}
@media print { pre { max-height: none; } article { break-inside: avoid; } }
"""

PAGE = (
    """<!doctype html>
<html lang="en" class="{{ verdict }}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'">
<meta name="color-scheme" content="light dark">
<title>{{ verdict | capitalize }}{{ ": " + title if title else "" }}</title>
<style>"""
    + STYLE
    + """</style>
</head>
<body>
<main>
<header>
<h1>{{ verdict | capitalize }}</h1>
{% if title %}<p class="title">{{ title }}</p>{% endif %}
{% for reason in reasons %}<p class="reason">{{ reason }}</p>
{% endfor %}
</header>

{% if comparisons %}
<section>
<h2>Before and after</h2>
<table class="compare">
<thead><tr><th>Measured</th><th>Base</th><th>Tuned</th><th>Difference</th>
<th class="span">worse&ensp;|&ensp;better</th><th>95 % interval</th><th>p (Holm)</th></tr></thead>
<tbody>
{% for c in comparisons %}
<tr class="{{ c.outcome }}">
<td>{{ c.name | upper_first }}
<small>{{ c.on }}, {{ c.units }}</small></td>
<td data-is="Base">{{ c.base }}</td>
<td data-is="Tuned">{{ c.tuned }}</td>
<td data-is="Difference"><strong>{{ c.difference }}</strong><small>{{ c.unit }}</small></td>
<td class="span">{% if c.span %}<span class="track" aria-hidden="true">
{% if c.span.margin is not none %}<u style="left:{{ c.span.margin }}%"></u>{% endif %}
<i style="left:{{ c.span.left }}%;width:{{ c.span.width }}%"></i>
<b style="left:{{ c.span.dot }}%"></b></span>{% endif %}</td>
<td class="wide" data-is="95 % interval">
{% if c.interval %}{{ c.interval[0] }} to {{ c.interval[1] }}{% else %}none{% endif %}
{% if c.margin %}<small>margin {{ c.margin }}</small>{% endif %}</td>
<td data-is="p (Holm)">{{ c.p }}</td>
</tr>
{% endfor %}
</tbody>
</table>
{% for note in notes %}<p class="note">{{ note }}</p>
{% endfor %}
</section>
{% endif %}

{% if also %}
<section>
<h2>Also measured</h2>
<table class="narrow">
<thead><tr><th>Value</th><th>Base</th><th>Tuned</th></tr></thead>
<tbody>
{% for what, on, base, tuned in also %}
<tr><td>{{ what | upper_first }}<small>{{ on }}</small></td>
<td>{{ base }}</td><td>{{ tuned }}</td></tr>
{% endfor %}
</tbody>
</table>
</section>
{% endif %}

{% if curve or training %}
<section>
<h2>Training</h2>
{% if curve %}
<div class="chart" role="img" aria-label="Training loss from {{ "%.3f" | format(curve.first) }} to
 {{ "%.3f" | format(curve.last) }} nats a token">
<div class="y">
{% for t in curve.y %}<span style="top:{{ t.at }}%">{{ t.label }}</span>
{% endfor %}
</div>
<div class="plot">
<svg viewBox="0 0 100 100" preserveAspectRatio="none">
{% for t in curve.y %}
<line class="grid" x1="0" x2="100" y1="{{ t.at }}" y2="{{ t.at }}"/>
{% endfor %}
<polyline class="raw" points="{{ curve.raw }}"/>
<polyline class="smooth" points="{{ curve.smooth }}"/>
</svg>
{% for x, y in curve.validation %}<b style="left:{{ x }}%;top:{{ y }}%"></b>
{% endfor %}
</div>
<div class="x">
{% for t in curve.x %}
<span style="left:{{ t.at }}%"{% if t.at > 97 %} class="edge"{% endif %}>{{ t.label }}</span>
{% endfor %}
</div>
</div>
<p class="note">Loss in nats a token over optimizer steps: each logged step, and the moving mean
({{ "%.3f" | format(curve.first) }} in the first tenth,
{{ "%.3f" | format(curve.last) }} in the last).
{% if curve.validation %}Dots: validation loss.{% endif %}
{% if held_out %}{{ " " }}On the test split, which training never sees: {{ held_out[0] }} before,
{{ held_out[1] }} after.{% endif %}</p>
{% endif %}
{% if training %}
<dl style="margin-top:1.5rem">
{% for name, value in training %}<div><dt>{{ name }}</dt><dd>{{ value }}</dd></div>
{% endfor %}
</dl>
{% endif %}
</section>
{% endif %}

{% if funnel or splits %}
<section>
<h2>Data</h2>
<div class="pair">
{% if funnel %}
<div>
<h3>What the filter kept</h3>
<div class="bars">
<div class="bar all"><span>rows in</span><span><em>{{ "{:,}".format(funnel.rows_in) }}</em></span>
<s><i style="width:100%"></i></s></div>
<div class="bar all kept"><span>kept</span>
<span><em>{{ "{:,}".format(funnel.kept) }}</em>&ensp;{{ funnel.kept_percent }} %</span>
<s><i style="width:{{ funnel.kept_percent }}%"></i></s></div>
{% for r in funnel.reasons %}
<div class="bar"><span>{{ r.rule }}</span>
<span><em>{{ "{:,}".format(r.rows) }}</em>&ensp;{{ "%.1f" | format(r.percent) }} %</span>
<s><i style="width:{{ r.percent }}%"></i></s></div>
{% endfor %}
</div>
{% if funnel.reasons %}
<p class="note">A row that fails several rules counts under each of them.</p>
{% endif %}
</div>
{% endif %}
{% if splits %}
<div>
<h3>Splits</h3>
<table>
<thead><tr><th>Split</th><th>Rows</th><th>Tokens</th><th>Projects</th></tr></thead>
<tbody>
{% for s in splits %}
<tr><td>{{ s.name }}</td><td>{{ "{:,}".format(s.rows) }}</td><td>{{ "{:,}".format(s.tokens) }}</td>
<td>{{ "{:,}".format(s.projects) if s.projects else "–" }}</td></tr>
{% endfor %}
</tbody>
</table>
{% if licences %}
<h3 style="margin-top:2rem">Licences of the training rows</h3>
<div class="bars">
{% for name, rows, percent in licences %}
<div class="bar"><span>{{ name }}</span>
<span><em>{{ "{:,}".format(rows) }}</em>&ensp;{{ percent }} %</span>
<s><i style="width:{{ percent }}%"></i></s></div>
{% endfor %}
</div>
{% endif %}
</div>
{% endif %}
</div>
</section>
{% endif %}

{% if answers %}
<section>
<h2>Answers side by side</h2>
{% if flips.won or flips.lost %}
<p class="note" style="margin:0 0 1.25rem">{{ flips.won }} went from fail to pass,
{{ flips.lost }} from pass to fail.</p>
{% endif %}
{% for a in answers %}
<article class="{{ a.kind }}">
<p><b>{{ a.label }}</b><span>{{ a.id }}</span></p>
<details{% if a.kind != "same" %} open{% endif %}>
<summary>Prompt</summary><pre>{{ a.prompt }}</pre></details>
{% if a.reference %}
<details><summary>Reference answer</summary><pre>{{ a.reference }}</pre></details>
{% endif %}
<div class="texts">
{% for who, answer in [("Base", a.base), ("Tuned", a.tuned)] %}
<figure>
<figcaption><b>{{ who }}</b>
{% if answer.verdict %}· {{ answer.verdict }}{% endif %} · {{ "{:,}".format(answer.tokens) }} tokens
{% if answer.cut %}· {{ answer.cut }}{% endif %}</figcaption>
<pre>{{ answer.text }}</pre>
{% if answer.detail %}<p class="note">{{ answer.detail }}</p>{% endif %}
</figure>
{% endfor %}
</div>
</article>
{% endfor %}
{% if left %}
<p class="note">{{ "{:,}".format(left) }} more stand in generations.parquet beside this page.</p>
{% endif %}
</section>
{% endif %}

{% if lineage %}
<section>
<h2>Lineage</h2>
{% for o in lineage %}
<details class="origin">
<summary><b>{{ o.stage }}</b> <code>{{ o.key }}</code>
<span>{{ o.line }}</span><span class="when">{{ o.time }}</span></summary>
<dl>
{% if o.created %}<div><dt>made</dt><dd>{{ o.created }}</dd></div>{% endif %}
{% if o.commit %}<div><dt>commit</dt><dd>{{ o.commit }}</dd></div>{% endif %}
{% for name, value in o.parts %}<div><dt>{{ name }}</dt><dd>{{ value }}</dd></div>
{% endfor %}
</dl>
</details>
{% endfor %}
<p class="note">The artifacts that this evaluation rests on, with what their keys are made of; its
own key stands in manifest.json beside this page.</p>
</section>
{% endif %}

<section>
<h2>How it was measured</h2>
{% if costs %}
<table class="costs">
<thead>
<tr><th>Part</th><th>Time</th><th>Tokens</th><th>Tokens/s</th><th>Peak memory</th></tr>
</thead>
<tbody>
{% for c in costs %}
<tr><td>{{ c.what | upper_first }}</td><td>{{ c.seconds }}</td>
<td>{{ "{:,}".format(c.tokens) if c.tokens else "–" }}</td>
<td>{{ "{:,.0f}".format(c.rate) if c.rate else "–" }}</td>
<td>{{ "%.2f GiB" | format(c.memory) if c.memory is not none else "–" }}</td></tr>
{% endfor %}
</tbody>
</table>
{% endif %}
<p class="note">
{% if sandbox %}Generated code ran in the sandbox “{{ sandbox }}”.
{% else %}No generated code was run.
{% endif %}
Intervals of losses and token accuracy: paired bootstrap over projects. pass@1 and exact match:
exact McNemar, or bootstrap over problems where there are several attempts each.
p is corrected over all rows of the first table (Holm). A difference counts below 0.05; the dashed
line is how much worse a guarded value may be.</p>
{% if not_measured %}
<h3 style="margin-top:1.5rem">Not measured</h3>
<ul>{% for sentence in not_measured %}<li>{{ sentence }}</li>{% endfor %}</ul>
{% endif %}
{% if settings %}
<h3 style="margin-top:1.5rem">Settings</h3>
<dl>
{% for name, value in settings %}<div><dt>{{ name }}</dt><dd>{{ value }}</dd></div>
{% endfor %}
</dl>
{% endif %}
</section>
</main>
</body>
</html>
"""
)

MARKDOWN = """# {{ verdict | capitalize }}{{ ": " + title | md if title else "" }}

{% for reason in reasons %}
{{ reason | md }}

{% endfor %}
{% if comparisons %}
## Before and after

| Measured | Base | Tuned | Difference | worse │ better | 95 % interval | p (Holm) |
|---|--:|--:|--:|:-:|--:|--:|
{% for c in comparisons %}
| {{ c.name }}, {{ c.on | md }}, {{ c.units }} | {{ c.base }} | {{ c.tuned }} \
| {{ c.difference }} {{ c.unit }} | {{ c.span | bar }} \
| {% if c.interval %}{{ c.interval[0] }} to {{ c.interval[1] }}{% else %}none{% endif %} \
{% if c.margin %}(margin {{ c.margin }}) {% endif %}| {{ c.p }} |
{% endfor %}

{% endif %}
{% for note in notes %}
{{ note | md }}

{% endfor %}
{% if also %}
| Also measured | Base | Tuned |
|---|--:|--:|
{% for what, on, base, tuned in also %}
| {{ what }}, {{ on | md }} | {{ base }} | {{ tuned }} |
{% endfor %}

{% endif %}
{% if few %}
## Answers

{% if flips.won or flips.lost %}
{{ flips.won }} problems went from fail to pass, {{ flips.lost }} from pass to fail.

{% endif %}
{% for a in few %}
### {{ a.label | capitalize }}: {{ a.id | md }}

{{ a.prompt | fenced }}

{% for who, answer in [("Base", a.base), ("Tuned", a.tuned)] %}
{{ who }}{% if answer.verdict %}, {{ answer.verdict | md }}{% endif %}, \
{{ "{:,}".format(answer.tokens) }} tokens\
{% if answer.cut %}, {{ answer.cut }}{% endif %}\
{% if answer.detail %}: {{ answer.detail | md }}{% endif %}


{{ answer.text | fenced }}

{% endfor %}
{% endfor %}
More of them, and whole, in report.html beside this text.

{% endif %}
{% if funnel %}
## Data

{{ "{:,}".format(funnel.kept) }} of {{ "{:,}".format(funnel.rows_in) }} rows kept \
({{ funnel.kept_percent }} %).

{% if funnel.reasons %}
| Rule | Rows | Share |
|---|--:|--:|
{% for r in funnel.reasons %}
| {{ r.rule | md }} | {{ "{:,}".format(r.rows) }} | {{ "%.1f" | format(r.percent) }} % |
{% endfor %}

{% endif %}
{% endif %}
{% if splits %}
| Split | Rows | Tokens |
|---|--:|--:|
{% for s in splits %}
| {{ s.name | md }} | {{ "{:,}".format(s.rows) }} | {{ "{:,}".format(s.tokens) }} |
{% endfor %}

{% endif %}
{% if licences %}
| Licence of training rows | Rows | Share |
|---|--:|--:|
{% for name, rows, percent in licences %}
| {{ name | md }} | {{ "{:,}".format(rows) }} | {{ percent }} % |
{% endfor %}

{% endif %}
{% if training %}
## Training

| | |
|---|--:|
{% for name, value in training %}
| {{ name | md }} | {{ value | md }} |
{% endfor %}

{% endif %}
{% if lineage %}
## Lineage

| Stage | Artifact | Made | Time |
|---|---|---|--:|
{% for o in lineage %}
| {{ o.stage | md }} | {{ o.key | md }} | {{ o.line | md }} | {{ o.time }} |
{% endfor %}

What the keys are made of:

{% for o in lineage %}
- {{ o.stage | md }}: {% for name, value in o.parts %}{{ name | md }} {{ value | md }}\
{% if not loop.last %}; {% endif %}{% endfor %}

{% endfor %}

{% endif %}
## How it was measured

{% for c in costs %}
- {{ c.what | md }}: {{ c.seconds }}\
{% if c.rate %}, {{ "{:,.0f}".format(c.rate) }} tokens/s{% endif %}\
{% if c.memory is not none %}, peak {{ "%.2f" | format(c.memory) }} GiB{% endif %}

{% endfor %}
- {% if sandbox %}sandbox: {{ sandbox | md }}{% else %}no generated code was run{% endif %}

{% for sentence in not_measured %}
- not measured: {{ sentence | md }}
{% endfor %}
"""
