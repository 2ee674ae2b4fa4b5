"use strict";
// The page's script.  It arranges what report.py has prepared: galleries, the enlarged view, the table of scores, curves.
// Text from outside is only ever set as text (`append`, `textContent`, attributes), never parsed as HTML.

const root = document.documentElement;
addEventListener("error", e => { root.dataset.error = e.message || "error"; });
addEventListener("unhandledrejection", e => { root.dataset.error = String(e.reason); });

const data = JSON.parse(document.getElementById("data").textContent);
const svgNamespace = new DOMParser().parseFromString("<svg></svg>", "text/html").querySelector("svg").namespaceURI;
const svgTags = new Set(["svg", "g", "path", "line", "text", "circle"]);
const clamp = (x, low, high) => Math.min(high, Math.max(low, x));

/** An element: h("button", {class: "x", onclick: f}, "text", child, ...).  Attributes that are false or null are left out. */
function h(tag, attributes, ...children) {
  const element = svgTags.has(tag) ? document.createElementNS(svgNamespace, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter(child => child != null));
  return element;
}

const byId = id => document.getElementById(id);
const option = (value, text, selected) => h("option", {value, selected}, text ?? value);
const labelled = (text, control) => h("label", {class: "control"}, h("span", {}, text), control);
const toggle = (text, pressed, title, change) => h("button", {
  type: "button", "aria-pressed": String(pressed), title,
  onclick: e => {
    const on = e.currentTarget.getAttribute("aria-pressed") !== "true";
    e.currentTarget.setAttribute("aria-pressed", String(on));
    change(on);
  },
}, text);

// Pictures: each is stored once; slider, strip and enlarged view share one URL ---------------------------------------

const urls = new Map();

function urlOf(id) {
  if (!urls.has(id)) {
    const source = byId(`image-${id}`);
    const text = atob(source.textContent);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    urls.set(id, URL.createObjectURL(new Blob([bytes], {type: source.dataset.type})));
  }
  return urls.get(id);
}

const inView = new IntersectionObserver(entries => {
  for (const entry of entries) if (entry.isIntersecting) load(entry.target);
}, {rootMargin: "800px"});

function load(image) {
  inView.unobserve(image);
  image.src = urlOf(image.dataset.image);
}

/** Let an <img> show one column of a picture; it is decoded when it comes near the view. */
function show(image, picture, column) {
  image.dataset.image = column.image;
  image.alt = `${picture.name}: ${column.label}`;
  image.width = column.width;
  image.height = column.height;
  image.classList.toggle("small", column.width * 1.5 < sizeOf(picture).width);  // an input: its pixels are to be seen
  if (image.src) load(image); else inView.observe(image);
}

function picturesImage(picture, column) {
  const image = h("img", {decoding: "async", draggable: "false"});
  show(image, picture, column);
  return image;
}

/** The common size: that of the largest column. */
const sizeOf = picture => picture.columns.reduce((a, b) => (b.width * b.height > a.width * a.height ? b : a));
const columnOf = (picture, label) => picture.columns.find(column => column.label === label);

addEventListener("beforeprint", () => document.querySelectorAll("img[data-image]").forEach(load));

// Gallery -------------------------------------------------------------------------------------------------------------

const cards = [];  // {element, picture, choose(side, label)} in the order of the data
const chosen = {text: "", count: Infinity, order: ""};  // which cards are shown, and in which order

function buildGallery() {
  const sections = data.sections.map((section, i) => {
    const all = section.pictures.length;
    const shown = section.pictures.map((picture, j) => [picture, `p${i}-${j}`]).filter(([p]) => p.columns.length);
    const count = `${shown.length}${shown.length < all ? ` of ${all}` : ""} ${all === 1 ? "picture" : "pictures"}`;
    return h("section", {id: `set${i}`, class: "dataset"},
      h("h2", {}, section.name, h("small", {}, ` ${count}`)),
      section.note ? h("p", {class: "note"}, section.note) : null,
      shown.length ? h("div", {class: "cards"}, shown.map(([picture, id]) => card(picture, id)))
                   : h("p", {class: "empty"}, "No pictures were kept of this set."));
  });
  byId("gallery").append(...(cards.length ? [toolbar()] : []), ...sections);
  root.dataset.cards = cards.length;
}

