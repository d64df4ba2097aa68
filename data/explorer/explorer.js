// Explore replies: one component for a page of its own and for a notebook's widget.
// Whatever a teacher, a data set or a user wrote is set as text, never as HTML.

const N_AT_A_TIME = 50; // replies that are drawn before the reader scrolls on
const N_EXAMPLES = 3; // of each reason why replies could not be read
const VIEWS = { replies: "Replies", pairs: "Side by side", unread: "Not read", words: "Words and errors", tags: "Tags" };
const OUTCOMES = { right: "right", wrong: "wrong", unread: "not read", nogold: "no gold label", noreply: "no reply" };
const PAIRS = {
  all: "all rows", flipped: "labels differ", first: "only the first right", second: "only the second right", neither: "neither right",
};
const STUDENT = "the student";
const KINDS = {
  right: "right", wrong_type: "wrong type", wrong_place: "wrong boundary", wrong_both: "wrong type and boundary", missed: "missed", surplus: "surplus",
};
const N_COLOURS = 8; // of entity types, in the style sheet; the type's name stands beside its colour
let n_shown = 0; // explorers in this page

// ---------------------------------------------------------------------------------------------------------------- data

export async function unpack(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return prepared(JSON.parse(await new Response(stream).text()));
}

function prepared(data) {
  data.replies = data.replies.map((values, place) => {
    const reply = { place };
    data.columns.forEach((name, column) => { reply[name] = values[column]; });
    reply.about = data.rows[reply.row];
    reply.n_errors = reply.entities && reply.about.entities ? reply.entities.filter((one) => one.kind !== "right").length : null;
    reply.outcome = reply.text === null ? "noreply" : reply.label === null ? "unread" : reply.right === null ? "nogold" : reply.right ? "right" : "wrong";
    return reply;
  });
  return data;
}

function searchText(reply) {
  reply.search ??= [reply.template, reply.row, reply.text, reply.why, reply.student ?? "", ...Object.values(reply.about.fields)].join("\n").toLowerCase();
  return reply.search;
}

function selected(data, state, tags) {
  const words = state.search.toLowerCase().split(/\s+/).filter(Boolean);
  const found = data.replies.filter((reply) =>
    (!state.template || reply.template === state.template) &&
    (!state.part || reply.about.part === state.part) &&
    (!state.row || reply.row === state.row) &&
    (!state.outcome || reply.outcome === state.outcome) &&
    (!state.gold || reply.about.gold === state.gold) &&
    (!state.label || reply.label === state.label) &&
    (!state.why || reply.why === state.why) &&
    (!(state.entity || state.type) || (reply.entities ?? []).some((one) => (!state.entity || one.kind === state.entity) && (!state.type || typeOf(one) === state.type))) &&
    (!state.refused || (reply.refused ?? []).some(([, , fault]) => fault === state.refused)) &&
    (!state.tag || (tags[reply.key] ?? []).includes(state.tag)) &&
    words.every((word) => searchText(reply).includes(word)));
  if (!state.sort) return found;
  const value = (reply) => (state.sort === "gold" ? reply.about.gold : state.sort === "tags" ? (tags[reply.key] ?? []).join() : reply[state.sort]);
  const way = state.down ? -1 : 1;
  // What is not known comes last, whichever way the others are sorted.
  return found.sort((one, other) => {
    const [a, b] = [value(one), value(other)];
    if (a == null || b == null) return (a == null) - (b == null) || one.place - other.place;
    return (typeof a === "number" ? a - b : String(a).localeCompare(String(b))) * way || one.place - other.place;
  });
}

// The type of an entity is that of the gold one, where there is one.
const typeOf = (one) => (one.gold ?? one.said)[2];

function counted(values) {
  const counts = new Map();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return [...counts].sort((one, other) => other[1] - one[1]);
}

// ------------------------------------------------------------------------------------------------------------ elements

