"""The style of the page: light and dark as the reader's system has it, readable in a narrow window and on paper."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --ground: #ffffff; --soft: #f4f6f9; --line: #dfe3ea; --text: #1c2230;
  --faint: #626b7c; --good: #1d7f4b; --bad: #c2322d; --wait: #a8680a; --other: #6b7280; --lane: #eef1f6;
  --trouble: #d93b36; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #14171d; --soft: #1c2129; --line: #313947; --text: #e6e9ef; --faint: #9aa4b5; --good: #4cc38a;
    --bad: #ff7a74; --wait: #e0a340; --other: #9ca3af; --lane: #1f252f; --trouble: #ff6b64; }
  .graph svg { background: #f7f8fa; border-radius: 6px; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 24px 20px 60px; max-width: 1280px; background: var(--ground); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
h1 { margin: 0; font-size: 26px; overflow-wrap: anywhere; }
h2 { margin: 36px 0 10px; font-size: 18px; }
p { margin: 4px 0 10px; }
.faint, small { color: var(--faint); }
code, pre { font: 13px/1.45 ui-monospace, "Cascadia Mono", Menlo, Consolas, monospace; }
header { display: flex; flex-wrap: wrap; gap: 8px 16px; align-items: baseline; }
.badge { padding: 2px 10px; border-radius: 99px; font-weight: 600; font-size: 13px; border: 1.5px solid currentColor;
  white-space: nowrap; }
.success, .cached, .given { color: var(--good); } .failed, .timed_out { color: var(--bad); }
.upstream_failed, .cancelled { color: var(--wait); } .skipped, .waiting, .dry_run { color: var(--other); }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 10px; margin: 18px 0 0; }
.facts div { padding: 10px 14px; border-radius: 8px; background: var(--soft); border: 1px solid var(--line); }
.facts b { display: block; font-size: 20px; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.facts span { color: var(--faint); font-size: 13px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 14px; }
th { text-align: left; color: var(--faint); font-weight: 600; border-bottom: 2px solid var(--line); }
td { border-bottom: 1px solid var(--line); vertical-align: top; }
th, td { padding: 5px 12px 5px 0; } .n { text-align: right; white-space: nowrap; }
td:first-child { overflow-wrap: anywhere; min-width: 9em; } td.note { min-width: 16em; }
.bar { height: 6px; min-width: 60px; border-radius: 3px; background: var(--lane); margin-top: 8px; }
.bar i { display: block; height: 100%; min-width: 1px; border-radius: 3px; background: #5b8def; }
details { border: 1px solid var(--line); border-radius: 8px; margin: 8px 0; background: var(--soft); }
summary { padding: 8px 14px; cursor: pointer; overflow-wrap: anywhere; }
details .scroll { padding: 4px 14px 10px; background: var(--ground); border-top: 1px solid var(--line); }
details pre { margin: 0; padding: 10px 14px; overflow-x: auto; border-top: 1px solid var(--line);
  background: var(--ground); border-radius: 0 0 8px 8px; max-height: 34em; }
.graph { overflow: auto; max-height: 640px; border: 1px solid var(--line); border-radius: 8px; padding: 8px; }
.graph svg { display: block; margin: 0 auto; }
.graph pre { margin: 0; }
.lane { display: grid; grid-template-columns: 88px 1fr 52px; gap: 8px; align-items: center; margin: 3px 0;
  font-size: 12px; color: var(--faint); font-variant-numeric: tabular-nums; }
.lane > b { font-weight: 500; white-space: nowrap; } .lane > span { text-align: right; }
.track { position: relative; height: 20px; background: var(--lane); border-radius: 3px; overflow: hidden; }
.track i { position: absolute; top: 1px; bottom: 1px; min-width: 1px; overflow: hidden; border-radius: 2px;
  white-space: nowrap; font: normal 11px/18px system-ui, sans-serif; color: #10203c; padding: 0; text-indent: 3px; }
.track i.w { box-shadow: inset -1px 0 var(--lane); }
.track i.x { outline: 2px solid var(--trouble); outline-offset: -2px; }
.axis .track { height: 18px; background: none; overflow: visible; }
.axis .track i { font: normal 11px/18px system-ui, sans-serif; color: var(--faint); border-left: 1px solid var(--line);
  border-radius: 0; overflow: visible; }
.axis .track i:last-child { border-left: 0; border-right: 1px solid var(--line); }
.load { display: block; width: 100%; height: 44px; background: var(--lane); border-radius: 3px; }
.load path { fill: #5b8def; opacity: .75; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 8px 0 0; font-size: 13px; color: var(--faint); }
.legend i { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 6px; }
.k0 { background: #8ab4f8; } .k1 { background: #a7d49b; } .k2 { background: #f6c177; } .k3 { background: #c4a7e7; }
.k4 { background: #7dd3d0; } .k5 { background: #f2a3b3; } .k6 { background: #d6c98f; } .k7 { background: #9fb3c8; }
.k8 { background: #b8d8f0; } .k9 { background: #dcb8a0; }
footer { margin-top: 44px; color: var(--faint); font-size: 13px; }
@media (max-width: 640px) {
  body { padding: 16px 12px 40px; font-size: 14px; }
  .facts { grid-template-columns: repeat(2, 1fr); gap: 8px; }
  .facts b { font-size: 17px; }
  .bar { display: none; }
  .lane { grid-template-columns: 24px 1fr 40px; } .lane > b em { display: none; }
}
@media print { details { break-inside: avoid; } .graph { max-height: none; } body { max-width: none; } }
"""
