"use strict";
// The search page: ranks the sections in search_sections.js (tools/sphinx/sections.py) by BM25, without a network.

const N_SHOWN = 40, N_EXCERPT = 240;
// An option is one word and its parts: `--budget-usd`, budget, usd. So is a name with underscores or dots.
const wordsOf = text => (text.toLowerCase().match(/--[a-z][\w-]*|[\p{L}\p{N}_]+/gu) || [])
  .flatMap(word => /^--|_/.test(word) ? [word, ...word.split(/[-_]+/).filter(Boolean)] : [word]);
const stem = word => word.startsWith("--") || word.length < 5 ? word : word.replace(/(?:ies|ing|ed|es|s|e|y)$/, "");
const FEW = new Set("a an and are as at be but by for from has have how i if in is it its my of on or that the this to was what when where which who why will with you your".split(" "));

function prepare(sections) {
  const found = new Map();  // stem -> [section, times in the text, whether in the title] of each section that has it
  let length = 0;
  sections.forEach(([, page, , title, text], n) => {
    const inTitle = new Set(wordsOf(`${title} ${page}`).map(stem)), counts = new Map([...inTitle].map(word => [word, 0]));
    for (const word of wordsOf(text).map(stem)) { counts.set(word, (counts.get(word) || 0) + 1); length++; }
    for (const [word, count] of counts) {
      if (!found.has(word)) found.set(word, []);
      found.get(word).push([n, count, inTitle.has(word)]);
    }
  });
  return { found, mean: length / sections.length };
}

function search(query, index) {
  const { sections, weights } = SEARCH, asked = [...new Set(wordsOf(query))];
  const told = asked.filter(word => !FEW.has(word)), words = [...new Set((told.length ? told : asked).map(stem))];
  const all = new Set(asked.map(stem)), scores = new Map(), matched = new Map();
  words.forEach((word, i) => {
    // The last word may still be being typed.
    const whole = index.found.get(word) || [];
    const begun = whole.length || word.length < 3 ? [] : [...index.found.keys()].filter(other => other.startsWith(word)).slice(0, 30).flatMap(other => index.found.get(other));
    const places = whole.length ? whole : begun;
    const rare = Math.log(1 + sections.length / (places.length + 0.5));
    for (const [n, count, inTitle] of places) {
      const size = 0.5 + 0.5 * (sections[n][4].length / 6) / index.mean;
      const score = rare * (count * 2.2 / (count + 1.2 * size) + (inTitle ? 2 : 0)) * (whole.length ? 1 : 0.5);
      scores.set(n, (scores.get(n) || 0) + score);
      matched.set(n, (matched.get(n) || new Set()).add(i));
    }
  });
  const phrase = query.toLowerCase().trim();
  const ranked = [...scores].map(([n, score]) => {
    const [, page, kind, title, text] = sections[n], name = title.toLowerCase();
    const inTitle = title === page ? 2 : 1.6;
    const says = name === phrase || name.split(" ")[0] === phrase ? 3 : name.includes(phrase) ? inTitle : text.toLowerCase().includes(phrase) ? 1.3 : 1;
    // What is asked for may be a message as a terminal showed it, with names and numbers in it: then most words of the message are asked for.
    const own = kind === "message" ? new Set(wordsOf(text).map(stem)) : new Set();
    const asIs = [...own].filter(word => all.has(word)).length / (own.size || 1);
    const share = Math.max(matched.get(n).size / words.length, asIs ** 3);
    return [n, score * share * share * says * weights[kind] * (title === page ? 1.3 : 1) * (1 + 4 * asIs ** 3)];
  });
  return { words, ranked: ranked.sort((a, b) => b[1] - a[1] || a[0] - b[0]).map(([n]) => n) };
}

function excerpt(text, words, phrase) {
  const lower = text.toLowerCase();
  let at = lower.indexOf(phrase);
  for (const word of words) if (at < 0) at = lower.search(new RegExp(`(?<![\\p{L}\\p{N}])${word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}`, "u"));
  let start = Math.max(0, at - 80);
  if (start) start = text.indexOf(" ", start) + 1;
  return (start ? "… " : "") + text.slice(start, start + N_EXCERPT).trim() + (start + N_EXCERPT < text.length ? " …" : "");
}

function marked(text, words) {
  const element = document.createElement("p");
  element.className = "context";
  const pattern = new RegExp(`((?<![\\p{L}\\p{N}])(?:${words.map(word => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|")})[\\p{L}\\p{N}]*)`, "giu");
  text.split(pattern).forEach((part, i) => {
    if (!part) return;
    if (i % 2) { const mark = document.createElement("mark"); mark.textContent = part; element.append(mark); }
    else element.append(part);
  });
  return element;
}

function show(query, index) {
  const list = document.getElementById("search-results"), count = document.getElementById("search-count");
  list.replaceChildren();
  count.textContent = "";
  if (!query.trim()) return;
  const { words, ranked } = search(query, index);
  count.textContent = ranked.length ? `${ranked.length} sections, the best first` : "Nothing is found. Try fewer or other words.";
  for (const n of ranked.slice(0, N_SHOWN)) {
    const [address, page, kind, title, text] = SEARCH.sections[n], item = document.createElement("li"), link = document.createElement("a");
    link.href = address;
    link.textContent = title;
    const where = document.createElement("span");
    where.className = "where";
    where.textContent = title === page ? ` ${kind}` : ` ${page} · ${kind}`;
    item.append(link, where, marked(excerpt(text, words, query.toLowerCase().trim()), words));
    list.append(item);
  }
}

const index = prepare(SEARCH.sections), field = document.getElementById("search-words");
field.value = new URLSearchParams(location.search).get("q") || "";
field.addEventListener("input", () => show(field.value, index));
show(field.value, index);