function make(kind, attributes = {}, ...children) {
  const element = document.createElement(kind);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const number = (content, name = null) => make("td", { class: "number", "data-name": name }, typeof content === "number" ? content.toLocaleString("en") : content);

function table(heads, lines) {
  const head = make("tr", {}, ...heads.map((text) => make("th", { scope: "col" }, text)));
  const body = make("tbody", {}, ...lines.map((cells) => make("tr", {}, ...cells)));
  return make("div", { class: "scroll" }, make("table", { class: "narrow" }, make("thead", {}, head), body));
}

const nameOf = (element) => element && (element.getAttribute("aria-label") ?? element.textContent);
const small = (text) => make("small", {}, text);
const many = (n, word) => `${n.toLocaleString("en")} ${n === 1 ? word : word.endsWith("y") ? word.slice(0, -1) + "ies" : word + "s"}`;
const usd = (cost) => (cost === null ? "–" : `$${cost ? cost.toPrecision(2) : 0}`);

function marked(text, spans) {
  // Each stretch between two borders is marked with all parts that cover it.
  const known = Object.entries(spans).filter(([, span]) => span);
  const borders = [...new Set([0, text.length, ...known.flatMap(([, span]) => span)])].filter((at) => at <= text.length).sort((a, b) => a - b);
  const said = make("div", { class: "said", dir: "auto" });
  borders.slice(0, -1).forEach((start, place) => {
    const piece = text.slice(start, borders[place + 1]);
    const names = known.filter(([, [from, to]]) => from <= start && start < to).map(([name]) => name);
    said.append(names.length ? make("mark", { class: names.join(" ") }, piece) : piece);
  });
  return said;
}

const replyText = (reply) =>
  reply.text === null ? make("div", { class: "said none" }, "no reply") : marked(reply.text, { rationale: reply.rationale_span, label: reply.label_span });

// A sentence with its entities, each with its type behind its words; one within another is marked inside the other's mark.
function markedEntities(text, entities, types) {
  const ordered = [...entities].sort((a, b) => a.start - b.start || b.end - a.end);
  const borders = [...new Set([0, text.length, ...ordered.flatMap((one) => [one.start, one.end])])].sort((a, b) => a - b);
  const sentence = make("div", { class: "said sentence", dir: "auto" });
  borders.slice(0, -1).forEach((start, place) => {
    let piece = text.slice(start, borders[place + 1]);
    for (const one of ordered.filter((one) => one.start <= start && start < one.end).reverse()) {
      const is = one.kind === "right" ? " ✓" : one.kind ? ` ✗ ${KINDS[one.kind]}` : "";
      const name = one.end === borders[place + 1] ? make("small", {}, make("bdi", {}, one.type), is) : null;
      piece = make("mark", { class: `entity type-${types.indexOf(one.type) % N_COLOURS} ${one.kind === "right" ? "" : one.kind}` }, piece, name);
    }
    sentence.append(piece);
  });
  return sentence;
}

const placed = ([start, end, type], kind) => ({ start, end, type, kind });
const sentenceOf = (about) => Object.values(about.fields)[0];

// What was said, and what was missed.
const saidEntities = (about, entities, types) =>
  markedEntities(sentenceOf(about), entities.map((one) => placed(one.said ?? one.gold, one.kind)), types);

function rowText(about, types) {
  if (about.entities?.length)
    return make("div", { class: "fields" }, make("b", {}, "gold entities: "), markedEntities(sentenceOf(about), about.entities.map((one) => placed(one, "")), types));
  const fields = Object.entries(about.fields).map(([name, value]) => make("div", { dir: "auto" }, make("b", {}, `${name}: `), value));
  if (about.entities) fields.push(make("div", {}, make("b", {}, "gold entities: "), "none"));
  return make("div", { class: "fields" }, ...fields);
}

const refusedText = (reply) => (reply.refused?.length ? make("div", { class: "refused" }, make("b", {}, "refused: "),
  ...reply.refused.flatMap(([words, type, fault], place) => [place ? "; " : "", make("bdi", {}, words), type ? ` (${type})` : "", make("i", {}, `, ${fault}`)])) : null);

// Of a task of entities the sentence with them, what was refused, and the reply itself to be opened.
function saidText(reply, types, is_open = false) {
  if (!reply.entities) return replyText(reply);
  const whole = is_open === null ? null : make("details", { open: is_open, onclick: (event) => event.stopPropagation() }, make("summary", {}, "the reply itself"), replyText(reply));
  return make("div", {}, saidEntities(reply.about, reply.entities, types), refusedText(reply), whole);
}

function entityVerdict(entities) {
  const counts = Object.keys(KINDS).map((kind) => [kind, entities.filter((one) => one.kind === kind).length]).filter(([, n]) => n);
  const chip = (looks, sign, text) => make("div", { class: `verdict ${looks}` }, make("span", { "aria-hidden": "true" }, sign), text);
  const known = counts.map(([kind, n]) => chip(kind === "right" ? "right" : "wrong", kind === "right" ? "✓ " : "✗ ", `${n} ${KINDS[kind]}`));
  if (!known.length) known.push(chip("", "", entities.length ? many(entities.length, "entity") : "no entity"));
  return make("div", { class: "verdicts" }, ...known);
}

function verdict(reply) {
  if (reply.entities) return entityVerdict(reply.entities);
  const sign = { right: "✓", wrong: "✗", unread: "?", nogold: "", noreply: "" }[reply.outcome];
  const text = { unread: `not read: ${reply.why}`, noreply: reply.why }[reply.outcome] ?? reply.label;
  const box = make("div", { class: `verdict ${reply.outcome}` }, make("span", { "aria-hidden": "true" }, sign && `${sign} `), make("bdi", {}, text));
  if (reply.outcome === "right" || reply.outcome === "wrong") box.append(small(` ${reply.outcome}`));
  return box;
}

function studentVerdict(reply) {
  if (reply.student === null) return null;
  if (reply.student_entities) return entityVerdict(reply.student_entities);
  const right = reply.about.gold === null ? "" : reply.student_right ? "right" : "wrong";
  return make("div", { class: `verdict ${right}` }, { right: "✓ ", wrong: "✗ " }[right] ?? "", make("bdi", {}, reply.student || "no label"), small(right && ` ${right}`));
}

function choice(name, options, value, onchange) {
  return make("label", {}, `${name} `, make("select", { onchange: (event) => onchange(event.target.value), "aria-label": name },
    ...options.map(([key, text]) => make("option", { value: key, selected: key === value }, text))));
}

// ----------------------------------------------------------------------------------------------------------- component

export function explore(root, data, { tags: saved = {}, onTags = () => {}, savedTo = "", start = "" } = {}) {
  const tags = Object.fromEntries(Object.entries(saved).map(([key, names]) => [key, [...names]]));
  const templates = [...new Set(data.replies.map((reply) => reply.template))];
  const hasStudent = data.replies.some((reply) => reply.student !== null);
  const types = data.types ?? [], tagList = `zsd-explorer-tags-${++n_shown}`;
  const views = types.length ? { ...VIEWS, unread: "Not read, refused" } : VIEWS;
  const state = {
    view: "replies", search: "", template: "", part: "", row: "", outcome: "", gold: "", label: "", why: "", entity: "", type: "", refused: "", tag: "", sort: "", down: false,
    a: templates[0] ?? "", b: templates[1] ?? (hasStudent ? STUDENT : templates[0] ?? ""), pairs: "all", at: 0,
  };
  for (const [name, value] of new URLSearchParams(start)) if (name in state && typeof state[name] === "string") state[name] = value;
  if (!(state.view in VIEWS)) state.view = "replies";
  const n_replies = data.replies.filter((reply) => reply.text !== null).length;
  let shown = [];
  const body = make("div", { class: "body" });
  const count = make("p", { class: "count", role: "status" });
  const bar = make("div", { class: "filters" });
  const tabs = make("div", { class: "tabs" });
  const dialog = make("dialog", { "aria-label": "One reply" });
  root.classList.add("zsd-explorer");
  root.tabIndex = -1;
  root.replaceChildren(
    make("header", {}, make("h1", {}, data.title), make("p", {}, data.about)), tabs, bar, count, body, dialog,
    make("p", { class: "keys" }, "Keys: j and k go down and up, Enter opens a reply, / searches, t writes tags, 1 to 9 give or take a tag that is in use, Esc closes."));

  function set(changes) {
    const from = nameOf(document.activeElement);
    Object.assign(state, changes, { at: 0 });
    draw();
    // What had the focus was drawn anew; keys go on where they were.
    const same = [...root.querySelectorAll("button, select, input")].find((element) => nameOf(element) === from);
    (same ?? root).focus({ preventScroll: true });
  }

  const tagNames = () => counted(Object.values(tags).flat()).map(([name]) => name);

  function tagged(reply, names) {
    const kept = [...new Set(names.map((name) => name.trim()).filter(Boolean))].sort();
    if (kept.length) tags[reply.key] = kept;
    else delete tags[reply.key];
    onTags({ ...tags }, { key: reply.key, template: reply.template, row: reply.row, tags: kept });
    for (const place of root.querySelectorAll("[data-tags]")) if (place.dataset.tags === reply.key) place.replaceChildren(...tagMarks(reply));
    drawBar();
  }

  const studentSaid = (reply) => [studentVerdict(reply), reply.student_entities ? saidEntities(reply.about, reply.student_entities, types) : "",
    reply.student_rationale ? make("div", { class: "said", dir: "auto" }, reply.student_rationale) : ""];

  const toggled = (reply, name) => {
    const now = tags[reply.key] ?? [];
    tagged(reply, now.includes(name) ? now.filter((other) => other !== name) : [...now, name]);
  };
  const tagMarks = (reply) => (tags[reply.key] ?? []).map((name) => make("span", { class: "tag" }, name));
  const tagPlace = (reply) => make("div", { class: "tags", "data-tags": reply.key }, ...tagMarks(reply));

  function drawTabs() {
    tabs.replaceChildren(...Object.entries(views).map(([key, text]) =>
      make("button", { type: "button", "aria-pressed": String(state.view === key), onclick: () => set({ view: key }) }, text)));
  }

  function drawBar() {
    const pick = (name, key, values, texts = {}) => {
      const options = counted(values).map(([value, n]) => [value, `${texts[value] ?? value} (${n.toLocaleString("en")})`]);
      if (options.length < 2 && !state[key]) return null;
      return choice(name, [["", "all"], ...options], state[key], (value) => set({ [key]: value }));
    };
    const search = make("input", { type: "search", placeholder: "search replies and rows", "aria-label": "search", value: state.search,
      oninput: (event) => { state.search = event.target.value; state.at = 0; drawBody(); } });
    bar.replaceChildren(...[
      search,
      pick("template", "template", data.replies.map((reply) => reply.template)),
      pick("rows", "part", data.replies.map((reply) => reply.about.part).filter(Boolean)),
      pick("outcome", "outcome", data.replies.map((reply) => reply.outcome), OUTCOMES),
      data.is_long ? null : pick("gold", "gold", data.replies.map((reply) => reply.about.gold).filter((gold) => gold !== null)),
      data.is_long ? null : pick("label", "label", data.replies.map((reply) => reply.label).filter((label) => label !== null)),
      pick("reason", "why", data.replies.map((reply) => reply.why).filter(Boolean)),
      ...(types.length ? [
        pick("entities", "entity", data.replies.flatMap((reply) => [...new Set((reply.entities ?? []).map((one) => one.kind).filter(Boolean))]), KINDS),
        pick("type", "type", data.replies.flatMap((reply) => [...new Set((reply.entities ?? []).map(typeOf))])),
        pick("refused", "refused", data.replies.flatMap((reply) => [...new Set((reply.refused ?? []).map(([, , fault]) => fault))])),
      ] : []),
      pick("tag", "tag", Object.values(tags).flat()),
      ["search", "template", "part", "row", "outcome", "gold", "label", "why", "entity", "type", "refused", "tag"].some((key) => state[key])
        ? make("button", { type: "button", onclick: () => set({ search: "", template: "", part: "", row: "", outcome: "", gold: "", label: "", why: "", entity: "", type: "", refused: "", tag: "" }) }, "show all")
        : null,
    ].filter(Boolean));
  }

  function drawBody() {
    const found = selected(data, state, tags);
    const answered = found.filter((reply) => reply.text !== null), judged = answered.filter((reply) => reply.about.gold !== null);
    const n_unread = answered.filter((reply) => reply.label === null).length;
    const right = judged.filter((reply) => reply.outcome === "right").length;
    count.textContent = [
      found.length === data.replies.length ? many(answered.length, "reply") : `${answered.length.toLocaleString("en")} of ${many(n_replies, "reply")}`,
      judged.length ? `${right.toLocaleString("en")} of ${judged.length.toLocaleString("en")} right` : "",
      types.length && judged.length ? entityCount(judged) : "",
      n_unread ? `${n_unread.toLocaleString("en")} not read` : "",
      answered.length < found.length ? `${many(found.length - answered.length, "row")} without one` : "",
      state.row ? `row ${state.row}` : "",
    ].filter(Boolean).join(" · ");
    stopGrowing();
    body.replaceChildren();
    ({ replies: drawReplies, pairs: drawPairs, unread: drawUnread, words: drawWords, tags: drawTagCounts })[state.view](found);
  }

  function entityCount(judged) {
    const said = judged.flatMap((reply) => reply.entities ?? []), right = said.filter((one) => one.kind === "right").length;
    const n_gold = judged.reduce((n, reply) => n + (reply.about.entities ?? []).length, 0), n_said = said.filter((one) => one.said).length;
    return `${right.toLocaleString("en")} of ${many(n_said, "entity")} right, ${right.toLocaleString("en")} of ${n_gold.toLocaleString("en")} gold ones found`;
  }

  function draw() { drawTabs(); drawBar(); drawBody(); }

  // A list that grows as the reader scrolls: ten thousand replies are there at once, fifty are drawn.
  let stopGrowing = () => {};
  function grow(items, into, drawn) {
    let n = 0;
    const end = make("div", { class: "end" });
    const more = () => {
      into.append(...items.slice(n, n + N_AT_A_TIME).map((item, place) => drawn(item, n + place)));
      n += N_AT_A_TIME;
      if (n >= items.length) watcher.disconnect();
      else end.textContent = `${(items.length - n).toLocaleString("en")} more below`;
      if (n >= items.length) end.remove();
    };
    const watcher = new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && more(), { rootMargin: "600px" });
    stopGrowing = () => watcher.disconnect();
    body.append(end);
    more();
    if (n < items.length) watcher.observe(end);
    return (place) => { while (n <= place && n < items.length) more(); };
  }

  const opener = (reply, text) => make("button", { type: "button", onclick: (event) => { event.stopPropagation(); open(reply); } }, text);
  let reach = () => {};

  function drawReplies(found) {
    shown = found;
    if (!found.length) return body.append(make("p", { class: "empty" }, "No reply is like that."));
    const has_label = data.has_gold && !types.length; // gold entities are marked in the sentence
    const columns = [["template", "template, row"], [null, "asked about"], [null, "reply"], types.length ? ["n_errors", "entities"] : ["label", "label"],
      ...(has_label ? [["gold", "gold label"]] : []),
      ...(hasStudent ? [["student", "student"]] : []), ...(data.has_confidence ? [["confidence", "confidence"]] : []),
      ["n_words", "words"], ["tokens", "tokens"], ...(data.has_cost ? [["cost", "cost"]] : []), ["tags", "tags"]];
    const heads = columns.map(([key, text]) => {
      const sorted = key && state.sort === key;
      const head = key ? make("button", { type: "button", onclick: () => set({ sort: sorted && state.down ? "" : key, down: sorted && !state.down }) },
        text, make("span", { "aria-hidden": "true" }, sorted ? (state.down ? " ↓" : " ↑") : "")) : text;
      return make("th", { scope: "col", "aria-sort": sorted ? (state.down ? "descending" : "ascending") : null }, head);
    });
    const lines = make("tbody");
    body.append(make("div", { class: "scroll" }, make("table", {}, make("thead", {}, make("tr", {}, ...heads)), lines)));
    reach = grow(found, lines, (reply, place) => {
      const line = make("tr", { "data-place": place, onclick: () => { move(place); open(reply); } },
        make("td", {}, make("b", {}, reply.template), make("br"), small(reply.row)), make("td", { class: "wide" }, rowText(reply.about, types)),
        make("td", { class: "wide" }, saidText(reply, types, Boolean(state.search))), make("td", {}, verdict(reply)),
        ...(has_label ? [make("td", { "data-name": "gold label" }, make("bdi", {}, reply.about.gold ?? "–"))] : []),
        ...(hasStudent ? [make("td", { "data-name": "student" }, studentVerdict(reply) ?? "–")] : []),
        ...(data.has_confidence ? [number(reply.confidence === null ? "–" : reply.confidence.toFixed(2), "confidence")] : []),
        number(reply.n_words ?? "–", "words"), number(reply.tokens ?? "–", "tokens"),
        ...(data.has_cost ? [number(usd(reply.cost), "cost")] : []), make("td", {}, tagPlace(reply)));
      if (place === state.at) line.classList.add("at");
      return line;
    });
  }

  function drawPairs(found) {
    shown = [];
    const sides = [...templates, ...(hasStudent ? [STUDENT] : [])].map((name) => [name, name]);
    const chosen = make("div", { class: "filters" }, choice("first", sides, state.a, (value) => set({ a: value })),
      choice("second", sides, state.b, (value) => set({ b: value })), choice("show", Object.entries(PAIRS), state.pairs, (value) => set({ pairs: value })));
    const byRow = new Map();
    for (const reply of found) (byRow.get(reply.row) ?? byRow.set(reply.row, {}).get(reply.row))[reply.template] = reply;
    const side = (row, name) => {
      if (name !== STUDENT) return row[name];
      const any = Object.values(row).find((reply) => reply.student !== null);
      return any && { ...any, label: any.student || null, outcome: any.about.gold === null ? "nogold" : any.student_right ? "right" : "wrong", isStudent: true };
    };
    const pairs = [...byRow.values()].map((row) => [side(row, state.a), side(row, state.b)]).filter(([one, other]) => one && other);
    const is = { all: () => true, flipped: ([one, other]) => one.label !== other.label,
      first: ([one, other]) => one.outcome === "right" && other.outcome !== "right",
      second: ([one, other]) => one.outcome !== "right" && other.outcome === "right",
      neither: ([one, other]) => one.about.gold !== null && one.outcome !== "right" && other.outcome !== "right" };
    const n = (key) => pairs.filter((pair) => pair[0].about.gold !== null && is[key](pair)).length;
    const told = make("p", { class: "count" }, `${many(pairs.length, "row")} with both; the labels differ on ${pairs.filter(is.flipped).length}` +
      (data.has_gold ? `; only ${state.a} is right on ${n("first")}, only ${state.b} on ${n("second")}, neither on ${n("neither")}` : ""));
    body.append(chosen, told);
    const kept = pairs.filter(is[state.pairs] ?? is.all);
    if (!kept.length) return body.append(make("p", { class: "empty" }, "No row is like that."));
    const lines = make("div");
    body.append(lines);
    const half = (reply, name) => (reply.isStudent ? make("section", {}, make("h3", {}, name), ...studentSaid(reply))
      : make("section", { onclick: () => open(reply) }, make("h3", {}, opener(reply, name)), verdict(reply), saidText(reply, types), tagPlace(reply)));
    reach = grow(kept, lines, ([one, other]) => make("article", { class: one.label === other.label ? "" : "flipped" },
      make("div", {}, small(one.row), rowText(one.about, types), one.about.gold === null || one.about.entities ? "" : make("div", {}, make("b", {}, "gold label: "), make("bdi", {}, one.about.gold))),
      make("div", { class: "sides" }, half(one, state.a), half(other, state.b))));
  }

  // Replies that have a fault in common: how many, three of them, and all of them at a click.
  const group = (title, those, changes) => make("article", {}, make("h3", {}, `${title} `,
    make("button", { type: "button", "aria-label": `show all: ${title}`, onclick: () => set({ view: "replies", ...changes }) }, "show all")),
  ...those.slice(0, N_EXAMPLES).map((reply) => make("section", { onclick: () => open(reply) }, opener(reply, `${reply.template}, ${reply.row}`), saidText(reply, types, null))));

  const inReplies = (n, word, those) => `${many(n, word)} in ${many(those.length, "reply")}`;

  function drawUnread(found) {
    shown = [];
    const unread = found.filter((reply) => reply.outcome === "unread");
    if (!unread.length) body.append(make("p", { class: "empty" }, "Every one of these replies was read."));
    for (const [why, n] of counted(unread.map((reply) => reply.why))) body.append(group(`${why}: ${many(n, "reply")}`, unread.filter((reply) => reply.why === why), { why }));
    for (const [refused, n] of counted(found.flatMap((reply) => (reply.refused ?? []).map(([, , fault]) => fault)))) {
      const those = found.filter((reply) => (reply.refused ?? []).some(([, , fault]) => fault === refused));
      body.append(group(`refused, ${refused}: ${inReplies(n, "mention", those)}`, those, { refused }));
    }
  }

  function drawEntityErrors(found) {
    const entities = found.flatMap((reply) => reply.entities ?? []).filter((one) => one.kind);
    if (!entities.length) return;
    const cell = (entity, type) => {
      const n = entities.filter((one) => one.kind === entity && typeOf(one) === type).length;
      return number(n ? make("button", { type: "button", "aria-label": `${n} ${KINDS[entity]}, ${type}`, onclick: () => set({ view: "replies", entity, type }) }, String(n)) : "0");
    };
    const lines = types.map((type) => [make("th", { scope: "row" }, type), ...Object.keys(KINDS).map((kind) => cell(kind, type))]);
    body.append(make("h3", {}, "Entities, by the type of the gold one; surplus ones by the type that was given"), table(["type", ...Object.values(KINDS)], lines));
    for (const entity of Object.keys(KINDS).slice(1)) {
      const n = entities.filter((one) => one.kind === entity).length, those = found.filter((reply) => (reply.entities ?? []).some((one) => one.kind === entity));
      if (n) body.append(group(`${KINDS[entity]}: ${inReplies(n, "entity", those)}`, those, { entity }));
    }
  }

  function drawWords(found) {
    shown = [];
    if (types.length) drawEntityErrors(found);
    const judged = found.filter((reply) => reply.label !== null && reply.about.gold !== null && !data.is_long);
    if (judged.length) {
      const labels = [...new Set(judged.flatMap((reply) => [reply.about.gold, reply.label]))].sort();
      const cells = new Map(counted(judged.map((reply) => `${reply.about.gold}\u0000${reply.label}`)));
      const cell = (gold, label) => {
        const n = cells.get(`${gold}\u0000${label}`) ?? 0;
        const name = `${n} with gold label ${gold} and label ${label}`;
        return number(n ? make("button", { type: "button", "aria-label": name, onclick: () => set({ view: "replies", gold, label }) }, String(n)) : "0");
      };
      const lines = labels.map((gold) => [make("th", { scope: "row" }, gold), ...labels.map((label) => cell(gold, label))]);
      if (labels.length <= 12) body.append(make("h3", {}, "Labels given, by gold label"), table(["gold label", ...labels], lines));
    }
    body.append(make("h3", {}, "Words that go with wrong labels"), make("p", {}, data.words_about));
    const linked = (word) => make("td", {}, make("button", { type: "button", onclick: () => set({ view: "replies", search: word, outcome: "wrong" }) }, word));
    const lines = data.words.map(([word, n_wrong, n_right, z]) => [linked(word), number(n_wrong), number(n_right), number(z.toFixed(1))]);
    if (lines.length) body.append(table(["word", "wrong replies with it", "right replies with it", "z"], lines));
  }

  function drawTagCounts(found) {
    shown = [];
    const counts = counted(found.flatMap((reply) => tags[reply.key] ?? []));
    if (!counts.length) return body.append(make("p", { class: "empty" }, "None of these replies has a tag. Open one, or go to it with j and k, and press t."));
    const linked = (name) => make("td", {}, make("button", { type: "button", onclick: () => set({ view: "replies", tag: name }) }, name));
    body.append(table(["tag", "replies"], counts.map(([name, n]) => [linked(name), number(n)])));
    if (savedTo) body.append(make("p", {}, `Kept in ${savedTo}.`));
    else body.append(make("button", { type: "button", onclick: () => download(tagLines()) }, "save tags as a file"));
  }

  const tagLines = () => data.replies.filter((reply) => tags[reply.key])
    .map((reply) => JSON.stringify({ key: reply.key, template: reply.template, row: reply.row, tags: tags[reply.key] }) + "\n").join("");

  // -------------------------------------------------------------------------------------------------------- one reply
  function open(reply) {
    const facts = [["template", reply.template], ["row", reply.row], ["gold label", reply.about.gold], ["why not read", reply.why], ["words of the rationale", reply.n_words],
      ["prompt tokens", reply.prompt_tokens], ["completion tokens", reply.tokens], ["cost", reply.cost === null ? null : usd(reply.cost)], ["confidence", reply.confidence],
      ["end of the reply", reply.finish_reason], ["answered by", reply.model], ["answered at", reply.created_at]].filter(([, value]) => value !== null && value !== "");
    const field = make("input", { type: "text", "aria-label": "tags", list: tagList, value: (tags[reply.key] ?? []).join(", "), placeholder: "tags, with commas between",
      onchange: (event) => tagged(reply, event.target.value.split(",")) });
    const listed = (reply.entities ?? []).map(({ kind, said, gold }) => [said ?? gold, kind, gold, said])
      .map(([at, kind, gold, said]) => [sentenceOf(reply.about).slice(at[0], at[1]), said ? said[2] : "–", KINDS[kind] ?? "–",
        gold ? `${sentenceOf(reply.about).slice(gold[0], gold[1])} (${gold[2]})` : "–", said?.[3] || "–"].map((text) => make("td", {}, make("bdi", {}, text))));
    const refused = (reply.refused ?? []).map(([words, type, fault]) => [words, type || "–", fault].map((text) => make("td", {}, make("bdi", {}, text))));
    const same = data.replies.filter((other) => other.row === reply.row && other !== reply);
    dialog.replaceChildren(
      make("div", { class: "dialog-head" }, make("h2", {}, `${reply.template}, ${reply.row}`), make("button", { type: "button", onclick: () => dialog.close() }, "close")),
      verdict(reply),
      ...(types.length ? [make("h3", {}, "Asked about"), rowText(reply.about, types)] : []),
      ...(reply.entities ? [make("h3", {}, "Entities of the reply"), saidEntities(reply.about, reply.entities, types)] : []),
      ...(listed.length ? [table(["words", "type", "which is", "gold entity", "the teacher's reason"], listed)] : []),
      ...(refused.length ? [make("h3", {}, "Refused"), table(["words", "type", "why"], refused)] : []),
      make("h3", {}, "Reply"), replyText(reply),
      ...(reply.reasoning ? [make("h3", {}, "Reasoning"), make("div", { class: "said", dir: "auto" }, reply.reasoning)] : []),
      ...(reply.student === null ? [] : [make("h3", {}, "Student"), ...studentSaid(reply)]),
      make("label", {}, "tags ", field), make("datalist", { id: tagList }, ...tagNames().map((name) => make("option", { value: name }))),
      make("h3", {}, "Messages that were sent"),
      ...reply.messages.map(([role, content]) => make("div", { class: "message" }, make("b", {}, role), make("div", { class: "said", dir: "auto" }, content))),
      make("dl", {}, ...facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, String(value))])),
      ...(same.length ? [make("h3", {}, "The same row"), ...same.slice(0, 12).map((other) =>
        make("div", {}, make("button", { type: "button", onclick: () => open(other) }, other.template), " ", verdict(other)))] : []));
    dialog.dataset.place = reply.place;
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    return field;
  }

  function move(place) {
    if (!shown.length) return;
    state.at = Math.max(0, Math.min(place, shown.length - 1));
    reach(state.at);
    for (const line of body.querySelectorAll("tr.at")) line.classList.remove("at");
    const line = body.querySelector(`tr[data-place="${state.at}"]`);
    line?.classList.add("at");
    line?.scrollIntoView({ block: "nearest" });
    if (dialog.open) open(shown[state.at]);
    else root.focus({ preventScroll: true });
  }

  const onKey = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const writing = ["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName);
    if (writing) {
      if (event.key === "Enter" && event.target.type === "text") event.target.blur();
      return;
    }
    const opened = dialog.open ? data.replies[dialog.dataset.place] : null;
    const reply = opened ?? shown[state.at];
    const handled = { j: () => move(state.at + 1), k: () => move(state.at - 1), "/": () => bar.querySelector("input").focus(),
      Enter: () => event.target.tagName !== "BUTTON" && reply && open(reply), t: () => reply && open(reply).focus() }[event.key];
    if (handled) {
      if (event.key === "Enter" && event.target.tagName === "BUTTON") return;
      event.preventDefault();
      event.stopPropagation(); // a notebook has keys of its own
      handled();
    } else if (/^[1-9]$/.test(event.key) && reply && tagNames()[event.key - 1]) {
      event.preventDefault();
      event.stopPropagation();
      toggled(reply, tagNames()[event.key - 1]);
    }
  };
  root.addEventListener("keydown", onKey);
  draw();

  // Another view of the same replies has given tags.
  function showTags(all) {
    const differ = [...new Set([...Object.keys(tags), ...Object.keys(all)])].filter((key) => JSON.stringify(tags[key] ?? []) !== JSON.stringify(all[key] ?? []));
    for (const key of differ) {
      if (all[key]?.length) tags[key] = [...all[key]];
      else delete tags[key];
      for (const place of root.querySelectorAll("[data-tags]")) if (place.dataset.tags === key) place.replaceChildren(...tagMarks({ key }));
    }
    if (differ.length) drawBar();
  }

  function remove() {
    stopGrowing();
    root.removeEventListener("keydown", onKey);
    root.replaceChildren();
  }

  return { set, state, showTags, remove };
}