function card(picture, id) {
  const slider = comparison(picture);
  const strip = picture.columns.length > 1 && h("div", {class: "strip"}, picture.columns.map(column =>
    h("button", {type: "button", title: `enlarge ${column.label}`, onclick: () => openLightbox(entry, column.label)},
      picturesImage(picture, column), h("span", {}, column.label))));
  const lossy = picture.columns.some(column => column.lossy);
  const element = h("article", {class: "card", id, tabindex: "-1"},
    h("h3", {}, picture.name),
    slider.element, strip || null,
    lossy ? h("p", {class: "note"}, "Over 1024 pixels a side: shown here as JPEG (quality 95).") : null,
    cardScores(picture),
    Object.keys(picture.facts).length ? h("dl", {class: "facts"}, Object.entries(picture.facts).map(([name, value]) =>
      h("div", {}, h("dt", {}, name), h("dd", {}, value)))) : null);
  const entry = {element, picture, choose: slider.choose};
  slider.element.querySelector(".enlarge").addEventListener("click", () => openLightbox(entry));
  cards.push(entry);
  return element;
}

/** Two columns, one over the other, and a line between them.  A transparent range input over all gives drag, touch and keys. */
function comparison(picture) {
  const size = sizeOf(picture);
  const images = picture.compared.map(label => picturesImage(picture, columnOf(picture, label)));
  const selects = images.map((_, side) => h("select",
    {class: `side side${side}`, "aria-label": side ? "right side" : "left side", onchange: e => choose(side, e.target.value)},
    picture.columns.map(column => option(column.label, column.label, column.label === picture.compared[side]))));
  const range = images.length > 1 ? h("input", {
    type: "range", min: 0, max: 100, step: "any", value: 50, "aria-label": `${picture.name}: where the two sides meet`,
    oninput: e => element.style.setProperty("--x", `${e.target.value}%`),
  }) : null;
  const element = h("div", {class: "compare", style: `--ratio:${size.width / size.height}`},
    images, range && h("div", {class: "line"}), range, selects,
    h("button", {type: "button", class: "enlarge", title: "enlarge all columns", "aria-label": "enlarge"}, "⤢"));

  function choose(side, label) {
    if (!selects[side] || !columnOf(picture, label)) return;
    selects[side].value = label;
    show(images[side], picture, columnOf(picture, label));
  }
  return {element, choose};
}

const metricsOf = scores => data.metrics.filter(m => Object.values(scores).some(values => m.name in values));
const arrow = metric => ({higher: " ↑", lower: " ↓"})[metric.better] || "";
const scoreCell = score => h("td", {class: score?.best && "best"}, score ? score.text : "–");

function cardScores(picture) {
  const metrics = metricsOf(picture.scores);
  if (!metrics.length) return null;
  return h("div", {class: "scroll"}, h("table", {class: "scores"},
    h("thead", {}, h("tr", {}, h("td"), metrics.map(m => h("th", {scope: "col"}, m.name + arrow(m))))),
    h("tbody", {}, Object.entries(picture.scores).map(([method, values]) =>
      h("tr", {}, h("th", {scope: "row"}, method), metrics.map(m => scoreCell(values[m.name])))))));
}

function toolbar() {
  const labels = [...new Set(cards.flatMap(c => c.picture.columns.map(column => column.label)))];
  const methods = [...new Set(cards.flatMap(c => Object.keys(c.picture.scores)))];
  const usual = [0, 1].map(side => cards.find(c => c.picture.compared[side])?.picture.compared[side]);
  const side = (text, i) => labelled(text, h("select", {onchange: e => cards.forEach(c => c.choose(i, e.target.value))},
    labels.map(label => option(label, label, label === usual[i]))));
  const orders = methods.map(method => h("optgroup", {label: method}, data.metrics
    .filter(m => cards.some(c => c.picture.scores[method]?.[m.name]))
    .map(m => option(JSON.stringify([method, m.name]), `${m.better ? "worst" : "lowest"} ${m.name}, ${method}`))));
  const found = h("output", {"aria-live": "polite"});
  const arrange = change => {
    Object.assign(chosen, change);
    arrangeCards();
    const shown = cards.filter(c => !c.element.hidden).length;
    found.textContent = shown < cards.length ? `${shown} of ${cards.length}` : "";
  };
  const resize = e => root.style.setProperty("--card", e.target.value);
  return h("div", {class: "toolbar", role: "group", "aria-label": "Gallery"},
    labels.length > 1 ? [side("left", 0), side("right", 1)] : null,
    labelled("order", h("select", {id: "order", onchange: e => arrange({order: e.target.value})},
      option("", "as given"), option("name", "name"), orders)),
    labelled("show", h("select", {id: "show", onchange: e => arrange({count: Number(e.target.value)})},
      option("Infinity", "all", true), option("10", "the first ten of each set"))),
    labelled("size", h("select", {onchange: resize},
      option("17rem", "small"), option("26rem", "medium", true), option("60rem", "large"))),
    labelled("find", h("input", {type: "search", placeholder: "name",
      oninput: e => arrange({text: e.target.value.trim().toLowerCase()})})), found);
}

