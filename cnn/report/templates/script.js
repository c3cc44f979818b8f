"use strict";
document.documentElement.classList.add("scripted");

// Clicking a heading sorts its table by that column; clicking it again reverses the order.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.filter((heading) => heading.scope === "col").forEach((heading) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => sort(table, headings, heading));
  });
}

function sort(table, headings, heading) {
  const column = headings.indexOf(heading);
  const rising = heading.getAttribute("aria-sort") !== "ascending";
  headings.forEach((other) => other.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", rising ? "ascending" : "descending");
  const rows = [...table.tBodies[0].rows];
  const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
  const known = (row) => value(row) !== "";
  const compare = (a, b) => "value" in rows[0].cells[column].dataset
    ? value(a) - value(b) : value(a).localeCompare(value(b), undefined, { numeric: true });
  // What is unknown is last in both directions.
  rows.sort((a, b) => known(b) - known(a) || (rising ? 1 : -1) * compare(a, b));
  table.tBodies[0].append(...rows);
}

// Paper has no clicks: all details are printed.
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});

// The confusion matrix shows the counts of the cell under the pointer, or of the one that the arrow keys reach.
const source = document.getElementById("confusion-data");
if (source) {
  const data = JSON.parse(source.textContent);
  const counts = new Map(data.counts.map(([label, predicted, ...counted]) => [`${label},${predicted}`, counted]));
  const panel = document.getElementById("cell");

  const element = (tag, content, name) => {
    const made = document.createElement(tag);
    made.append(...[content].flat());
    if (name) made.className = name;
    return made;
  };
  const title = (label, predicted) => label === predicted
    ? [element("b", element("bdi", data.classes[label])), " recognised"]
    : [element("b", element("bdi", data.classes[label])), " predicted as ", element("b", element("bdi", data.classes[predicted]))];
  const figures = (label, predicted) => {
    const [count, share] = counts.get(`${label},${predicted}`) ?? [0, "0%"], support = data.support[label];
    const figure = `${count.toLocaleString("en")} of ${support.toLocaleString("en")} image${support === 1 ? "" : "s"}`;
    return support ? `${figure}, ${share}` : figure;
  };

  const show = (label, predicted) => {
    const examples = data.examples[`${label},${predicted}`] ?? [];
    const [count] = counts.get(`${label},${predicted}`) ?? [0];
    const images = examples.map(([path, confidence, image]) => {
      const picture = element("img", []);
      picture.src = image;
      picture.alt = `${data.classes[label]} predicted as ${data.classes[predicted]}: ${path}`;
      const said = element("p", `${confidence} sure`, "muted");
      return element("li", [picture, said, element("p", element("bdi", path), "path")]);
    });
    const rest = !count || images.length === count ? "" : images.length
      ? `The ${images.length} most confident are shown; all are in the predictions.`
      : "Their images are not in this page; their paths are in the predictions.";
    const heading = element("h3", [element("span", title(label, predicted)), element("span", figures(label, predicted), "tally")]);
    panel.replaceChildren(heading, element("ul", images, "gallery"), element("p", rest, "small"));
    panel.hidden = false;
  };

  for (const figure of document.querySelectorAll("[data-view]")) matrix(figure);

  function matrix(figure) {
    const stage = figure.querySelector(".stage"), order = data.views[figure.dataset.view];
    const cursor = element("i", [], "cursor"), tip = element("div", [], "tip");
    tip.setAttribute("aria-live", "polite");
    stage.append(cursor, tip);
    stage.tabIndex = 0;
    stage.setAttribute("role", "application");
    let row = 0, column = 0;

    const box = () => {
      const outer = stage.getBoundingClientRect(), inner = stage.querySelector("image").getBoundingClientRect();
      return { left: inner.left - outer.left, top: inner.top - outer.top, side: inner.width / order.length, outer, inner };
    };
    const move = (to, across) => {
      row = Math.min(Math.max(to, 0), order.length - 1);
      column = Math.min(Math.max(across, 0), order.length - 1);
      const { left, top, side, outer } = box();
      const x = left + column * side, y = top + row * side;
      Object.assign(cursor.style, { left: `${x}px`, top: `${y}px`, width: `${side}px`, height: `${side}px` });
      const pair = [order[row], order[column]];
      tip.replaceChildren(element("span", title(...pair)), element("span", figures(...pair), "muted"));
      stage.classList.add("active");
      const most = outer.width - tip.offsetWidth;
      const above = y - tip.offsetHeight - 8;
      Object.assign(tip.style, {
        left: `${Math.max(0, Math.min(x + side / 2 - tip.offsetWidth / 2, most))}px`,
        top: `${above < 0 ? y + side + 8 : above}px`,
      });
    };
    const at = (event) => {
      const { inner, side } = box();
      const down = Math.floor((event.clientY - inner.top) / side);
      const across = Math.floor((event.clientX - inner.left) / side);
      return [down, across].every((n) => n >= 0 && n < order.length) ? [down, across] : null;
    };
    const leave = () => stage.classList.remove("active");

    stage.addEventListener("pointermove", (event) => { const cell = at(event); if (cell) move(...cell); else leave(); });
    stage.addEventListener("pointerleave", leave);
    stage.addEventListener("blur", leave);
    stage.addEventListener("focus", () => { if (stage.matches(":focus-visible")) move(row, column); });
    stage.addEventListener("click", (event) => {
      const cell = at(event);
      if (cell) { move(...cell); show(order[row], order[column]); }
    });
    stage.addEventListener("keydown", (event) => {
      const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (step) move(row + step[0], column + step[1]);
      else if (event.key === "Enter" || event.key === " ") show(order[row], order[column]);
      else if (event.key === "Escape") leave();
      else return;
      event.preventDefault();
    });
  }

  for (const button of document.querySelectorAll("[data-cell]")) {
    button.addEventListener("click", () => {
      show(...button.dataset.cell.split(",").map(Number));
      panel.scrollIntoView({ block: "nearest" });
    });
  }
}
