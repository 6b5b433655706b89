// Draws a Plotly figure into this element and redraws it in place when its data changes.
// Plotly itself comes from the Python package, so the page asks no other host for it.

const CLEAR = "rgba(0,0,0,0)";
const states = new WeakMap();
let loading = null;
let turn = Promise.resolve();

// The page asked for Plotly when it was opened (server.py).
function load() {
  loading ??= new Promise((resolve, reject) => {
    if (window.Plotly) return resolve(window.Plotly);
    const script = document.getElementById("plotly");
    script.addEventListener("load", () => resolve(window.Plotly));
    script.addEventListener("error", () => reject(new Error("plotly.js could not be loaded")));
  });
  return loading;
}

// On a dark page, each colour of the ramp for white paper as its counterpart in the ramp for dark ones.
function recolored(part, ramp) {
  if (typeof part === "string") return ramp.get(part) ?? part;
  if (!part || typeof part !== "object" || ArrayBuffer.isView(part)) return part;
  if (Array.isArray(part)) return part.map((entry) => recolored(entry, ramp));
  return Object.fromEntries(
    Object.entries(part).map(([name, value]) => {
      const colors = /color/.test(name) && (typeof value === "string" || name === "colorscale");
      return [name, colors || /^(line|marker)$/.test(name) ? recolored(value, ramp) : value];
    }),
  );
}

function isDark(element) {
  const [red, green, blue] = getComputedStyle(element).color.match(/[\d.]+/g).map(Number);
  return red + green + blue > 382; // light text
}

// The page's own text, line and font, so that a figure reads in the light theme and in the dark one.
function themed(layout, element) {
  const style = getComputedStyle(element);
  const lines = style.getPropertyValue("--st-border-color");
  const restyle = (axes) =>
    Object.fromEntries(
      Object.entries(axes).map(([name, part]) =>
        /^[xyz]axis/.test(name) ? [name, { ...part, gridcolor: lines, zerolinecolor: lines }] : [name, part],
      ),
    );
  return {
    ...restyle(layout),
    ...(layout.scene && { scene: restyle(layout.scene) }),
    paper_bgcolor: CLEAR,
    plot_bgcolor: CLEAR,
    shapes: structuredClone(layout.shapes ?? []), // Plotly writes into them what is dragged
    font: { color: style.color, family: style.fontFamily },
    modebar: { bgcolor: CLEAR, color: style.color },
  };
}

// What leaves the page is on white, whatever the theme; zoom and camera are the reader's.
function forPaper(chart, figure, marks) {
  const layout = structuredClone(figure.layout);
  const now = chart._fullLayout;
  for (const name of Object.keys(layout)) {
    if (/^[xy]axis/.test(name) && now[name]?.range) layout[name].range = [...now[name].range];
  }
  if (layout.scene && now.scene?._scene) layout.scene.camera = now.scene._scene.getCamera();
  return { data: [...figure.data, ...marks], layout };
}

function image(Plotly, chart, format) {
  const { figure, marks, file } = states.get(chart);
  const size = { width: chart.clientWidth, height: chart.clientHeight };
  Plotly.downloadImage(forPaper(chart, figure, marks), { format, filename: file, scale: 2, ...size });
}

// One file that needs nothing else: Plotly, the figure and its text.
async function page(chart) {
  const { figure, marks, file, text, config } = states.get(chart);
  const source = await (await fetch(document.getElementById("plotly").src)).text();
  const safe = (value) => JSON.stringify(value).replaceAll("<", "\\u003c");
  const html = `<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>${file}</title></head><body>
<div id="figure" role="figure"></div><script>${source}</script><script>
const figure = ${safe(forPaper(chart, figure, marks))};
document.getElementById("figure").setAttribute("aria-label", ${safe(text)});
Plotly.newPlot("figure", figure.data, figure.layout, ${safe(config)});
</script></body></html>`;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([html], { type: "text/html" }));
  link.download = `${file}.html`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function buttons(Plotly) {
  const button = (name, title, icon, click) => ({ name, title, icon: Plotly.Icons[icon], click });
  return [
    button("png", "Download plot as a PNG", "camera", (chart) => image(Plotly, chart, "png")),
    button("svg", "Download plot as an SVG", "pencil", (chart) => image(Plotly, chart, "svg")),
    button("html", "Download plot as an HTML file", "disk", (chart) => page(chart)),
  ];
}