/** Smallest first; what is no number goes last. */
const ascending = (a, b) => (a == null) - (b == null) || Number(a) - Number(b) || 0;

function sortedCards(order) {
  const sorted = [...cards];
  if (order === "name") return sorted.sort((a, b) => a.picture.name.localeCompare(b.picture.name, undefined, {numeric: true}));
  if (!order) return sorted;
  const [method, metric] = JSON.parse(order);
  const sign = data.metrics.find(m => m.name === metric).better === "lower" ? -1 : 1;  // worst first
  const value = c => {
    const found = c.picture.scores[method]?.[metric]?.value;
    return found == null ? null : sign * found;
  };
  return sorted.sort((a, b) => ascending(value(a), value(b)));
}

/** Put the cards of each set in order; shown are the first ones that have the text in their names. */
function arrangeCards() {
  const seen = new Map();  // section -> how many of its cards are shown
  for (const {element, picture} of sortedCards(chosen.order)) {
    const parent = element.parentElement, before = seen.get(parent) || 0;
    parent.append(element);
    element.hidden = before >= chosen.count || !picture.name.toLowerCase().includes(chosen.text);
    if (!element.hidden) seen.set(parent, before + 1);
  }
}

// Enlarged view: all columns of a picture, moved together ---------------------------------------------------------------

const lightbox = byId("lightbox");
// x, y: where the picture's corner lies, in widths and heights of a pane, so that panes of any size show the same part.
const view = {entry: null, solo: null, scale: 1, x: 0, y: 0, difference: false, opener: null};

function openLightbox(entry, solo = null) {
  if (!lightbox.open) Object.assign(view, {scale: 1, x: 0, y: 0, opener: document.activeElement});
  Object.assign(view, {entry, solo});
  fillLightbox();
  if (!lightbox.open) lightbox.showModal();
  moveView();
}

function fillLightbox() {
  const {picture} = view.entry;
  const size = sizeOf(picture);
  const truth = picture.truth && columnOf(picture, picture.truth);
  const button = (text, title, onclick) => h("button", {type: "button", title, "aria-label": title, onclick}, text);
  const difference = toggle("|difference|", view.difference && !!truth, "distance to the truth, four times enlarged (d)",
    on => { view.difference = on; fillLightbox(); moveView(); });
  difference.classList.add("difference");
  const panes = picture.columns.map(column => {
    const subtract = view.difference && truth && column !== truth;
    const layers = (subtract ? [column, truth] : [column]).map(c => picturesImage(picture, c));
    layers.forEach(load);
    return h("figure", {class: "pane", "data-label": column.label},
      h("div", {class: `window${subtract ? " subtract" : ""}`}, h("div", {class: "layers"}, layers)),
      h("figcaption", {}, h("b", {}, column.label), h("span", {}, paneScores(picture, column))));
  });
  const focused = document.activeElement?.title;  // the buttons are made anew: the keyboard stays on the one it was on
  lightbox.style.setProperty("--ratio", size.width / size.height);
  lightbox.replaceChildren(
    h("header", {}, button("‹", "previous picture (Page Up)", () => step(-1)),
      button("›", "next picture (Page Down)", () => step(1)), h("h2", {}, picture.name),
      button("✕", "close (Esc)", () => lightbox.close())),
    h("header", {},
      h("div", {class: "choice", role: "group", "aria-label": "Columns"}, [null, ...picture.columns.map(c => c.label)].map((label, i) =>
        h("button", {type: "button", title: label ? `${label} alone (${i})` : "all columns (0)", "data-solo": label ?? "",
                     onclick: () => setSolo(label)}, label ?? "all"))),
      h("output", {class: "scale"}), button("fit", "fit (f)", fit), truth ? difference : null),
    h("div", {class: "panes"}, panes),
    h("p", {class: "hint"}, "Wheel, pinch or + − to zoom · drag or arrows to move · 1–9 one column in place of another, 0 all · "
      + "f fit · d difference · Page Up/Down other pictures"));
  if (lightbox.open) ([...lightbox.querySelectorAll("button")].find(b => focused && b.title === focused) ?? lightbox).focus();
}

