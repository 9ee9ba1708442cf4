"use strict";
(() => {
  // The map of a case page: draws tiles from the numbers in the page, and answers pointer and keys.
  const $ = id => document.getElementById(id);
  const data = JSON.parse($("case-data").textContent);
  const bytes = text => Uint8Array.from(atob(text), each => each.charCodeAt(0));
  const column = ({first, step, count, u2, f4}) => {
    if (f4) return Float64Array.from(new Float32Array(bytes(f4).buffer));
    if (!u2) return new Float64Array(count).fill(first);
    return Float64Array.from(new Uint16Array(bytes(u2).buffer), each => first + step * each);
  };
  const FULL = 32767, COLOURS = 255, MOST = 10;
  const palettes = {signed: bytes(data.palettes.signed), unsigned: bytes(data.palettes.unsigned)};
  const state = {layer: 0, output: data.start, pinned: null};
  const decoded = new Map();
  const hint = $("readout")?.textContent;
  const minus = text => text.replace("-", "\u2212");

  /** Scores of a slide in their unit. */
  function scores(slide, layer = state.layer, output = state.output) {
    const key = `${layer} ${output} ${slide}`;
    if (!decoded.has(key)) {
      const {values, limits} = data.layers[layer];
      decoded.set(key, Float64Array.from(new Int16Array(bytes(values[slide][output]).buffer), each => each / FULL * limits[output]));
    }
    return decoded.get(key);
  }

  /** A score with three digits, as Python's `.3g` writes it. */
  function written(value, signed) {
    let text = "0";
    if (Math.abs(value) >= 1e-4 && Math.abs(value) < 1000) text = String(Number(value.toPrecision(3)));
    else if (value !== 0) text = value.toExponential(Math.abs(value) < 1e-4 ? 1 : 2);
    return (signed && value > 0 ? "+" : "") + minus(text);
  }

  const layer = () => data.layers[state.layer];
  const output = () => data.outputs[state.output];
  const slides = data.slides.map((slide, at) => ({...slide, at, figure: document.querySelectorAll("figure.slide")[at]}));
  for (const slide of slides) {
    if (!slide.places) continue;
    const {x, y, width, height} = slide.places;
    Object.assign(slide, {x: column(x), y: column(y), w: column(width), h: column(height)});
    const around = [Infinity, Infinity, -Infinity, -Infinity];
    for (let i = 0; i < slide.tiles; i++) {
      around[0] = Math.min(around[0], slide.x[i]);
      around[1] = Math.min(around[1], slide.y[i]);
      around[2] = Math.max(around[2], slide.x[i] + slide.w[i]);
      around[3] = Math.max(around[3], slide.y[i] + slide.h[i]);
    }
    slide.around = slide.scan ? slide.scan.bounds : around;
    slide.frame = slide.figure.querySelector(".frame");
    slide.canvas = document.createElement("canvas");
    slide.canvas.tabIndex = 0;
    slide.canvas.setAttribute("role", "application");
    slide.marker = document.createElement("div");
    slide.marker.className = "marker";
    slide.tip = document.createElement("div");
    slide.tip.className = "tip";
    slide.marker.hidden = slide.tip.hidden = true;
    slide.frame.querySelector(".static").hidden = true;
    slide.frame.append(slide.canvas, slide.marker, slide.tip);
    slide.bins = null;
  }
  const drawn = slides.filter(slide => slide.places);

  /** Draw the mean score of the tiles over each pixel: edges are true, nothing is blurred. */
  function paint(slide, canvas, columns, rows) {
    const values = scores(slide.at), {signed, limits} = layer(), limit = limits[state.output];
    const [left, top, right, bottom] = slide.around;
    const across = columns / (right - left), down = rows / (bottom - top);
    const total = new Float32Array(columns * rows), count = new Uint16Array(columns * rows);
    for (let i = 0; i < values.length; i++) {
      const x0 = Math.max(0, Math.floor((slide.x[i] - left) * across + 0.5));
      const x1 = Math.min(columns, Math.max(x0 + 1, Math.floor((slide.x[i] + slide.w[i] - left) * across + 0.5)));
      const y0 = Math.max(0, Math.floor((slide.y[i] - top) * down + 0.5));
      const y1 = Math.min(rows, Math.max(y0 + 1, Math.floor((slide.y[i] + slide.h[i] - top) * down + 0.5)));
      for (let row = y0; row < y1; row++) {
        for (let at = row * columns + x0, end = row * columns + x1; at < end; at++) {
          total[at] += values[i];
          count[at]++;
        }
      }
    }
    const colours = palettes[signed ? "signed" : "unsigned"], context = canvas.getContext("2d");
    canvas.width = columns;
    canvas.height = rows;
    const image = context.createImageData(columns, rows), pixels = image.data;
    for (let at = 0; at < count.length; at++) {
      if (!count[at]) continue;
      const share = limit > 0 ? total[at] / count[at] / limit : 0;
      const step = 3 * Math.round(Math.min(1, Math.max(0, signed ? (share + 1) / 2 : share)) * (COLOURS - 1));
      pixels[4 * at] = colours[step];
      pixels[4 * at + 1] = colours[step + 1];
      pixels[4 * at + 2] = colours[step + 2];
      pixels[4 * at + 3] = 255;
    }
    context.putImageData(image, 0, 0);
  }

  function draw(slide) {
    const box = slide.frame.getBoundingClientRect(), ratio = Math.min(2, window.devicePixelRatio || 1);
    if (box.width < 1) return;
    paint(slide, slide.canvas, Math.max(1, Math.round(box.width * ratio)), Math.max(1, Math.round(box.height * ratio)));
    const name = `Map of ${slide.name}: ${layer().title}, ${output().name}. ${slide.tiles} tiles; arrow keys move between them.`;
    slide.canvas.setAttribute("aria-label", name);
  }

  /** Words on the score of a tile and where it lies. */
  function sentence(slide, tile) {
    const value = scores(slide.at)[tile], {signed, spread, units} = layer();
    const speaks = !signed || value === 0 ? "" : value > 0 ? `, ${output().meaning}` : `, against it`;
    const place = slide.places ? `at x ${Math.round(slide.x[tile])}, y ${Math.round(slide.y[tile])}` : `tile ${tile + 1}`;
    const mm = slide.places && slide.mpp ? ` (${(slide.x[tile] * slide.mpp / 1000).toFixed(2)} mm, ${(slide.y[tile] * slide.mpp / 1000).toFixed(2)} mm)` : "";
    const truth = slide.tissue ? `; truly ${slide.tissue.names[kinds(slide)[tile]]}` : "";
    const unit = units[state.output] + (spread ? ", disagreement" : "");
    return `${slide.name}, tile ${tile + 1} of ${slide.tiles}: ${written(value, signed)} ${unit}${speaks}; ${place}${mm}${truth}`;
  }

  function kinds(slide) {
    slide.kinds ??= bytes(slide.tissue.kinds);
    return slide.kinds;
  }

  function show(slide, tile) {
    for (const each of drawn) each.marker.hidden = each.tip.hidden = true;
    const readout = $("readout");
    if (slide === null) { if (readout) readout.textContent = hint; return; }
    if (readout) readout.textContent = sentence(slide, tile);
    if (!slide.places) return;
    const [left, top, right, bottom] = slide.around, {style} = slide.marker;
    const share = (value, from, to) => 100 * (value - from) / (to - from);
    style.left = `${share(slide.x[tile], left, right)}%`;
    style.top = `${share(slide.y[tile], top, bottom)}%`;
    style.width = `${100 * slide.w[tile] / (right - left)}%`;
    style.height = `${100 * slide.h[tile] / (bottom - top)}%`;
    slide.tip.textContent = written(scores(slide.at)[tile], layer().signed);
    const over = share(slide.y[tile], top, bottom) > 20, before = share(slide.x[tile], left, right) > 70;
    slide.tip.style.left = before ? "" : style.left;
    slide.tip.style.right = before ? `${100 - share(slide.x[tile], left, right)}%` : "";
    slide.tip.style.top = over ? `calc(${style.top} - 1.9rem)` : `calc(${style.top} + ${style.height} + .4rem)`;
    slide.marker.hidden = slide.tip.hidden = false;
  }

  function pin(slide, tile) {
    state.pinned = slide === null ? null : {slide, tile};
    show(slide, tile);
    document.dispatchEvent(new CustomEvent("tilepinned", {detail: state.pinned}));
  }

  /** The tiles of a slide by their place, so that the one under the pointer is found at once. */
  function bins(slide) {
    if (slide.bins) return slide.bins;
    const widest = slide.w.reduce((a, b) => Math.max(a, b), 1), highest = slide.h.reduce((a, b) => Math.max(a, b), 1);
    const cells = new Map();
    for (let i = 0; i < slide.tiles; i++) {
      const key = `${Math.floor(slide.x[i] / widest)} ${Math.floor(slide.y[i] / highest)}`;
      if (cells.has(key)) cells.get(key).push(i); else cells.set(key, [i]);
    }
    slide.bins = {widest, highest, cells};
    return slide.bins;
  }

  function tileAt(slide, event) {
    const box = slide.canvas.getBoundingClientRect(), [left, top, right, bottom] = slide.around;
    const x = left + (event.clientX - box.left) / box.width * (right - left);
    const y = top + (event.clientY - box.top) / box.height * (bottom - top);
    const {widest, highest, cells} = bins(slide);
    for (const across of [0, -1]) {
      for (const down of [0, -1]) {
        const cell = cells.get(`${Math.floor(x / widest) + across} ${Math.floor(y / highest) + down}`) || [];
        for (const i of cell) {
          if (x >= slide.x[i] && x < slide.x[i] + slide.w[i] && y >= slide.y[i] && y < slide.y[i] + slide.h[i]) return i;
        }
      }
    }
    return null;
  }

  /** The next tile in a direction: near, and as straight ahead as there is one. */
  function neighbour(slide, tile, across, down) {
    let best = tile, least = Infinity;
    for (let i = 0; i < slide.tiles; i++) {
      const dx = slide.x[i] - slide.x[tile], dy = slide.y[i] - slide.y[tile];
      const ahead = dx * across + dy * down, aside = Math.abs(dx * down) + Math.abs(dy * across);
      if (ahead > 0 && ahead + 3 * aside < least && aside <= ahead) [best, least] = [i, ahead + 3 * aside];
    }
    return best;
  }

  const ranks = new Map();
  function ranking(slide) {
    const key = `${state.layer} ${state.output} ${slide.at}`;
    if (!ranks.has(key)) {
      const values = scores(slide.at);
      ranks.set(key, Array.from(values.keys()).sort((a, b) => values[b] - values[a] || a - b));
    }
    return ranks.get(key);
  }

  function onKey(slide, event) {
    const order = ranking(slide), held = state.pinned && state.pinned.slide === slide ? state.pinned.tile : null;
    const arrows = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
    let tile = held ?? order[0];
    if (event.key === "Escape") { pin(null); return; }
    if (event.key in arrows) { if (held !== null) tile = neighbour(slide, tile, ...arrows[event.key]); }
    else if (event.key === "Home") tile = order[0];
    else if (event.key === "End") tile = order[order.length - 1];
    else if (event.key === "PageUp") tile = order[Math.max(0, order.indexOf(tile) - 1)];
    else if (event.key === "PageDown") tile = order[Math.min(order.length - 1, order.indexOf(tile) + 1)];
    else return;
    event.preventDefault();
    pin(slide, tile);
  }

  for (const slide of drawn) {
    slide.canvas.addEventListener("pointermove", event => {
      const tile = tileAt(slide, event);
      if (tile !== null) show(slide, tile); else show(state.pinned?.slide ?? null, state.pinned?.tile);
    });
    slide.canvas.addEventListener("pointerleave", () => show(state.pinned?.slide ?? null, state.pinned?.tile));
    slide.canvas.addEventListener("click", event => {
      const tile = tileAt(slide, event);
      pin(tile === null ? null : slide, tile);
    });
    slide.canvas.addEventListener("keydown", event => onKey(slide, event));
    slide.canvas.addEventListener("focus", () => {
      if (!state.pinned || state.pinned.slide !== slide) pin(slide, ranking(slide)[0]);
    });
    new ResizeObserver(() => draw(slide)).observe(slide.frame);
  }

  /** The strongest tiles of all slides together, highest first or lowest first. */
  function strongest(highest) {
    const all = [];
    for (const slide of slides) {
      const order = ranking(slide), values = scores(slide.at);
      const part = highest ? order.slice(0, MOST) : order.slice(-MOST).reverse();
      all.push(...part.map(tile => ({slide, tile, value: values[tile]})));
    }
    all.sort((a, b) => highest ? b.value - a.value : a.value - b.value);
    const fits = each => !layer().signed || (highest ? each.value > 0 : each.value < 0);
    return all.filter(fits).slice(0, MOST);
  }

  function cell(row, kind, ...content) {
    const each = document.createElement(kind);
    each.append(...content);
    row.append(each);
    return each;
  }

  function list(name, rows, heading) {
    const place = $(`list-${name}`), body = place.querySelector("tbody");
    place.hidden = !rows.length;
    place.querySelector("h3").textContent = heading;
    const pictures = place.querySelector("thead").rows[0].cells.length === 5;
    body.replaceChildren(...rows.map(({slide, tile, value}, at) => {
      const row = document.createElement("tr"), button = document.createElement("button");
      button.type = "button";
      button.textContent = String(at + 1);
      button.setAttribute("aria-label", `Rank ${at + 1}: show the tile on the map`);
      button.addEventListener("click", () => {
        pin(slide, tile);
        slide.frame?.scrollIntoView({block: "nearest"});
      });
      cell(row, "th", slide.places ? button : String(at + 1)).scope = "row";
      if (pictures) {
        const address = slide.pictures?.[tile];
        if (address) {
          const image = new Image();
          image.src = address;
          image.alt = `tile of rank ${at + 1}`;
          cell(row, "td", image);
        } else cell(row, "td", "\u2013");
      }
      cell(row, "td", written(value, layer().signed));
      cell(row, "td", slide.places ? `x ${Math.round(slide.x[tile])}, y ${Math.round(slide.y[tile])}` : `tile ${tile + 1}`);
      cell(row, "td", slide.name);
      return row;
    }));
  }

  function update() {
    const {title, signed, sentence: answers, beliefs, limits, units, note} = layer(), {name, meaning} = output(), unit = units[state.output];
    drawn.forEach(draw);
    $("answers").textContent = answers;
    $("note").textContent = note;
    const {sentence: belief, numbers, believable} = beliefs[state.output];
    $("belief").textContent = belief;
    $("belief-numbers").textContent = numbers;
    $("belief").className = `belief ${believable === true ? "yes" : believable === false ? "no" : "open"}`;
    if (drawn.length) {
      const limit = written(limits[state.output], false), [scaleSigned, scaleUnsigned] = gradients;
      $("scale").style.background = signed ? scaleSigned : scaleUnsigned;
      $("low").textContent = signed ? `\u2212${limit}` : "0";
      $("middle").textContent = signed ? "0" : "";
      $("high").textContent = `${signed ? "+" : ""}${limit} ${unit}`;
      const words = signed ? `Right: ${meaning}; left: against it.` : `Right: ${title} is largest.`;
      $("meaning").textContent = words + (slides.length > 1 ? " All slides have the same scale." : "");
    }
    $("listed").textContent = `${title}, ${name}, in ${unit}.`;
    list("for", strongest(true), signed ? "For it" : "Largest");
    list("against", signed ? strongest(false) : [], "Against it");
    show(state.pinned?.slide ?? null, state.pinned?.tile);
    document.dispatchEvent(new Event("mapchanged"));
  }

  const gradients = ["signed", "unsigned"].map(name => {
    const colours = palettes[name], stops = [];
    for (let at = 0; at < COLOURS; at += 2) stops.push(`rgb(${colours.slice(3 * at, 3 * at + 3).join(" ")})`);
    return `linear-gradient(to right, ${stops.join(", ")})`;
  });
  const controls = document.querySelector(".controls");
  controls.hidden = false;
  controls.addEventListener("submit", event => event.preventDefault());
  if ($("readout")) $("readout").hidden = false;
  for (const name of ["layer", "output"]) {
    if ($(name)) $(name).value = String(state[name]);  // a browser may keep what was chosen before
    $(name)?.addEventListener("change", event => { state[name] = Number(event.target.value); update(); });
  }
  const fade = () => {
    for (const slide of drawn) {
      const share = Number($("opacity").value) / 100, under = slide.frame.querySelector(".under");
      slide.canvas.style.opacity = share;
      if (under) under.style.opacity = slide.scan || share < 1 ? 1 : 0;
    }
  };
  if ($("opacity")) { $("opacity").addEventListener("input", fade); fade(); }
  window.milCase = {slides: drawn, paint, state};
  update();
})();
