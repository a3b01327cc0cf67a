// The report's behaviour: links open what they lead to, and judged answers can be filtered, searched and compared.
// Texts of models and judges reach the page as text nodes only.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const section = document.getElementById("samples");
const form = section.querySelector("form");
const list = section.querySelector(".matches");
const view = section.querySelector(".sample");
const counter = section.querySelector("output");
const FILTERS = ["comparison", "model", "benchmark", "verdict", "category"];
const PREFIX = "#samples?";

const samples = data.samples.map((sample) => {
  const pair = data.pairs[sample.pair];
  return { ...sample, pair, comparison: pair.comparison, model: pair.model, methods: data.comparisons[pair.comparison] };
});
let shown = samples; // those that match the filters
let current = null;
let order = "ab"; // whose answer stands first
let searchable = null; // each sample's texts in lower case, made at the first search

/** An element with a class, and texts or elements in it. */
function element(tag, className, ...content) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...content);
  return made;
}

/** Which method has won, in words. */
function verdictText(sample) {
  const { a, b } = sample.methods;
  return { "first wins": `${a} wins`, "second wins": `${b} wins` }[sample.verdict] ?? sample.verdict;
}

/** A text with its differing spans marked. Spans count code points. */
function marked(text, spans) {
  const points = Array.from(text);
  const parts = [];
  let from = 0;
  for (const [start, end] of spans) {
    parts.push(points.slice(from, start).join(""), element("mark", "", points.slice(start, end).join("")));
    from = end;
  }
  return [...parts, points.slice(from).join("")];
}

/** All texts of a sample, for the search. */
function textsOf(sample) {
  const numbers = [
    ...sample.turns.flatMap((turn) => [turn.user, turn.a, turn.b]),
    ...sample.games.map((game) => game.text),
  ];
  return [sample.question, ...numbers.filter((number) => number !== null).map((number) => data.texts[number])]
    .join("\n")
    .toLowerCase();
}

/** The samples that match the form. */
function matching() {
  const wanted = FILTERS.map((name) => [name, form.elements[name].value]).filter(([, value]) => value);
  const text = form.elements.search.value.trim().toLowerCase();
  if (text && searchable === null) searchable = new Map(samples.map((sample) => [sample, textsOf(sample)]));
  return samples.filter(
    (sample) =>
      wanted.every(([name, value]) => sample[name] === value) && (!text || searchable.get(sample).includes(text)),
  );
}

/** Fill the list and show the sample of this id, or the first. */
function update(id) {
  shown = matching();
  const rows = shown.map((sample, number) => {
    const row = element("li", "", `${sample.question} · ${verdictText(sample)}`);
    row.append(element("small", "", `${sample.methods.a} against ${sample.methods.b}`));
    row.append(element("small", "", `${sample.model}, ${sample.benchmark}, ${sample.category}`));
    row.id = `match-${number}`;
    row.setAttribute("role", "option");
    return row;
  });
  list.replaceChildren(...rows);
  counter.textContent = `${shown.length} of ${samples.length} samples`;
  show(shown.find((sample) => sample.id === id) ?? shown[0] ?? null);
}

/** Show a sample, and put it and the filters into the page's address. */
function show(sample) {
  current = sample;
  const number = shown.indexOf(sample);
  for (const row of list.querySelectorAll("[aria-selected=true]")) row.setAttribute("aria-selected", "false");
  const row = list.children[number];
  if (row) {
    row.setAttribute("aria-selected", "true");
    list.setAttribute("aria-activedescendant", row.id);
    const above = row.offsetTop < list.scrollTop;
    const below = row.offsetTop + row.offsetHeight > list.scrollTop + list.clientHeight;
    if (above) list.scrollTop = row.offsetTop;
    if (below) list.scrollTop = row.offsetTop + row.offsetHeight - list.clientHeight;
  } else {
    list.removeAttribute("aria-activedescendant");
  }
  const pressed = view.contains(document.activeElement) ? document.activeElement.textContent : null;
  view.replaceChildren(...(sample ? parts(sample, number) : [element("p", "", "No sample matches the filters.")]));
  // The buttons are new; the keyboard stays on the one it was on.
  if (pressed) [...view.querySelectorAll("button")].find((each) => each.textContent === pressed)?.focus();
}

/** The address of a sample with the current filters. */
function address(sample) {
  const words = new URLSearchParams();
  for (const name of [...FILTERS, "search"]) {
    if (form.elements[name].value) words.set(name, form.elements[name].value);
  }
  if (sample) words.set("sample", sample.id);
  if (order !== "ab") words.set("order", order);
  return PREFIX + words;
}

/** After something that the reader did: the address names what is shown. */
function remember() {
  history.replaceState(null, "", address(current));
}

/** What the page shows of a sample. */
function parts(sample, number) {
  const title = element("h3", "", `Question ${sample.question}, ${sample.category}: ${verdictText(sample)}`);
  const dialogue = sample.turns.flatMap((turn) => [
    element("blockquote", "text", turn.user === null ? "" : data.texts[turn.user]),
    element("div", "answers", ...[...order].map((side) => answer(sample, turn, side))),
  ]);
  return [title, tools(sample, number), ...dialogue, judge(sample), provenance(sample)];
}

/** One side's answer to a turn. */
function answer(sample, turn, side) {
  const text = turn[side] === null ? ["(no answer)"] : marked(data.texts[turn[side]], turn.differ[side]);
  return element("div", "", element("h4", "", sample.methods[side]), element("div", "text", ...text));
}