/** What is written under an enlarged column: its scores, or else its size. */
function paneScores(picture, column) {
  const values = picture.scores[column.label] || {};
  const texts = data.metrics.filter(m => values[m.name]).map(m => `${m.name} ${values[m.name].text}`);
  return texts.join(" · ") || `${column.width} × ${column.height}`;
}

function step(by) {
  const order = [...document.querySelectorAll(".card:not([hidden])")].map(e => cards.find(c => c.element === e));
  if (order.length) openLightbox(order[(order.indexOf(view.entry) + by + order.length) % order.length], view.solo);
}

function setSolo(label) {
  view.solo = label;
  moveView();
}

/** Place all panes alike.  The grid takes the number of columns that makes the panes largest. */
function moveView() {
  if (!lightbox.open) return;
  const panes = [...lightbox.querySelectorAll(".pane")];
  const solo = panes.some(pane => pane.dataset.label === view.solo) ? view.solo : null;
  for (const pane of panes) pane.hidden = solo !== null && pane.dataset.label !== solo;
  for (const chosen of lightbox.querySelectorAll("[data-solo]"))
    chosen.setAttribute("aria-pressed", String(chosen.dataset.solo === (solo ?? "")));
  const area = lightbox.querySelector(".panes");
  const count = solo === null ? panes.length : 1;
  const ratio = Number(lightbox.style.getPropertyValue("--ratio"));
  const widthFor = n => Math.min(area.clientWidth / n, (area.clientHeight / Math.ceil(count / n) - 36) * ratio);
  const columns = [...Array(count).keys()].map(i => i + 1).reduce((a, b) => (widthFor(b) > widthFor(a) + 1 ? b : a), 1);
  area.style.setProperty("--columns", columns);
  area.style.setProperty("--pane", `${Math.floor(widthFor(columns)) - 8}px`);
  view.x = clamp(view.x, 1 - view.scale, 0);
  view.y = clamp(view.y, 1 - view.scale, 0);
  lightbox.style.setProperty("--transform", `translate(${100 * view.x}%, ${100 * view.y}%) scale(${view.scale})`);
  const magnified = view.scale * paneSize().width / sizeOf(view.entry.picture).width;
  lightbox.classList.toggle("pixels", magnified >= 2);  // from two screen pixels a pixel on, they are to be seen
  lightbox.querySelector(".scale").textContent = `${Math.round(magnified * 100)} %`;
}

const paneSize = () => lightbox.querySelector(".pane:not([hidden]) .window").getBoundingClientRect();

/** Zoom about a point of the pane, its centre if none is given. */
function zoom(factor, x = 0.5, y = 0.5) {
  const scale = clamp(view.scale * factor, 1, 64);
  view.x = x - (x - view.x) * scale / view.scale;
  view.y = y - (y - view.y) * scale / view.scale;
  view.scale = scale;
  moveView();
}

function pan(dx, dy) {
  const {width, height} = paneSize();
  view.x += dx / width;
  view.y += dy / height;
  moveView();
}

function fit() {
  Object.assign(view, {scale: 1, x: 0, y: 0});
  moveView();
}

