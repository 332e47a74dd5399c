"""How the page looks, and the one small script it can do without."""

from __future__ import annotations

STYLE = """
:root{color-scheme:light dark;--paper:#fbfaf6;--ink:#22282b;--soft:#5d666a;--rule:#d9d6cb;
--tint:#efede5;--accent:#1f6470;--alert:#9c2f1b;--alert-tint:#f7e6df;--map:#e4e1d6}
@media (prefers-color-scheme:dark){:root{--paper:#14181a;--ink:#e3e2db;--soft:#9aa3a5;--rule:#343b3e;--tint:#1d2326;
--accent:#7fc0c8;--alert:#f0a48f;--alert-tint:#3a2019;--map:#0d1011}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;overflow-wrap:break-word;background:var(--paper);color:var(--ink);
font:1rem/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue","Noto Sans","Liberation Sans",Arial,sans-serif;font-variant-numeric:tabular-nums}
main,header,footer{max-width:70rem;margin:0 auto;padding:0 1.25rem}
header{padding-top:2.5rem}
h1{font-size:clamp(1.6rem,1.2rem + 2vw,2.4rem);line-height:1.15;letter-spacing:-.015em;font-weight:600;margin:0;
overflow-wrap:anywhere;text-wrap:balance}
h2{font-size:1.25rem;line-height:1.3;letter-spacing:-.005em;font-weight:600;margin:0 0 1rem}
h3{font-size:1rem;font-weight:600;margin:1.75rem 0 .5rem}
p{margin:.5rem 0;max-width:42rem}
.eyebrow{margin:0 0 .35rem;color:var(--accent);font-size:.875rem;font-weight:600}
.lead{color:var(--soft);margin:.6rem 0 0;max-width:none;overflow-wrap:anywhere}
.lead span+span::before{content:"\\00b7";margin:0 .5em}
nav ul{list-style:none;display:flex;flex-wrap:wrap;gap:.25rem 1.25rem;margin:1.25rem 0 0;padding:0;font-size:.9375rem}
a{color:var(--accent);text-underline-offset:.18em;text-decoration-thickness:1px}
:focus-visible{outline:2px solid var(--accent);outline-offset:3px}
section{margin-top:2.75rem;padding-top:1.25rem;border-top:1px solid var(--rule)}
section.bare{margin-top:1.75rem;padding-top:0;border-top:0}
.alert,.notes{margin-top:1.5rem;padding:.85rem 1.1rem;border-left:4px solid var(--accent);background:var(--tint)}
.alert{border-color:var(--alert);background:var(--alert-tint)}
.alert h2{margin:0;font-size:1rem;color:var(--alert)}
.alert p,.notes p{margin:.25rem 0 0}
.notes h2{margin:0;font-size:1rem}
.notes ul,.weak ul{overflow-wrap:anywhere;margin:.25rem 0 0;padding-left:1.2rem;max-width:46rem}
.key{display:grid;grid-template-columns:repeat(4,1fr);margin:0;
border-top:1px solid var(--ink);border-bottom:1px solid var(--rule)}
.key div{padding:.8rem 1rem .9rem 0}
.key div+div{padding-left:1rem;border-left:1px solid var(--rule)}
.key dt{color:var(--soft);font-size:.875rem}
.key dd{margin:0;font-size:clamp(1.35rem,1rem + 1.4vw,1.9rem);line-height:1.25;font-weight:500;letter-spacing:-.01em}
.key dd small{display:block;font-size:.875rem;line-height:1.4;font-weight:400;letter-spacing:0;color:var(--soft)}
figure{margin:0}
figcaption{color:var(--soft);font-size:.9375rem;margin-top:.5rem;max-width:42rem}
img{display:block;width:100%;height:auto}
.map{display:flex;flex-wrap:wrap;gap:1rem 2rem;align-items:flex-start}
.plate{flex:0 1 auto;width:min(100%,80vh*var(--ratio));min-width:min(100%,20rem)}
.stack{position:relative;background:var(--map);border:1px solid var(--rule)}
.stack img+img{position:absolute;inset:0;height:100%;opacity:.55}
.dates{--at:50%;overflow:hidden}
.dates img+img{opacity:1}
.dates .later{clip-path:inset(0 0 0 var(--at))}
.dates .found{opacity:.7}
.dates .divider{position:absolute;top:0;bottom:0;left:var(--at);width:2px;margin-left:-1px;background:#fff;
box-shadow:0 0 0 1px rgba(0,0,0,.45);pointer-events:none}
.margin{flex:1 1 13rem;min-width:13rem;display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,18rem),1fr));
gap:1.25rem 2rem;align-items:start}
.scale{margin-top:.6rem;font-size:.8125rem;line-height:1.2;color:var(--soft)}
.scale i{display:block;height:.4rem;border:solid var(--ink);border-width:0 1.5px 1.5px;min-width:2px;margin-top:.15rem}
.slider label{display:flex;justify-content:space-between;font-size:.9375rem}
.slider input{width:100%;margin:.35rem 0 0;accent-color:var(--accent);height:1.5rem}
.legend{list-style:none;margin:0;padding:0;font-size:.9375rem}
.legend li{display:flex;align-items:baseline;gap:.6rem;padding:.3rem 0;border-bottom:1px solid var(--rule)}
.legend b{margin-left:auto;font-weight:400;color:var(--soft)}
.swatch{flex:none;display:inline-block;width:.85em;height:.85em;border:1px solid rgba(0,0,0,.35);vertical-align:-.06em}
@media (prefers-color-scheme:dark){.swatch{border-color:rgba(255,255,255,.45)}}
.row{display:grid;grid-template-columns:repeat(4,1fr);gap:.75rem}
.row figure{margin:0;min-width:0}
.row img{display:block;width:100%;image-rendering:pixelated}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:1.5rem 2rem}
.pair>*{min-width:0}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.9375rem}
caption{text-align:left;color:var(--soft);padding:0 0 .5rem}
th,td{padding:.45rem .75rem;text-align:left;vertical-align:baseline;border-bottom:1px solid var(--rule)}
th:first-child,td:first-child{padding-left:0}
th:last-child,td:last-child{padding-right:0}
thead th{font-weight:400;color:var(--soft);font-size:.875rem;border-bottom-color:var(--ink);white-space:nowrap}
thead td{border-bottom-color:var(--ink)}
table.close{width:auto}
table.close th,table.close td{padding-right:0;padding-left:2.25rem}
table.close th:first-child{padding-left:0}
tbody th{font-weight:500}
.classes tbody th{white-space:nowrap}
.classes .swatch{margin-right:.6em}
.num{text-align:right;white-space:nowrap}
.bars{width:34%}
.bar{display:block;height:.6rem;background:var(--accent);min-width:1px}
.any{overflow-wrap:anywhere}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,24rem),1fr));gap:0 2rem;margin:0;
font-size:.9375rem}
.facts div{display:grid;grid-template-columns:9rem 1fr;padding:.35rem 0;border-bottom:1px solid var(--rule)}
.facts dt{color:var(--soft);padding-right:1rem}
.facts dd{margin:0;overflow-wrap:anywhere}
p+.facts{margin-top:1rem}
.facts+.scroll{margin-top:1rem}
.pair h3:first-child{margin-top:0}
.weak{margin-top:1.25rem}
.weak h3{margin-top:0}
svg{display:block;width:100%;max-width:32rem;height:auto}
svg text{fill:var(--soft);font:12px system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",Arial,sans-serif}
svg .frame{stroke:var(--ink);stroke-opacity:.45}
svg .axis{stroke:var(--ink)}
footer{margin-top:3rem;padding-top:1rem;padding-bottom:3rem;color:var(--soft);font-size:.875rem}
footer p{border-top:1px solid var(--rule);padding-top:1rem;max-width:none;margin:0}
@media (max-width:44rem){
.key{grid-template-columns:1fr 1fr}
.key div:nth-child(odd){padding-left:0;border-left:0}
.key div:nth-child(n+3){border-top:1px solid var(--rule)}
.pair{grid-template-columns:1fr}
th,td{padding-left:.3rem;padding-right:.3rem}
table,thead th{font-size:.8125rem}
thead th{white-space:normal;vertical-align:bottom}
table.close th,table.close td{padding-left:.9rem}
.classes .bars,.classes th:nth-child(6),.classes td:nth-child(6){display:none}
.facts div{grid-template-columns:7.5rem 1fr}
}
@media print{
:root{--paper:#fff;--ink:#000;--soft:#444;--rule:#bbb;
--tint:#f2f2f2;--accent:#1f6470;--alert:#9c2f1b;--alert-tint:#f7e6df;--map:#fff}
@page{margin:16mm}
html{font-size:10pt;color-scheme:light}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}
header,main,footer{max-width:none;padding-left:0;padding-right:0}
header{padding-top:0}
nav,.slider{display:none}
section{margin-top:1.5rem}
figure,tr,.key,.alert{break-inside:avoid}
h2,h3,caption{break-after:avoid}
.plate{width:min(100%,14cm*var(--ratio))}
a{color:inherit}
}
"""

