"use strict";
/* The page of `cxr-trt report`. Texts of the table, such as file names, enter the document as text, never as HTML. */
(() => {
  const MAX_PRINTED_ROWS = 500;
  const MAX_OPACITY = 0.6; // where a map is highest, as in the heat maps
  const CELL_PIXELS = 8; // side of a map's cell in the overlay
  const data = JSON.parse(byId("data").textContent);
  const LABELS = { true: "present", false: "absent" };
  const DEFAULTS = { least: "0", sort: "value desc" };
  const palette = bytes(data.palette);
  const rows = data.cases.map((item, number) => ({ ...item, number, notes: [...item.warnings].join("; ") }));
  const controls = Object.fromEntries(
    ["finding", "least", "positive", "label", "warning", "search", "sort"].map((name) => [name, byId(name)]),
  );
  const dialog = byId("case");
  let order = []; // numbers of the rows that the table shows, in its order
  let shown = null; // number of the case in the dialog
  let focused = null; // number of the row whose picture has the focus, also while the table is drawn anew
  let linked; // number of the row whose case the address names
  let stop = null; // number of the row whose picture is reached with Tab

  function byId(id) {
    return document.getElementById(id);
  }

  function bytes(text) {
    return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  }

  function make(tag, properties = {}, ...children) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  }

  function words(finding) {
    return data.findings[finding].replaceAll("_", " ");
  }

  function number(value) {
    return value === null || value === undefined ? "" : value.toFixed(3);
  }

  /* Give each row the values of the chosen finding, or of its highest one. */
  function choose() {
    const chosen = controls.finding.value === "" ? null : Number(controls.finding.value);
    for (const row of rows) {
      const place = chosen ?? row.scores.indexOf(Math.max(...row.scores));
      row.place = place;
      row.finding = words(place);
      row.value = row.scores[place];
      row.calibratedValue = row.calibrated?.[place] ?? null;
      row.label = row.labels?.[place] ?? null;
      row.boxCount = row.boxes?.filter((box) => box[0] === place).length || "";
      row.falsePositive = row.label === false ? row.value : -1;
      row.falseNegative = row.label === true ? 1 - row.value : -1;
      row.answer = { true: "yes", false: "no" }[row.positive?.[place]] ?? "";
    }
    for (const button of document.querySelectorAll(".distributions button")) {
      button.setAttribute("aria-pressed", String(button.dataset.finding === controls.finding.value));
    }
  }

  function matches(row) {
    const warning = controls.warning.value;
    return (
      row.value >= Number(controls.least.value || 0) &&
      (!controls.positive.checked || row.answer === "yes") &&
      (controls.label.value === "" || controls.label.value === LABELS[row.label] ||
        (controls.label.value === "unknown" && row.label === null)) &&
      (warning === "" || (warning === "any" ? row.warnings.length > 0 : row.warnings.includes(data.warnings[warning]))) &&
      row.path.toLowerCase().includes(controls.search.value.trim().toLowerCase())
    );
  }

  /* Lowest and highest value of a map's colours: of its own, or those of all maps of its finding. */
  function ends(map) {
    return byId("scale").value === "common" ? data.scales[map.finding] : [map.median, map.high];
  }

  /* Paint a map in its colours on a canvas with the picture's shape, clear where the map is low. */
  function paint(canvas, row, map) {
    const [height, width] = row.shape;
    Object.assign(canvas, { width, height });
    canvas.dataset.scale = byId("scale").value;
    const context = canvas.getContext("2d");
    if (!map) return;
    const [low, high] = ends(map);
    const step = (map.high - map.low) / 255; // of a cell
    const cells = Float32Array.from(bytes(map.cells), (cell) => (map.low + cell * step - low) * (255 / (high - low || 1)));
    const small = make("canvas", { width: map.columns * CELL_PIXELS, height: map.rows * CELL_PIXELS });
    const pixels = new ImageData(small.width, small.height);
    for (let y = 0; y < small.height; y++) {
      for (let x = 0; x < small.width; x++) {
        const value = interpolate(cells, map, (y + 0.5) / CELL_PIXELS - 0.5, (x + 0.5) / CELL_PIXELS - 0.5);
        const heat = Math.min(Math.max(value, 0), 255);
        const at = 4 * (y * small.width + x);
        pixels.data.set(palette.subarray(3 * Math.round(heat), 3 * Math.round(heat) + 3), at);
        pixels.data[at + 3] = MAX_OPACITY * heat;
      }
    }
    small.getContext("2d").putImageData(pixels, 0, 0);
    const [top, left, down, across] = row.rectangle;
    context.imageSmoothingQuality = "high";
    context.drawImage(small, left * width, top * height, across * width, down * height);
  }

  /* Interpolate the cells at (y, x) bilinearly; constant beyond the outermost cells. */
  function interpolate(cells, map, y, x) {
    const clamp = (value, most) => Math.min(Math.max(value, 0), most);
    const [top, left] = [clamp(Math.floor(y), map.rows - 1), clamp(Math.floor(x), map.columns - 1)];
    const [bottom, right] = [clamp(top + 1, map.rows - 1), clamp(left + 1, map.columns - 1)];
    const [down, across] = [clamp(y - top, 1), clamp(x - left, 1)];
    const at = (row, column) => cells[row * map.columns + column];
    const upper = at(top, left) * (1 - across) + at(top, right) * across;
    const lower = at(bottom, left) * (1 - across) + at(bottom, right) * across;
    return upper * (1 - down) + lower * down;
  }

  function picture(row) {
    return `data:image/jpeg;base64,${row.picture}`;
  }

  /* The picture of a row as a button: hover or focus shows its map, click or Enter opens it, arrow keys move on. */
  function thumb(cell) {
    const row = cell.getData();
    const button = make("button", { type: "button", className: "thumb", tabIndex: row.number === stop ? 0 : -1 });
    button.setAttribute("aria-label", `Open ${row.path}, ${row.finding} ${number(row.value)}`);
    button.dataset.number = row.number;
    if (row.picture) {
      const map = row.maps.find((item) => item.finding === row.place) ?? row.maps[0];
      const canvas = make("canvas");
      const once = () => {
        if (canvas.dataset.scale !== byId("scale").value) paint(canvas, row, map);
      };
      button.addEventListener("pointerenter", once);
      button.addEventListener("focus", once);
      button.append(make("img", { src: picture(row), alt: "", loading: "lazy" }), canvas);
      if (map) button.title = `${words(map.finding)} ${number(row.scores[map.finding])}`;
    } else {
      button.classList.add("empty");
      button.textContent = "open";
    }
    button.addEventListener("click", (event) => {
      event.stopPropagation();
      open(row.number);
    });
    button.addEventListener("focus", () => {
      focused = row.number;
      makeStop(focused);
    });
    button.addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      focusThumb(order[order.indexOf(row.number) + step]);
    });
    return button;
  }

  /* One picture at a time is reached with Tab; the arrow keys move on from there. */
  function makeStop(target) {
    if (target === undefined) return;
    stop = target;
    for (const other of document.querySelectorAll(".thumb")) other.tabIndex = Number(other.dataset.number) === stop ? 0 : -1;
  }

  async function focusThumb(target) {
    if (target === undefined) return;
    await table.scrollToRow(target, "nearest", false).catch(() => undefined);
    document.querySelector(`.thumb[data-number="${target}"]`)?.focus();
  }

  function bar(value) {
    if (value === null) return "";
    const line = make("i");
    line.style.width = `${100 * value}%`;
    return make("span", { className: "score" }, number(value), make("span", {}, line));
  }

  const text = (cell) => make("span", { textContent: cell.getValue() ?? "", title: cell.getValue() ?? "" });
  choose();
  if (data.calibrated) document.body.classList.add("has-calibration");
  if (data.labelled) document.body.classList.add("has-labels");
  for (const option of controls.sort.querySelectorAll(".labelled")) if (!data.labelled) option.remove();
  if (rows.some((row) => row.picture)) document.body.classList.add("has-pictures");
  if (rows.some((row) => row.boxes)) document.body.classList.add("has-boxes");
  const isPhone = matchMedia("(max-width: 600px)").matches;
  if (isPhone) document.querySelector(".fold").open = false;
  recall();
  choose();
  const table = new Tabulator("#table", {
    data: rows,
    index: "number",
    layout: "fitColumns",
    maxHeight: "72vh",
    rowHeight: data.cases.some((item) => item.picture) ? 76 : 46,
    placeholder: "No X-ray matches.",
    initialSort: [{ column: "value", dir: "desc" }],
    columns: [
      { title: "Picture", field: "number", formatter: thumb, headerSort: false, width: isPhone ? 76 : 88, resizable: false },
      { title: "File", field: "path", formatter: text, sorter: "string", widthGrow: 3, minWidth: isPhone ? 90 : 140 },
      {
        title: "Score", field: "value", formatter: (cell) => bar(cell.getValue()), sorter: "number",
        minWidth: isPhone ? 84 : 130,
      },
      { title: "Finding", field: "finding", formatter: text, sorter: "string", minWidth: isPhone ? 90 : 160 },
      {
        title: "Label", field: "label", formatter: (cell) => LABELS[cell.getValue()] ?? "",
        sorter: "string", width: 95, visible: data.labelled,
      },
      { title: "Boxes", field: "boxCount", sorter: "number", width: 92, visible: rows.some((row) => row.boxes) },
      { title: "", field: "falsePositive", visible: false, sorter: "number" },
      { title: "", field: "falseNegative", visible: false, sorter: "number" },
      {
        title: "Calibrated", field: "calibratedValue", formatter: (cell) => bar(cell.getValue()), sorter: "number",
        minWidth: 130, visible: data.calibrated,
      },
      { title: "Positive", field: "answer", formatter: text, sorter: "string", width: 125, visible: data.calibrated },
      { title: "Warnings", field: "notes", formatter: text, sorter: "string", widthGrow: 2, minWidth: 120 },
    ],
  });

  function remember() {
    order = table.getRows("active").map((row) => row.getData().number);
    byId("status").textContent = `${order.length} of ${rows.length} X-rays`;
    if (!order.includes(stop)) makeStop(order[0]);
    else makeStop(stop);
    const fields = Object.entries(controls).map(([name, control]) => [name, control.type === "checkbox" ? (control.checked ? "1" : "") : control.value]);
    const changed = fields.filter(([name, value]) => value !== "" && value !== DEFAULTS[name]);
    if (dialog.open) changed.push(["xray", rows[shown].path]);
    history.replaceState(null, "", changed.length ? `#${new URLSearchParams(changed)}` : "#");
  }

  /* Take the state of the controls from the address. */
  function recall() {
    for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
      if (name === "xray") linked = rows.find((row) => row.path === value)?.number;
      const control = controls[name];
      if (control?.type === "checkbox") control.checked = value === "1";
      else if (control) control.value = value;
      if (control?.tagName === "SELECT" && control.selectedIndex < 0) control.selectedIndex = 0;
    }
  }

  /* The rows that the table shows, in its order, as a CSV that is no formula anywhere in a spreadsheet. */
  byId("export").addEventListener("click", () => {
    const safe = (value) => `"${String(value ?? "").replace(/^(['=+\-@\t\r])/, "'$1").replaceAll('"', '""')}"`;
    const head = ["path", ...data.findings, ...(data.labelled ? ["label of", "label"] : []), "warnings"];
    const lines = order.map((target) => {
      const row = rows[target];
      const label = data.labelled ? [safe(row.finding), row.label === null ? "" : Number(row.label)] : [];
      return [safe(row.path), ...row.scores, ...label, safe(row.notes)].join(",");
    });
    const blob = new Blob([`\ufeff${head.map(safe).join(",")}\n${lines.join("\n")}\n`], { type: "text/csv" });
    const link = make("a", { href: URL.createObjectURL(blob), download: "xrays.csv" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });

  function sort(wanted) {
    const [column, dir] = wanted.split(" ");
    table.setSort(column, dir);
  }

  let waiting = Promise.resolve();
  function update({ chooses = false, sorts = false } = {}) {
    const wanted = controls.sort.value; // until then, what Tabulator says of its order may set the control back
    waiting = waiting.then(async () => {
      if (chooses) {
        choose();
        await table.replaceData(rows);
      }
      table.setFilter(matches);
      if (sorts) sort(wanted);
      remember();
    });
  }

  table.on("tableBuilt", () => {
    table.on("dataSorted", (sorters) => {
      const wanted = sorters.length ? `${sorters[0].field} ${sorters[0].dir}` : "";
      if ([...controls.sort.options].some((option) => option.value === wanted)) controls.sort.value = wanted;
      setTimeout(remember);
    });
    table.on("renderComplete", () => {
      if (focused !== null && document.activeElement === document.body) focusThumb(focused);
    });
    addEventListener("pointerdown", () => (focused = null));
    addEventListener("focusin", (event) => event.target.classList.contains("thumb") || (focused = null));
    table.on("rowClick", (event, row) => open(row.getData().number));
    if (location.hash.length > 1) update({ sorts: true });
    else remember();
    if (linked !== undefined) waiting.then(() => open(linked));
  });
  controls.finding.addEventListener("change", () => update({ chooses: true, sorts: true }));
  controls.sort.addEventListener("change", () => update({ sorts: true }));
  for (const name of ["least", "search"]) controls[name].addEventListener("input", () => update());
  for (const name of ["positive", "label", "warning"]) controls[name].addEventListener("change", () => update());
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  byId("controls").addEventListener("reset", () => setTimeout(() => update({ chooses: true, sorts: true })));
  for (const button of document.querySelectorAll(".distributions button")) {
    button.addEventListener("click", () => {
      const { finding } = button.dataset;
      controls.finding.value = controls.finding.value === finding ? "" : finding;
      update({ chooses: true, sorts: true });
    });
  }

  /* The dialog with one X-ray. */
  function open(target) {
    if (target === undefined) return;
    shown = target;
    const row = rows[target];
    byId("case-title").textContent = row.path;
    byId("case-facts").textContent = row.facts;
    byId("case-notes").textContent = row.notes;
    byId("case-pictures").replaceChildren(...figures(row));
    byId("case-scores").replaceChildren(...scoreRows(row));
    const place = order.indexOf(target);
    byId("previous").disabled = place <= 0;
    byId("next").disabled = place < 0 || place === order.length - 1;
    if (!dialog.open) dialog.showModal();
    remember();
  }

  function figures(row) {
    if (!row.picture) return [make("p", { className: "hint", textContent: "This page has no picture of this X-ray." })];
    const sheet = (...layers) => make("div", { className: "view" }, make("div", { className: "sheet" }, ...layers));
    const image = (alt) => make("img", { src: picture(row), alt });
    const boxes = (finding) =>
      (row.boxes ?? []).filter((box) => finding === null || box[0] === finding).map(([place, y, x, height, width]) => {
        const box = make("div", { className: "box", title: `box: ${words(place)}` });
        Object.assign(box.style, { top: `${100 * y}%`, left: `${100 * x}%`, height: `${100 * height}%`, width: `${100 * width}%` });
        return box;
      });
    const whole = sheet(image(`X-ray ${row.path}`), ...boxes(null));
    const boxed = [...new Set((row.boxes ?? []).map((box) => words(box[0])))];
    const caption = boxed.length ? `without a map; boxes: ${boxed.join(", ")}` : "without a map";
    const original = make("figure", {}, whole, make("figcaption", { textContent: caption }));
    const maps = row.maps.map((map) => {
      const canvas = make("canvas");
      const caption = describe(row, map.finding);
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `Heat map of ${caption}`);
      paint(canvas, row, map);
      return make("figure", {}, sheet(image(""), canvas, ...boxes(map.finding)), ramp(map), make("figcaption", { textContent: caption }));
    });
    return [original, ...maps];
  }

  function ramp(map) {
    const line = make("i");
    const stops = [0, 64, 128, 192, 255].map((heat) => `rgb(${palette.subarray(3 * heat, 3 * heat + 3).join(" ")})`);
    line.style.background = `linear-gradient(to right, ${stops.join(", ")})`;
    const [low, high] = ends(map).map((value) => value.toFixed(2));
    return make("div", { className: "ramp", title: "class map: the evidence before the sigmoid" }, low, line, high);
  }

  function describe(row, finding) {
    const calibrated = row.calibrated?.[finding];
    const answer = { true: ", yes", false: ", no" }[row.positive?.[finding]] ?? "";
    const more = calibrated === null || calibrated === undefined ? "" : `, calibrated ${number(calibrated)}${answer}`;
    return `${words(finding)} ${number(row.scores[finding])}${more}`;
  }

  function scoreRows(row) {
    const heads = ["Finding", "Score", ...(data.calibrated ? ["Calibrated", "Positive"] : []), ...(row.labels ? ["Label"] : [])];
    const head = make("tr", {}, ...heads.map((textContent) => make("th", { scope: "col", textContent })));
    const ranked = row.scores.map((_, place) => place).sort((a, b) => row.scores[b] - row.scores[a]);
    return [
      head,
      ...ranked.map((place) => {
        const cells = [make("td", { textContent: words(place) }), make("td", {}, bar(row.scores[place]))];
        if (data.calibrated) {
          const answer = { true: "yes", false: "no" }[row.positive[place]] ?? "not fitted";
          cells.push(make("td", { textContent: number(row.calibrated[place]) }), make("td", { textContent: answer }));
        }
        if (row.labels) cells.push(make("td", { textContent: LABELS[row.labels[place]] ?? "" }));
        return make("tr", {}, ...cells);
      }),
    ];
  }

  const sheets = byId("case-pictures").style;
  byId("zoom").addEventListener("input", () => sheets.setProperty("--zoom", byId("zoom").value));
  byId("opacity").addEventListener("input", () => sheets.setProperty("--opacity", byId("opacity").value));
  byId("scale").addEventListener("change", () => byId("case-pictures").replaceChildren(...figures(rows[shown])));
  for (const [id, name] of [["map-on", "no-maps"], ["boxes-on", "no-boxes"]]) {
    byId(id).addEventListener("change", () => document.body.classList.toggle(name, !byId(id).checked));
  }

  byId("previous").addEventListener("click", () => open(order[order.indexOf(shown) - 1]));
  byId("next").addEventListener("click", () => open(order[order.indexOf(shown) + 1]));
  byId("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step && event.target.type !== "range") open(order[order.indexOf(shown) + step]);
  });
  dialog.addEventListener("close", () => {
    remember();
    focusThumb(shown);
  });

  /* On paper: the rows that the table shows, in its order, at most MAX_PRINTED_ROWS of them. */
  addEventListener("beforeprint", () => {
    const heads = ["", "File", "Finding", "Score", ...(data.calibrated ? ["Calibrated", "Positive"] : []), "Warnings"];
    const head = make("tr", {}, ...heads.map((textContent) => make("th", { textContent })));
    const lines = order.slice(0, MAX_PRINTED_ROWS).map((target) => {
      const row = rows[target];
      const image = row.picture ? [make("img", { src: picture(row), alt: "" })] : [];
      const calibrated = data.calibrated ? [number(row.calibratedValue), row.answer] : [];
      const texts = [row.path, row.finding, number(row.value), ...calibrated, row.notes];
      const cells = texts.map((textContent) => make("td", { textContent }));
      return make("tr", {}, make("td", {}, ...image), ...cells);
    });
    const textContent = `the first ${MAX_PRINTED_ROWS} of ${order.length} X-rays`;
    const rest = order.length > MAX_PRINTED_ROWS ? [make("caption", { textContent })] : [];
    byId("print").replaceChildren(...rest, make("thead", {}, head), make("tbody", {}, ...lines));
  });
})();