function listenToLightbox() {
  const fingers = new Map();  // pointer -> its last place
  const place = (x, y, box) => [(x - box.left) / box.width, (y - box.top) / box.height];
  const boxOf = e => e.target.closest?.(".window")?.getBoundingClientRect();
  lightbox.addEventListener("wheel", e => {
    e.preventDefault();
    if (boxOf(e)) zoom(Math.exp(-e.deltaY * (e.deltaMode ? 0.05 : 0.002)), ...place(e.clientX, e.clientY, boxOf(e)));
  }, {passive: false});
  lightbox.addEventListener("pointerdown", e => {
    if (!boxOf(e)) return;
    e.preventDefault();
    e.target.setPointerCapture(e.pointerId);
    fingers.set(e.pointerId, [e.clientX, e.clientY]);
  });
  lightbox.addEventListener("pointermove", e => {
    if (!fingers.has(e.pointerId)) return;
    const [x, y] = fingers.get(e.pointerId);
    const other = [...fingers].find(([id]) => id !== e.pointerId)?.[1];
    if (other) {
      const box = boxOf(e);
      const apart = (px, py) => Math.hypot(px - other[0], py - other[1]);
      if (box) zoom(apart(e.clientX, e.clientY) / Math.max(apart(x, y), 1), ...place(...other, box));
    } else pan(e.clientX - x, e.clientY - y);
    fingers.set(e.pointerId, [e.clientX, e.clientY]);
  });
  for (const end of ["pointerup", "pointercancel"]) lightbox.addEventListener(end, e => fingers.delete(e.pointerId));
  lightbox.addEventListener("dblclick", e => {
    if (boxOf(e)) view.scale > 1 ? fit() : zoom(4, ...place(e.clientX, e.clientY, boxOf(e)));
  });
  const keys = {
    "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), f: fit, PageUp: () => step(-1), PageDown: () => step(1),
    ArrowLeft: () => pan(60, 0), ArrowRight: () => pan(-60, 0), ArrowUp: () => pan(0, 60), ArrowDown: () => pan(0, -60),
    0: () => setSolo(null), d: () => lightbox.querySelector(".difference")?.click(),
  };
  lightbox.addEventListener("keydown", e => {
    const column = view.entry.picture.columns[Number(e.key) - 1];
    const act = column ? () => setSolo(column.label) : keys[e.key];
    if (!act || e.ctrlKey || e.metaKey || e.altKey) return;
    e.preventDefault();
    act();
  });
  lightbox.addEventListener("close", () => view.opener?.focus());
  addEventListener("resize", moveView);
}

// Table of pictures and methods -----------------------------------------------------------------------------------------

const MOST_ROWS = 2000;  // that a browser lays out without a wait; order and filter reach all

