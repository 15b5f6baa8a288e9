"use strict";
// What the pages need beyond HTML: plots, and the countdown to a proposal's expiry. Everything works without it but those.

function dressed(layout) {
  const font = { family: "system-ui, sans-serif", size: 13, color: "#1C2733", ...(layout.font || {}) };
  return { paper_bgcolor: "#ffffff", plot_bgcolor: "#ffffff", dragmode: false, ...layout, font };
}

async function drawPlots() {
  const places = document.querySelectorAll("[data-plot]");
  if (!places.length || !window.Plotly) return;
  const source = document.querySelector("[data-plots-from]");
  const inline = document.getElementById("plots");
  const plots = inline ? JSON.parse(inline.textContent) : await (await fetch(source.dataset.plotsFrom)).json();
  for (const { name, data, layout } of plots) {
    const place = document.querySelector(`[data-plot="${CSS.escape(name)}"]`);
    if (!place) continue;
    place.replaceChildren();
    await Plotly.newPlot(place, data, dressed(layout), { displayModeBar: false, responsive: true });
  }
  document.documentElement.dataset.drawn = String(plots.length);
}

function left(milliseconds) {
  const seconds = Math.floor(milliseconds / 1000);
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor((seconds % 3600) / 60)];
  return hours ? `${hours} h ${minutes} min` : minutes ? `${minutes} min ${seconds % 60} s` : `${seconds} s`;
}

function countDown() {
  for (const place of document.querySelectorAll("[data-expires]")) {
    const rest = Date.parse(place.dataset.expires) - Date.now();
    place.textContent = rest > 0 ? `${left(rest)} left` : "expired";
  }
}

drawPlots().catch((error) => {
  for (const place of document.querySelectorAll("[data-plot]")) place.textContent = `The plot cannot be drawn: ${error.message}`;
});
// A page that is not ready is loaded again as a whole: its scripts have to run as well.
for (const place of document.querySelectorAll("[data-load-again]")) {
  setTimeout(() => location.reload(), Number(place.dataset.loadAgain));
}
countDown();
if (document.querySelector("[data-expires]")) setInterval(countDown, 1000);