// The points that a click could pick, from left to right: those of the front where a figure has one.
function stops(chart) {
  const points = chart._fullData.flatMap((trace, curve) =>
    trace.customdata && trace.visible === true
      ? Array.from(trace.x, (x, place) => ({ curve, place, x, who: trace.customdata[place] }))
      : [],
  );
  const known = points.filter(({ who }) => who && Number(who[0]) >= 0);
  const front = known.filter(({ curve }) => chart._fullData[curve].name === "Pareto front");
  return (front.length ? front : known).sort((one, other) => (one.x < other.x ? -1 : 1));
}

function words(chart, { curve, place, who }) {
  const trace = chart._fullData[curve];
  const number = (value) => (typeof value === "number" ? Number(value.toPrecision(4)).toLocaleString() : value);
  const { xaxis, yaxis, scene } = chart._fullLayout;
  const axes = trace.z ? [scene.xaxis, scene.yaxis, scene.zaxis] : [xaxis, yaxis];
  const values = [trace.x, trace.y, trace.z].slice(0, axes.length);
  const parts = axes.map((axis, at) => `${axis.title.text || "value"} ${number(values[at][place])}`);
  return [`Trial ${who[0]}`, who[1] > 0 && `iteration ${who[1].toLocaleString()}`, ...parts].filter(Boolean).join(", ");
}

function zoom(Plotly, chart, factor) {
  const changes = {};
  for (const name of Object.keys(chart._fullLayout).filter((name) => /^[xy]axis\d*$/.test(name))) {
    const [low, high] = chart._fullLayout[name].range.map(Number);
    if (!Number.isFinite(low + high)) continue; // categories and dates stay
    if (factor) changes[`${name}.range`] = [-1, 1].map((side) => (low + high) / 2 + (side * factor * (high - low)) / 2);
    else changes[`${name}.autorange`] = true;
  }
  Plotly.relayout(chart, changes);
}

// Arrows go from point to point, Enter picks (with Shift: one more), + and - zoom, 0 shows all again.
function keyed(Plotly, chart, event) {
  if (event.target !== chart) return;
  const state = states.get(chart);
  const points = stops(chart);
  const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
  const factor = { "+": 0.7, "=": 0.7, "-": 1 / 0.7, 0: null }[event.key];
  if (step && points.length) {
    const last = points.length - 1;
    state.at = state.at === undefined ? (step > 0 ? 0 : last) : Math.min(Math.max(state.at + step, 0), last);
    const { curve, place } = points[state.at];
    if (!chart._fullData[curve].z) Plotly.Fx.hover(chart, [{ curveNumber: curve, pointNumber: place }]);
    chart.parentElement.querySelector(".said").textContent = words(chart, points[state.at]);
  } else if (event.key === "Enter" && points[state.at]) {
    const [trial, iteration] = points[state.at].who;
    state.click({ trial: Number(trial), iteration: Number(iteration), more: event.shiftKey });
  } else if (factor !== undefined && !chart._fullLayout.scene) {
    zoom(Plotly, chart, factor);
  } else {
    return;
  }
  event.preventDefault();
}

// A line that was dragged: the page moves it to where the limit is that it now stands for.
function dragged(chart, changes) {
  const state = states.get(chart);
  for (const [change, value] of Object.entries(changes)) {
    const [, number, axis] = change.match(/^shapes\[(\d+)\]\.([xy])[01]$/) ?? [];
    const shape = number && state.figure.layout.shapes?.[number];
    if (!shape?.name || axis !== (shape.xref === "paper" ? "y" : "x")) continue;
    if (value === shape[`${axis}0`]) continue; // the other end
    state.drawn = null; // even where the limit turns out as it was
    return state.drag({ name: shape.name, value });
  }
}

// The trials of points in a box, or of lines within the ranges that are marked on parallel coordinates.
function boxed(event) {
  return (event?.points ?? []).flatMap(({ customdata }) => (customdata ? [Number(customdata[0])] : []));
}

function marked(chart) {
  const [trace] = chart._fullData;
  const ranges = trace.dimensions.filter(({ constraintrange }) => constraintrange?.length);
  if (!ranges.length) return [];
  const inside = ({ values, constraintrange }, line) =>
    (Array.isArray(constraintrange[0]) ? constraintrange : [constraintrange]).some(
      ([low, high]) => low <= values[line] && values[line] <= high,
    );
  const lines = Array.from(trace.dimensions[0].values, (_, line) => line);
  return lines.filter((line) => ranges.every((range) => inside(range, line))).map((line) => Number(trace.customdata[line][0]));
}