function buildTable() {
  const rows = data.sections.flatMap((section, i) => section.pictures.flatMap((picture, j) =>
    Object.entries(picture.scores).map(([method, values]) =>
      ({set: section.name, picture: picture.name, id: `p${i}-${j}`, linked: picture.columns.length > 0, method, values}))));
  const metrics = data.metrics.filter(m => rows.some(row => m.name in row.values));
  if (!metrics.length) return;
  const names = [...(data.sections.length > 1 ? ["set"] : []), "picture", "method"];
  for (const row of rows) {
    row.text = names.map(name => row[name]).join(" ").toLowerCase();
    row.element = h("tr", {},
      names.map(name => h("td", {class: "name"},
        name === "picture" && row.linked ? h("a", {href: `#${row.id}`, onclick: () => { byId(row.id).hidden = false; }}, row.picture) : row[name])),
      metrics.map(m => scoreCell(row.values[m.name])));
  }
  const state = {column: null, down: false, text: "", method: ""};
  const count = h("output", {"aria-live": "polite"});
  const body = h("tbody");
  const heads = [...names, ...metrics].map(column => h("th", {scope: "col", class: typeof column === "string" && "name"},
    h("button", {type: "button", onclick: () => sortBy(column)}, column.name ? column.name + arrow(column) : column)));

  function sortBy(column) {
    // A metric's first click brings the worst to the top, like the gallery's order.
    Object.assign(state, state.column === column ? {down: !state.down} : {column, down: column.better === "lower"});
    const at = [...names, ...metrics].indexOf(column);
    heads.forEach((head, i) => {
      if (i === at) head.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    const sign = state.down ? -1 : 1;
    const value = row => row.values[column.name]?.value ?? null;
    rows.sort((a, b) => typeof column === "string"
      ? sign * a[column].localeCompare(b[column], undefined, {numeric: true})
      : value(a) === null || value(b) === null ? ascending(value(a), value(b)) : sign * ascending(value(a), value(b)));
    fill();
  }

  function fill() {
    const words = state.text.toLowerCase().split(/\s+/);
    const kept = rows.filter(row => (!state.method || row.method === state.method) && words.every(w => row.text.includes(w)));
    body.replaceChildren(...kept.slice(0, MOST_ROWS).map(row => row.element));
    count.textContent = kept.length > MOST_ROWS ? `the first ${MOST_ROWS} of ${kept.length} rows` : kept.length === rows.length ? `${rows.length} ${rows.length === 1 ? "row" : "rows"}`
                                                    : `${kept.length} of ${rows.length} rows`;
  }

  const methods = [...new Set(rows.map(row => row.method))];
  byId("table").append(h("h2", {}, "Scores"),
    h("div", {class: "toolbar", role: "group", "aria-label": "Filter of the table"},
      labelled("find", h("input", {type: "search", placeholder: "set, picture", oninput: e => { state.text = e.target.value; fill(); }})),
      methods.length > 1 ? labelled("method", h("select", {onchange: e => { state.method = e.target.value; fill(); }},
        option("", "all"), methods.map(method => option(method)))) : null,
      count),
    h("div", {class: "scroll tall", tabindex: "0", role: "region", "aria-label": "Scores"},
      h("table", {class: "scores"}, h("thead", {}, h("tr", {}, heads)), body)));
  byId("table").hidden = false;
  fill();
}

// Curves ----------------------------------------------------------------------------------------------------------------

const smoothing = {weight: 0.6, redraws: []};
const FEW = 50;  // points: curves of fewer are drawn as they are

/** Exponential mean over the points, its start corrected: s_t = (w s_{t-1} + (1 - w) y_t) / (1 - w^t). */
function smooth(values, weight) {
  if (!weight || values.length < FEW) return values;
  let [sum, mass] = [0, 0];
  return values.map(value => {
    if (value === null) return null;
    sum = weight * sum + (1 - weight) * value;
    mass = weight * mass + (1 - weight);
    return sum / mass;
  });
}

/** Round numbers in [low, high], about `count` of them. */
function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const unit = power * [1, 2, 5, 10].find(x => x * power >= rough);
  const found = [];
  for (let i = Math.ceil(low / unit - 1e-9); i * unit <= high + unit * 1e-9; i++) found.push(i * unit);
  return found;
}

function logTicks(low, high, count) {
  const found = [];
  const decades = Math.log10(high / low);
  const steps = decades > count ? [1] : decades > 1.5 ? [1, 3] : [1, 2, 5];
  for (let e = Math.floor(Math.log10(low)); e <= Math.log10(high); e++)
    for (const s of steps) if (s * 10 ** e >= low && s * 10 ** e <= high) found.push(s * 10 ** e);
  return found.length < 2 ? ticks(low, high, count) : found;
}

function short(value) {
  const size = Math.abs(value);
  if (size >= 1e6) return `${+(value / 1e6).toPrecision(4)}M`;
  if (size >= 1e4) return `${+(value / 1e3).toPrecision(4)}k`;
  return size && size < 1e-3 ? (+value.toPrecision(3)).toExponential() : String(+value.toPrecision(4));
}

/** Curves of very different size cannot share an axis: each then has a panel of its own. */
function incomparable(series) {
  const sizes = series.map(s => s.y.filter(y => y).map(Math.abs).sort((a, b) => a - b)).filter(y => y.length)
    .map(y => y[y.length >> 1]);
  return sizes.length > 1 && Math.max(...sizes) > 8 * Math.min(...sizes);
}

function chart({title, series}) {
  const state = {log: false, apart: incomparable(series), hidden: new Set()};
  const panels = h("div", {class: "panels"});
  const legend = h("div", {class: "legend", role: "group", "aria-label": "Curves shown"}, series.map((s, i) => {
    s.color = `var(--c${i % 8})`;
    s.dash = ["", "6 3", "2 3"][Math.floor(i / 8) % 3];
    return h("button", {type: "button", "aria-pressed": "true", onclick: e => {
      const hidden = !state.hidden.delete(s) && !!state.hidden.add(s);
      e.currentTarget.setAttribute("aria-pressed", String(!hidden));
      redraw();
    }}, h("i", {style: `background:${s.color}`}), s.label);
  }));

  function redraw() {
    const shown = series.filter(s => !state.hidden.has(s));
    const groups = state.apart ? shown.map(s => [s]) : shown.length ? [shown] : [];
    panels.classList.toggle("apart", groups.length > 1);
    const span = extent(shown.flatMap(s => s.x));
    panels.replaceChildren(...groups.map(() => h("div", {class: "panel"})));
    const drawn = groups.map((group, i) => panel(panels.children[i], group, state.log, span, at => drawn.forEach(d => d.read(at))));
  }

  smoothing.redraws.push(redraw);
  let width = 0;
  new ResizeObserver(() => {  // text keeps its size: a chart is drawn anew for another width, not scaled
    if (panels.clientWidth === width) return;
    width = panels.clientWidth;
    requestAnimationFrame(redraw);
  }).observe(panels);
  return h("figure", {class: "chart"}, h("figcaption", {}, h("h3", {}, title),
    toggle("log", state.log, "logarithmic axis", on => { state.log = on; redraw(); }),
    series.length > 1 ? toggle("apart", state.apart, "a panel for each curve", on => { state.apart = on; redraw(); }) : null),
  panels, series.length > 1 ? legend : null);
}

function extent(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const v of values) if (v !== null) { if (v < low) low = v; if (v > high) high = v; }
  return [low, high];
}