SCRIPT = """
var dates=document.querySelector(".dates");
if(dates){var swipe=document.querySelector(".swipe"),fade=document.querySelector(".fade");
var at=swipe.querySelector("input"),
found=dates.querySelector(".found"),move=function(x){dates.style.setProperty("--at",x+"%")};
swipe.hidden=fade.hidden=false;at.addEventListener("input",function(){move(at.value)});
var drag=function(e){var r=dates.getBoundingClientRect(),x=(e.clientX-r.left)/r.width*100;
at.value=Math.max(0,Math.min(100,x));move(at.value)};
dates.addEventListener("pointerdown",function(e){e.preventDefault();dates.setPointerCapture(e.pointerId);drag(e)});
dates.addEventListener("pointermove",function(e){if(e.buttons)drag(e)});
fade.querySelector("input").addEventListener("input",function(e){found.style.opacity=e.target.value/100;
fade.querySelector("output").textContent=e.target.value+"\\u202f%"})}
var slider=document.querySelector(".slider"),layer=document.querySelector(".stack img+img");
if(!dates&&slider&&layer){var input=slider.querySelector("input"),shown=slider.querySelector("output");
slider.hidden=false;
input.addEventListener("input",function(){layer.style.opacity=input.value/100;shown.textContent=input.value+"\\u202f%"})}
"""