function download(text) {
  const link = make("a", { href: URL.createObjectURL(new Blob([text], { type: "application/jsonl" })), download: "tags.jsonl" });
  link.click();
  URL.revokeObjectURL(link.href);
}

// ------------------------------------------------------------------------------------------- a page, a notebook's widget

export async function page() {
  const root = document.getElementById("explorer");
  const packed = atob(document.getElementById("data").textContent);
  const bytes = new Uint8Array(packed.length);
  for (let place = 0; place < packed.length; place++) bytes[place] = packed.charCodeAt(place);
  const data = await unpack(bytes);
  const saveTo = root.dataset.save; // where `zsd explore` takes tags
  const stored = `zsd-explorer ${data.id}`;
  let tags = data.tags;
  // A page in a file keeps its tags in the browser; where that is not allowed they last as long as the page.
  if (!saveTo) try { tags = JSON.parse(localStorage.getItem(stored)) ?? tags; } catch { /* not allowed */ }
  const onTags = (all, changed) => {
    if (saveTo) return fetch(saveTo, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(changed) })
      .then(async (answer) => { if (!answer.ok) alert(`The tag was not saved: ${await answer.text()}`); })
      .catch(() => alert("The tag was not saved: zsd explore has ended. Start it again and reload this page."));
    try { localStorage.setItem(stored, JSON.stringify(all)); } catch { /* not allowed */ }
  };
  explore(root, data, { tags, onTags, savedTo: root.dataset.savedTo, start: location.hash.slice(1) });
  root.focus();
}

export default {
  async render({ model, el }) {
    const view = model.get("data");
    const data = await unpack(new Uint8Array(view.buffer, view.byteOffset, view.byteLength));
    el.classList.add("in-notebook");
    const shown = explore(el, data, {
      tags: model.get("tags"), savedTo: model.get("saved_to"), start: model.get("start"),
      onTags: (all) => { model.set("tags", all); model.save_changes(); },
    });
    const onChange = () => shown.showTags(model.get("tags"));
    model.on("change:tags", onChange);
    return () => { model.off("change:tags", onChange); shown.remove(); };
  },
};
