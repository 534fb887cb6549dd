// Shows the numbers under the pointer. Everything on the page can be read without it.
"use strict";
for (const svg of document.querySelectorAll("svg.chart")) {
  const data = JSON.parse(svg.nextElementSibling.textContent);
  const figure = svg.closest("figure");
  const cross = svg.querySelector(".cross");
  const [left, right, width] = data.box;
  let tip = null;
  const hide = () => {
    cross.setAttribute("visibility", "hidden");
    if (tip) tip.remove();
    tip = null;
  };
  const number = (y) => {
    const plain = y === 0 || (Math.abs(y) >= 1e-3 && Math.abs(y) < 1e6);
    return plain ? Number(y.toPrecision(3)).toString() : y.toExponential(2);
  };
  const nearest = (places, x) => {
    let best = 0;
    for (let i = 1; i < places.length; i++) {
      if (Math.abs(places[i] - x) < Math.abs(places[best] - x)) best = i;
    }
    return best;
  };
  const line = (name, value, role) => {
    const row = document.createElement("div");
    if (role) {
      const key = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      key.setAttribute("class", "key");
      key.setAttribute("viewBox", "0 0 22 8");
      const stroke = document.createElementNS("http://www.w3.org/2000/svg", "line");
      stroke.setAttribute("class", "curve " + role);
      for (const [k, v] of Object.entries({x1: 0, x2: 22, y1: 4, y2: 4})) stroke.setAttribute(k, v);
      key.append(stroke);
      row.append(key);
    }
    for (const text of [name, value]) {
      const part = document.createElement("span");
      part.textContent = text;
      row.append(part);
    }
    return row;
  };
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * width;
    if (at < left - 8 || at > right + 8) return hide();
    const [low, high] = data.x;
    const wanted = low + ((at - left) / (right - left)) * (high - low);
    const places = data.series.flatMap((series) => series.x);
    const snapped = places[nearest(places, wanted)];
    const rows = [];
    for (const series of data.series) {
      if (snapped > series.x[series.x.length - 1]) continue; // it is shorter than others
      const y = series.y[nearest(series.x, snapped)];
      if (y != null) rows.push(line(series.name, number(y), series.role)); // a gap, or no points
    }
    if (!rows.length) return hide();
    const x = left + ((snapped - low) / (high - low)) * (right - left);
    cross.setAttribute("x1", x);
    cross.setAttribute("x2", x);
    cross.setAttribute("visibility", "visible");
    if (!tip) {
      tip = document.createElement("div");
      tip.className = "tip";
      figure.append(tip);
    }
    const head = line(data.label, snapped.toString(), null);
    head.style.fontWeight = "600";
    tip.replaceChildren(head, ...rows.reverse());
    const inside = figure.getBoundingClientRect();
    const middle = box.left - inside.left + (x / width) * box.width;
    const right_side = middle > inside.width / 2;
    tip.style.left = right_side ? "auto" : middle + 12 + "px";
    tip.style.right = right_side ? inside.width - middle + 12 + "px" : "auto";
    tip.style.top = box.top - inside.top + 8 + "px";
  });
  svg.addEventListener("pointerleave", hide);
}
