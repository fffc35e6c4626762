"""The style sheet of every page: light, dark and print."""

CSS = """
:root {
  color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --ink: #1b2127; --muted: #59636e; --line: #e2e6eb; --soft: #eef1f4;
  --ours: #0072b2; --paper: #b4bcc6; --val: #d08a00; --test: #1f9d76;
  --good: #0b7a55; --good-soft: #e1f4ec; --warn: #8a5a00; --warn-soft: #fdf1d8; --bad: #b3261e; --bad-soft: #fce8e6;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #11151a; --card: #191f26; --ink: #e6eaee; --muted: #9ba6b2; --line: #2b333d; --soft: #222a33;
    --ours: #56b4e9; --paper: #56616d; --val: #e6a93c; --test: #3cc499;
    --good: #6fdcb2; --good-soft: #15372b; --warn: #f3c677; --warn-soft: #3b2f14; --bad: #ff9d94; --bad-soft: #43201d;
  }
}
* { box-sizing: border-box; }
html { scroll-padding-top: 1rem; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif;
}
main { max-width: 1240px; margin: 0 auto; padding: 2.2rem 1.5rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.01em; }
h2 { font-size: 1.25rem; margin: 2.8rem 0 .4rem; }
h3 { font-size: 1.08rem; margin: 0; }
p { margin: .4rem 0; max-width: 80ch; }
a { color: var(--ours); text-decoration-thickness: 1px; text-underline-offset: 2px; }
.muted, small, caption { color: var(--muted); }
small { font-size: .82em; font-weight: 400; }
code { font: .88em ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; margin-top: 1rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: .8rem; margin: 1.5rem 0 0; }
.tile, .card {
  background: var(--card); border: 1px solid var(--line); border-radius: 10px;
}
.tile { padding: .8rem 1rem; }
.tile b { display: block; font-size: 1.5rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.card { padding: 1.1rem 1.25rem; margin: .9rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .87rem; }
th, td { padding: .38rem .6rem; text-align: left; vertical-align: middle; border-bottom: 1px solid var(--line); }
th { font-weight: 600; color: var(--muted); white-space: nowrap; }
thead tr:last-child th { border-bottom: 2px solid var(--line); }
th.group { text-align: center; border-bottom: 1px solid var(--line); }
tbody th { color: var(--ink); white-space: normal; min-width: 9rem; }
tfoot td, tfoot th { border-top: 2px solid var(--line); border-bottom: 0; font-weight: 600; color: var(--ink); }
td.n, th.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
tr.absent td, tr.absent th { color: var(--muted); font-weight: 400; }
.badge {
  display: inline-block; padding: .05rem .5rem; border-radius: 7px; font-size: .78rem; font-weight: 500;
  background: var(--soft); color: var(--muted);
}
.badge.good { background: var(--good-soft); color: var(--good); }
.badge.warn { background: var(--warn-soft); color: var(--warn); }
.badge.bad { background: var(--bad-soft); color: var(--bad); }
.sides { display: flex; height: 7px; width: 110px; border-radius: 4px; overflow: hidden; background: var(--soft); }
.sides i { background: var(--ours); } .sides i.val { background: var(--val); }
.sides i.test { background: var(--test); }
.key {
  display: inline-block; width: .75em; height: .75em; border-radius: 3px; margin-right: .4em; vertical-align: -.03em;
  box-shadow: 0 0 0 1px var(--line);
}
.key.ours { background: var(--ours); } .key.paper { background: var(--paper); }
.key.val { background: var(--val); } .key.test { background: var(--test); }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.3rem; font-size: .87rem; margin: .5rem 0; }
.bars td { padding: .3rem .6rem; } .bars td.plot { width: 70%; padding-right: 0; }
.bars i { display: block; height: 9px; border-radius: 0 3px 3px 0; background: var(--ours); margin: 2px 0; }
.bars i.paper { background: var(--paper); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(380px, 1fr)); gap: 1rem; }
.chart { width: 100%; height: auto; display: block; }
.chart text { font-size: 12.5px; fill: var(--muted); }
.chart .grid { stroke: var(--line); } .chart .bar { fill: var(--ours); }
.chart .disc { fill: var(--ours); fill-opacity: .35; stroke: var(--card); stroke-width: .6; }
.range { position: relative; height: 12px; width: 100%; min-width: 180px; background: var(--soft); border-radius: 6px; }
.range i { position: absolute; top: 3px; height: 6px; border-radius: 3px; background: var(--ours); opacity: .45; }
.range b {
  position: absolute; top: 0; height: 12px; width: 4px; margin-left: -2px; border-radius: 2px; background: var(--ours);
}
.set header { display: flex; flex-wrap: wrap; align-items: baseline; gap: .2rem .8rem; }
.strip { display: flex; flex-wrap: wrap; gap: .6rem; margin: .8rem 0 .5rem; }
/* A caption is as wide as its picture. */
.strip figure { margin: 0; display: table; }
.strip img { height: 176px; width: auto; max-width: 100%; border-radius: 6px; display: block; background: #000; }
.strip figcaption {
  font-size: .74rem; line-height: 1.35; color: var(--muted); overflow-wrap: anywhere;
  display: table-caption; caption-side: bottom;
}
dl { display: grid; grid-template-columns: 8.5rem 1fr; gap: .3rem 1rem; margin: .7rem 0 0; font-size: .88rem; }
dt { color: var(--muted); } dd { margin: 0; overflow-wrap: anywhere; }
dd ul, details ul { margin: .2rem 0; padding-left: 1.1rem; }
summary { cursor: pointer; }
@media (max-width: 620px) {
  main { padding: 1.2rem .9rem 3rem; } dl { grid-template-columns: 1fr; } dd { margin-bottom: .4rem; }
  .charts { grid-template-columns: 1fr; } .strip img { height: 130px; } .bars td.plot { width: 45%; }
}
@media print {
  :root {
    color-scheme: light;
    --page: #fff; --card: #fff; --ink: #000; --muted: #444; --line: #ccc; --soft: #eee; --ours: #0072b2;
    --paper: #b4bcc6; --val: #d08a00; --test: #1f9d76; --good: #0b7a55; --good-soft: #fff; --warn: #8a5a00;
    --warn-soft: #fff; --bad: #b3261e; --bad-soft: #fff;
  }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  body { font-size: 10px; } main { max-width: none; padding: 0; } nav { display: none; }
  .scroll { overflow: visible; } .composition table { font-size: 7px; } th, td { padding: .2rem .3rem; }
  .card, .tile { border-radius: 0; } .strip img { height: 92px; }
  tr, .strip figure, .set header, .chart { break-inside: avoid; } h2, h3, header { break-after: avoid; }
}
"""
