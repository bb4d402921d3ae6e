"""The style of the status page. It follows the theme of the reader's system.

On a narrow screen the picture scrolls. It is laid out from right to left, so the latest hours show first.
"""

from typing import Final

STYLE: Final = """
:root{color-scheme:light dark;--ground:#f6f7f9;--card:#fff;--text:#1a1f27;--dim:#586173;--line:#d8dde6;
--good:#0f7040;--good-ground:#e4f5ec;--wait:#7d5200;--wait-ground:#fff2d6;--bad:#b1151f;--bad-ground:#fde8e8;
--bar:#2f6fde;--link:#1a56c4}
@media (prefers-color-scheme:dark){:root{
--ground:#101319;--card:#181c24;--text:#e8ebf1;--dim:#9fa9ba;--line:#323947;
--good:#6fdca2;--good-ground:#11301f;--wait:#f3c263;--wait-ground:#36290f;
--bad:#ff9a9a;--bad-ground:#401a1d;
--bar:#6ea1ff;--link:#8fb8ff}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--text);font:16px/1.5 system-ui,sans-serif}
header,main,footer{max-width:58rem;margin:0 auto;padding:0 1rem}
header{padding-top:1.5rem}
header p{margin:0;color:var(--dim)}
h1{margin:0 0 1rem;font-size:1.5rem;line-height:1.25;overflow-wrap:anywhere}
h2{margin:0 0 .5rem;font-size:1.1rem}
section{margin:0 0 1rem;padding:1rem;background:var(--card);border:1px solid var(--line);
border-radius:.5rem}
section p,section ul{margin:.25rem 0}
.state{border-width:2px}
.state h2{font-size:1.35rem}
.state p{overflow-wrap:anywhere}
.good{color:var(--good);background:var(--good-ground);border-color:currentColor}
.wait{color:var(--wait);background:var(--wait-ground);border-color:currentColor}
.bad{color:var(--bad);background:var(--bad-ground);border-color:currentColor}
dl{margin:.5rem 0 0}
dl div{display:grid;grid-template-columns:14rem 1fr;gap:0 1rem;padding:.3rem 0;
border-top:1px solid var(--line)}
dt{color:var(--dim);min-width:0;overflow-wrap:anywhere}
dd{margin:0;min-width:0;overflow-wrap:anywhere}
code{font:.9em ui-monospace,monospace;overflow-wrap:anywhere}
a{color:var(--link)}
ul{padding-left:1.2rem}
li{overflow-wrap:anywhere}
svg{display:block;width:100%;height:auto;min-width:34rem}
section>div{overflow-x:auto;direction:rtl}
svg{direction:ltr}
svg text{fill:var(--dim);font:11px system-ui,sans-serif}
.side{text-anchor:end}
.bar{fill:var(--bar)}
.unknown{fill:var(--line);opacity:.5}
.grid,.tick{stroke:var(--line)}
.promised{stroke:var(--dim);stroke-dasharray:5 4}
summary{cursor:pointer}
table{border-collapse:collapse;margin-top:.5rem}
th,td{padding:.15rem 1.5rem .15rem 0;text-align:left;font-variant-numeric:tabular-nums}
td+td,th+th{text-align:right}
footer{padding-bottom:2rem;color:var(--dim);font-size:.9rem}
@media (max-width:40rem){dl div{grid-template-columns:1fr}}
"""