/** A button that is pressed or not. */
function button(text, isPressed, onClick) {
  const made = element("button", "", text);
  made.type = "button";
  if (isPressed !== null) made.setAttribute("aria-pressed", String(isPressed));
  made.addEventListener("click", onClick);
  return made;
}

function tools(sample, number) {
  const back = button("Previous", null, () => step(-1));
  const next = button("Next", null, () => step(1));
  back.disabled = number === 0;
  next.disabled = number === shown.length - 1;
  const orders = ["ab", "ba"].map((each) =>
    button(`${sample.methods[each[0]]} first`, order === each, () => turnTo(each)),
  );
  const marks = button("Mark differences", !view.classList.contains("plain"), toggleMarks);
  const link = element("a", "", "Link to this");
  link.href = address(sample);
  return element("div", "tools", back, next, `${number + 1} of ${shown.length}`, ...orders, marks, link);
}

/** The games with the judge's texts; the one in the shown order stands first. */
function judge(sample) {
  const sorted = [...sample.games].sort((game) => (game.order === order ? -1 : 1));
  const games = sorted.map((game) => {
    const outcome = { a: `${sample.methods.a} wins`, b: `${sample.methods.b} wins` }[game.outcome] ?? game.outcome;
    const title = `Judge, ${sample.methods[game.order[0]]} first: ${outcome}${game.strong ? " (strongly)" : ""}`;
    const text = game.text === null ? "(the ledger has no text)" : data.texts[game.text];
    return element("div", "", element("h4", "", title), element("div", "text", text));
  });
  return element("div", "games", ...games);
}

/** Where the two answers and the verdict come from. */
function provenance(sample) {
  const { pair, methods } = sample;
  const rows = [
    ["model", pair.model],
    ["replicate", pair.replicate || "the only one"],
    ["SFT runs", pair.sft],
    ["RL seed", pair.rl_seed ?? "none"],
    [`run of ${methods.a}`, `${pair.policies.a}, ${pair.runs.a ?? "no record"}`],
    [`run of ${methods.b}`, `${pair.policies.b}, ${pair.runs.b ?? "no record"}`],
    ["judgments", sample.run ?? "no record"],
  ];
  return element("dl", "", ...rows.flatMap(([name, text]) => [element("dt", "", name), element("dd", "", String(text))]));
}

/** Go to another sample of the list. */
function step(by) {
  const number = shown.indexOf(current) + by;
  if (number < 0 || number >= shown.length) return;
  show(shown[number]);
  remember();
}

/** Show the answers in the other order. */
function turnTo(wanted) {
  order = wanted;
  show(current);
  remember();
}

function toggleMarks() {
  view.classList.toggle("plain");
  show(current);
}

/** Open what the address leads to: a sample, or an element with all details around it. */
function follow() {
  if (location.hash.startsWith(PREFIX)) {
    const words = new URLSearchParams(location.hash.slice(PREFIX.length));
    for (const name of [...FILTERS, "search"]) form.elements[name].value = words.get(name) ?? "";
    order = words.get("order") === "ba" ? "ba" : "ab";
    update(words.get("sample"));
    section.scrollIntoView();
    return;
  }
  const target = document.getElementById(location.hash.slice(1));
  if (!target) return;
  for (let around = target; around; around = around.parentElement) {
    if (around.tagName === "DETAILS") around.open = true;
  }
  target.scrollIntoView();
}

/** The choices of a filter, in the order of the data. */
function addOptions(name, values) {
  for (const value of new Set(values)) form.elements[name].append(new Option(value, value));
}

addOptions("comparison", Object.keys(data.comparisons));
addOptions("model", data.models);
addOptions("benchmark", data.benchmarks);
addOptions("verdict", ["first wins", "second wins", "tie", "orders disagree", "no verdict"]);
addOptions("category", samples.map((sample) => sample.category).sort());

form.addEventListener("input", () => {
  update(current?.id);
  remember();
});
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => {
  // The fields are empty only after this event.
  setTimeout(() => {
    update(current?.id);
    remember();
  });
});
list.addEventListener("click", (event) => {
  const row = event.target.closest("li");
  if (!row) return;
  show(shown[[...list.children].indexOf(row)]);
  remember();
});
list.addEventListener("keydown", (event) => {
  const by = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, End: Infinity, Home: -Infinity }[event.key];
  if (by === undefined) return;
  event.preventDefault();
  const number = Math.min(Math.max(shown.indexOf(current) + by, 0), shown.length - 1);
  step(number - shown.indexOf(current));
});
document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest?.("input, select, textarea");
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (isTyping) {
    if (event.key === "Escape") {
      event.preventDefault(); // browsers would clear the search
      event.target.blur();
    }
    return;
  }
  const actions = {
    j: () => step(1),
    k: () => step(-1),
    s: () => current && turnTo(order === "ab" ? "ba" : "ab"),
    d: toggleMarks,
    "/": () => form.elements.search.focus(),
  };
  if (!actions[event.key]) return;
  event.preventDefault();
  actions[event.key]();
});

// Closed parts of the page would be missing on paper.
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  for (const details of opened) details.open = true;
});
addEventListener("afterprint", () => {
  for (const details of opened) details.open = false;
});
addEventListener("hashchange", follow);

section.querySelector(".live").hidden = false;
update(null);
follow();