/** Dashes of one of `count` curves that lie on each other: where one has a gap, the next is seen. */
function inTurns([which, count]) {
  return {"stroke-dasharray": `8 ${8 * (count - 1)}`, "stroke-dashoffset": -8 * which};
}

/** One pair of axes with its curves, drawn into `box`; returns how to read it at an iteration. */
function panel(box, series, log, [first, last], onread) {
  const width = Math.max(box.clientWidth, 200), height = Math.round(clamp(width * 0.5, 170, 300));
  const pad = {left: 52, right: 16, top: series.length === 1 ? 24 : 10, bottom: 24};
  const usable = y => y !== null && !(log && y <= 0);
  const curves = series.map(s => ({...s, raw: s.y.map(y => (usable(y) ? y : null))}));
  for (const c of curves) c.y = smooth(c.raw, smoothing.weight);
  let [low, high] = extent(curves.flatMap(c => c.raw));
  if (low > high) {
    box.append(h("p", {class: "empty"}, `${series.map(s => s.label).join(", ")}: no ${log ? "positive" : "finite"} values`));
    return {read() {}};
  }
  if (low === high) [low, high] = log ? [low / 2, high * 2] : [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2];
  if (first === last) [first, last] = [first - 1, last + 1];
  const f = log ? Math.log10 : y => y;
  const margin = 0.04 * (f(high) - f(low));
  const px = x => pad.left + (x - first) / (last - first) * (width - pad.left - pad.right);
  const py = y => height - pad.bottom - (f(y) - f(low) + margin) / (f(high) - f(low) + 2 * margin) * (height - pad.top - pad.bottom);
  const path = (c, values) => c.x.reduce((d, x, i) => (values[i] === null ? d
    : `${d}${i && values[i - 1] !== null ? "L" : "M"}${px(x).toFixed(1)} ${py(values[i]).toFixed(1)}`), "");
  const cursor = h("line", {class: "cursor", y1: pad.top, y2: height - pad.bottom, visibility: "hidden"});
  const readout = h("div", {class: "readout", hidden: true, "aria-live": "polite"});
  const yTicks = (log ? logTicks : ticks)(low, high, height / 50), xTicks = ticks(first, last, width / 90).filter(Number.isInteger);
  const only = curves.length === 1 && curves[0];
  const svg = h("svg", {width, height, tabindex: 0, role: "img", "aria-label": describe(curves)},
    yTicks.map(y => h("g", {class: "tick"}, h("line", {x1: pad.left, x2: width - pad.right, y1: py(y), y2: py(y)}),
      h("text", {x: pad.left - 6, y: py(y) + 4, "text-anchor": "end"}, short(y)))),
    xTicks.map(x => h("g", {class: "tick"}, h("text", {x: px(x), y: height - 6, "text-anchor": "middle"}, short(x)))),
    only ? h("text", {class: "title", x: pad.left, y: 14, fill: only.color}, only.label) : null,
    curves.map(c => [
      c.y !== c.raw ? h("path", {d: path(c, c.raw), stroke: c.color, class: "curve raw"}) : null,
      h("path", {d: path(c, c.y), stroke: c.color, class: "curve", ...(c.turn && !only ? inTurns(c.turn) : {"stroke-dasharray": c.dash || null})}),
      c.x.length < FEW ? c.x.map((x, i) => c.y[i] === null ? null : h("circle", {cx: px(x), cy: py(c.y[i]), r: 2.5, fill: c.color})) : null,
    ]), cursor);
  box.append(svg, readout);

  const longest = curves.reduce((a, b) => (b.x.length > a.x.length ? b : a)).x;
  let at = longest.length - 1;
  function read(x) {
    readout.hidden = x === null;
    cursor.setAttribute("visibility", x === null ? "hidden" : "visible");
    if (x === null) return;
    at = nearest(longest, x);
    const left = px(longest[at]);
    cursor.setAttribute("x1", left);
    cursor.setAttribute("x2", left);
    readout.replaceChildren(h("b", {}, longest[at].toLocaleString("en")), ...curves.map(c => {
      const y = c.y[nearest(c.x, x)];
      return h("div", {}, h("i", {style: `background:${c.color}`}), only ? "" : `${c.label} `, y === null ? "–" : String(+y.toPrecision(5)));
    }));
    readout.style.left = `${clamp(left + 10, 0, width - readout.offsetWidth - 4)}px`;
    if (left + 10 > width - readout.offsetWidth - 4) readout.style.left = `${left - readout.offsetWidth - 10}px`;
  }
  svg.addEventListener("pointermove", e => {
    const x = e.clientX - svg.getBoundingClientRect().left;
    onread(first + (x - pad.left) / (width - pad.left - pad.right) * (last - first));
  });
  for (const end of ["pointerleave", "blur"]) svg.addEventListener(end, () => onread(null));
  svg.addEventListener("keydown", e => {
    const by = {ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10}[e.key];
    if (!by) return;
    e.preventDefault();
    onread(longest[clamp(at + by, 0, longest.length - 1)]);
  });
  return {read};
}