function brushes(chart) {
  const brushed = (trials) => states.get(chart).brush({ trials: [...new Set(trials)] });
  for (const event of ["plotly_selected", "plotly_deselect", "plotly_restyle"]) chart.removeAllListeners(event);
  chart.on("plotly_selected", (event) => event && brushed(boxed(event)));
  chart.on("plotly_deselect", () => brushed([]));
  chart.on("plotly_restyle", ([changes]) => {
    if (Object.keys(changes).some((name) => name.includes("constraintrange"))) brushed(marked(chart));
  });
}

// One figure a frame: the first is on the screen before the next is worked out.
function enqueue(plotly, chart) {
  turn = Promise.all([plotly, turn])
    .then(([Plotly]) => {
      draw(Plotly, chart);
      return new Promise((done) => {
        requestAnimationFrame(() => setTimeout(done));
        setTimeout(done, 200); // a hidden page has no frames
      });
    })
    .catch((error) => console.error(error)); // one figure's failure must not hold up the others
}

function draw(Plotly, chart) {
  const state = states.get(chart);
  const theme = getComputedStyle(chart).color;
  const signature = [state.digest, state.marksText, theme].join();
  if (!state.visible || state.drawn === signature || !chart.isConnected) return;
  state.drawn = signature;
  // made once: Plotly starts over, zoom and all, where the configuration differs
  state.options ??= {
    ...state.config,
    edits: { shapePosition: (state.figure.layout.shapes ?? []).some((shape) => shape.name) },
    modeBarButtonsToAdd: buttons(Plotly),
    modeBarButtonsToRemove: [...state.config.modeBarButtonsToRemove, "toImage"],
  };
  const traces = [...state.figure.data, ...state.marks];
  const [light, dark] = state.ramps;
  const ramp = new Map(light.map((color, place) => [color, dark[place]]));
  const layout = themed(state.figure.layout, chart);
  layout.editrevision = state.revision = (state.revision ?? 0) + 1; // lines stand where the figure has them
  // `react` changes the drawing rather than replacing it: with the figure's uirevision, zoom and camera stay
  const data = isDark(chart) ? traces.map((trace) => recolored(trace, ramp)) : traces;
  Plotly.react(chart, data, layout, state.options).then(() => {
    chart.onkeydown = (event) => keyed(Plotly, chart, event);
    chart.removeAllListeners("plotly_click");
    chart.on("plotly_click", ({ points, event }) => {
      const who = points[0].customdata;
      const more = Boolean(event?.shiftKey || event?.ctrlKey || event?.metaKey);
      if (who) states.get(chart).click({ trial: Number(who[0]), iteration: Number(who[1]), more });
    });
    brushes(chart);
    chart.removeAllListeners("plotly_relayout");
    chart.on("plotly_relayout", (changes) => dragged(chart, changes));
  });
}

export default function ({ data, parentElement, setTriggerValue }) {
  const plotly = load();
  const chart = parentElement.querySelector(".chart");
  chart.setAttribute("aria-label", data.text);
  const state = states.get(chart) ?? { visible: false };
  if (state.digest !== data.digest) {
    state.figure = JSON.parse(data.figure);
    state.digest = data.digest;
    chart.style.height = `${state.figure.layout.height}px`;
    const least = state.figure.layout.meta?.least;
    chart.style.minWidth = least ? `${least}px` : "";
    chart.parentElement.style.overflowX = least ? "auto" : ""; // narrow screens scroll the figure, not the page
  }
  if (state.marksText !== data.marks) {
    state.marksText = data.marks;
    state.marks = data.marks ? JSON.parse(data.marks).data : [];
  }
  const { config, file, text, ramps } = data;
  Object.assign(state, { config, file, text, ramps });
  state.brush = (trials) => setTriggerValue("brushed", trials);
  state.drag = (line) => setTriggerValue("dragged", line);
  state.click = (point) => setTriggerValue("clicked", point);
  states.set(chart, state);
  if (!state.watch) {
    // a figure further down waits until somebody scrolls to it
    state.watch = new IntersectionObserver((entries) => {
      state.visible = entries.at(-1).isIntersecting;
      enqueue(plotly, chart);
    });
    state.watch.observe(chart);
    // Plotly follows the window's width alone; columns also change theirs when one joins them
    new ResizeObserver(() => {
      if (window.Plotly && chart._fullLayout && chart.clientWidth && chart.clientWidth !== chart._fullLayout.width) {
        window.Plotly.Plots.resize(chart);
      }
    }).observe(chart);
  } else {
    enqueue(plotly, chart);
  }
}
