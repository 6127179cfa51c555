"""Words and style of the report's page."""

METHOD = (
    "<details><summary>How scores, intervals and differences are made</summary><p>Scores are ± one standard error; intervals are 95 %, from 2000 bootstrap resamples of whole units (questions; all "
    "rotations of an MMBench question; both questions of an MME picture; all questions of a POPE picture). "
    "<b>Delta, same questions</b> is the best cell of the sweep minus the stock model on the questions that the cell was chosen "
    "by, which flatters it, and its interval does not know of the choice; this is how the paper reports. "
    "<b>Delta, held out</b> chooses on one half of the questions and reports on the other, each half serving in turn: the "
    "difference between the two is what reporting the best of a sweep adds. A star marks intervals that leave zero out.</p></details>"
)

STYLE = r"""
body{font:15px/1.55 system-ui,-apple-system,'Segoe UI',sans-serif;color:#1c1f23;max-width:1180px;margin:2.5rem auto;padding:0 1.5rem}
h1{font-size:1.7rem;margin:0 0 1rem}h2{font-size:1.2rem;margin:2.6rem 0 .4rem;padding-top:1rem;border-top:1px solid #e3e6ea}
p,.text{max-width:86ch;margin:.4rem 0 1rem;color:#43494f}p.file{font:12px ui-monospace,monospace;color:#8a9199;margin:.2rem 0 1.4rem}
.wide,.figure{overflow-x:auto}
.wide{background:linear-gradient(90deg,#fff 30%,#fff0) 0 0/3rem 100% local no-repeat,linear-gradient(270deg,#fff 30%,#fff0) 100% 0/3rem 100% local no-repeat,
linear-gradient(90deg,#0005,#0000) 0 0/1rem 100% scroll no-repeat,linear-gradient(270deg,#0005,#0000) 100% 0/1rem 100% scroll no-repeat}
table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}
th{font-weight:600;text-align:right;vertical-align:bottom;padding:.35rem .7rem;border-bottom:2px solid #cfd5db;min-width:3.2rem}
td{text-align:right;padding:.3rem .7rem;border-bottom:1px solid #edf0f2;white-space:nowrap}td:nth-child(9){white-space:normal;min-width:7rem}
th:first-child,td:first-child{text-align:left;padding-left:0;white-space:normal;min-width:11rem}
td.gain{color:#1f7a43;font-weight:600}td.loss{color:#b03a2e;font-weight:600}
img{max-width:100%;height:auto;display:block;margin:1rem 0}summary{cursor:pointer;color:#2b5fa8;margin:.4rem 0}
.short{display:flex;flex-wrap:wrap;gap:0 1.5rem}.short .figure{flex:0 1 22rem}
@media(max-width:40rem){body{margin:1rem auto;padding:0 .8rem}section:not(.first) .figure img{max-width:none;width:38rem}
section:not(.first) .figure::before,.wide::before{content:'scrolls sideways \2192';position:sticky;left:0;font-size:12px;color:#2b5fa8}}
footer{margin:3rem 0 1rem;color:#8a9199;font-size:12px}
"""