/** The index of the entry of sorted `xs` that is nearest to `x`. */
function nearest(xs, x) {
  let [low, high] = [0, xs.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (x > (xs[middle] + xs[middle + 1]) / 2) low = middle + 1; else high = middle;
  }
  return low;
}

const describe = curves => curves.map(c =>
  `${c.label}: from ${short(c.y.find(y => y !== null) ?? NaN)} to ${short(c.y.findLast(y => y !== null) ?? NaN)}`).join("; ")
  + ". Arrow keys read values.";

function buildCurves() {
  if (!data.curves.length) return;
  const output = h("output", {}, String(smoothing.weight));
  byId("curves").append(h("h2", {}, "Curves"),
    h("div", {class: "toolbar", role: "group", "aria-label": "Curves"}, labelled("smoothing", h("input", {
      type: "range", min: 0, max: 0.99, step: 0.01, value: smoothing.weight, oninput: e => {
        smoothing.weight = Number(e.target.value);
        output.textContent = String(smoothing.weight);
        smoothing.redraws.forEach(redraw => redraw());
      },
    })), output),
    h("div", {class: "charts"}, data.curves.map(chart)));
  byId("curves").hidden = false;
  smoothing.redraws.forEach(redraw => redraw());
  root.dataset.charts = data.curves.length;
}

// The page --------------------------------------------------------------------------------------------------------------

function buildNavigation() {
  const links = [["summary", "Summary"], ...data.sections.map((section, i) => [`set${i}`, section.name]),
    ["table", "Scores"], ["curves", "Curves"]].filter(([id]) => !byId(id).hidden);
  const schemes = ["light dark", "light", "dark"];
  let scheme = 0;
  const change = e => {
    scheme = (scheme + 1) % 3;
    root.style.colorScheme = schemes[scheme];
    e.currentTarget.title = `colours: ${["as the system", "light", "dark"][scheme]}`;
  };
  byId("nav").append(...(links.length > 1 ? links : []).map(([id, text]) => h("a", {href: `#${id}`}, text)),
    h("button", {type: "button", title: "colours: as the system", "aria-label": "light or dark", onclick: change}, "◐"));
}

buildGallery();
buildTable();
buildCurves();
buildNavigation();
listenToLightbox();
root.dataset.ready = "";
