const $ = (selector) => document.querySelector(selector);
const say = (kind, text) => { $(`#${kind}-status`).textContent = text; };
const percent = (share) => share < 0.001 ? "below 0.1 %" : `${(100 * share).toFixed(share >= 0.0995 ? 0 : 1)} %`;
const number = (value) => value.toFixed(1).replace("-", "−");

function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/* Requests: of each kind only the newest is answered; one that a newer overtook gives null. */
const pending = {};

async function request(kind, query, options = {}) {
  pending[kind]?.abort();
  const { signal } = pending[kind] = new AbortController();
  say(kind, "The model is reading …");
  let words = "";
  try {
    const response = await fetch(`api/${kind}?${new URLSearchParams(query)}`, { ...options, signal });
    const answer = await response.json().catch(() => ({ error: `The server answered ${response.status}: try again.` }));
    if (response.ok && !signal.aborted) return answer;
    words = answer.error;
  } catch {
    words = "The server did not answer. Is it still running?";
  } finally {
    if (!signal.aborted) say(kind, words);
  }
  return null;
}

/* The photo: a file, or the index of an image of the gallery. */
let photo = null;

async function look(chosen) {
  const answer = await request("photo", chosen.query, { method: "POST", body: chosen.file });
  if (!answer) return;
  photo = chosen;
  pending.labels?.abort();
  say("labels", "");
  $("#bars").replaceChildren();
  $("#photo").src = answer.image;
  $(".photo").style.setProperty("--aspect", answer.aspect);
  ["left", "top", "width", "height"].forEach((side, index) => { $("#map").style[side] = `${100 * answer.seen[index]}%`; });
  pinned = last = null;
  $("#captions").replaceChildren(...answer.captions.map(captionItem));
  $("#look").hidden = false;
  show(null);
  say("caption", `Captioned: ${answer.captions[0]?.text}`);
  $("#look").scrollIntoView({ block: "nearest", behavior: "smooth" });
}

function send(file) {
  if (!file) return;
  const limit = Number(document.body.dataset.maxMegabytes);
  if (file.size > limit * 2 ** 20) say("photo", `This file is larger than ${limit} MB: make it smaller.`);
  else look({ query: {}, file });
}

const input = $(".drop input");
input.addEventListener("change", () => { send(input.files[0]); input.value = ""; });
document.addEventListener("paste", (event) => send(event.clipboardData?.files[0]));
document.addEventListener("dragover", (event) => { event.preventDefault(); $(".drop").classList.add("over"); });
document.addEventListener("dragleave", () => $(".drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $(".drop").classList.remove("over");
  send(event.dataTransfer.files[0]);
});
$(".examples")?.addEventListener("click", (event) => {
  const example = event.target.closest("[data-gallery]");
  if (example) look({ query: { gallery: example.dataset.gallery } });
});

/* Captions, and the map of the word that is pointed at, or else of the one that is pinned. */
const maps = new WeakMap();
let pinned = null;
let last = null;

function captionItem(caption) {
  const words = caption.words.map((word, index) => {
    const button = make("button", { type: "button", class: "word", "aria-pressed": "false" }, word);
    maps.set(button, (direction, kind) => caption.maps[direction][kind][index]);
    return button;
  });
  const facts = [`${percent(caption.word_probability)} a word`, `log-likelihood ${number(caption.log_likelihood)}`];
  if (caption.backward_log_likelihood !== null) facts.push(`read backward ${number(caption.backward_log_likelihood)}`);
  return make("li", {},
    make("p", { class: "unseen" }, caption.text || "No words"),
    make("div", { class: "words", role: "group", "aria-label": "Show where the model looked at each word" },
      ...(words.length ? words : [make("span", { class: "quiet" }, "(a caption without words)")])),
    make("p", { class: "facts quiet" }, ...facts.map((fact) => make("span", {}, fact))));
}

function show(word) {
  const { kind, direction = "forward" } = Object.fromEntries(new FormData($("#switches")));
  const source = word && maps.get(word)(direction, kind);
  $("#map").hidden = !source;
  $(".photo").classList.toggle("looking", Boolean(source));
  if (source) $("#map").src = source;
  last = word ?? last;
  for (const each of document.querySelectorAll(".word")) each.classList.toggle("shown", each === word);
}

function pin(word) {
  pinned?.setAttribute("aria-pressed", "false");
  pinned = word;
  pinned?.setAttribute("aria-pressed", "true");
  show(word);
}

const onWord = (type, act) => $("#captions").addEventListener(type, (event) => {
  const word = event.target.closest(".word");
  if (word) act(word, event);
});
onWord("pointerover", (word, event) => { if (event.pointerType === "mouse") show(word); });
onWord("pointerout", (word, event) => { if (event.pointerType === "mouse") show(pinned); });
onWord("focusin", show);
onWord("focusout", () => show(pinned));
onWord("click", (word) => pin(word === pinned ? null : word));
document.addEventListener("keydown", (event) => { if (event.key === "Escape") pin(null); });
$("#switches").addEventListener("change", () => pin(pinned ?? last ?? $(".word")));

/* Labels and search. */
const onSubmit = (form, act) => $(form)?.addEventListener("submit", (event) => {
  event.preventDefault();
  act(new FormData(event.target));
});
onSubmit("#labels", async (fields) => {
  if (!photo) return say("labels", "Choose a photo first.");
  const query = { ...Object.fromEntries(fields), ...photo.query };
  const answer = await request("labels", query, { method: "POST", body: photo.file });
  if (answer) $("#bars").replaceChildren(...answer.labels.map(({ label, probability }) => {
    const bar = make("i");
    bar.style.width = `${100 * probability}%`;
    return make("li", {}, make("span", { class: "label" }, label), make("span", {}, percent(probability)), make("span", { class: "bar" }, bar));
  }));
});
onSubmit("#search", async (fields) => {
  const answer = await request("search", fields);
  if (answer) $("#found").replaceChildren(...answer.found.map((one) => make("li", {}, make("figure", {},
    make("img", { src: `gallery/${one.gallery}`, alt: one.name }),
    make("figcaption", {},
      make("span", { class: "name", title: one.name }, one.name),
      make("span", { class: "quiet" }, `${percent(one.word_probability)} a word`),
      make("span", { class: "quiet" }, `log-likelihood ${number(one.log_likelihood)}`))))));
});
$("textarea").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !event.shiftKey) return;
  event.preventDefault();
  event.target.form.requestSubmit();
});
$("#labels [name=prior]").addEventListener("input", (event) => { $("#labels output").textContent = event.target.value; });
