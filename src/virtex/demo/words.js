let pinned = null;
let last = null;

const chosen = (name, otherwise) =>
  element.querySelector(`input[name="vx-${name}"]:checked`)?.value ?? otherwise;

function show(word) {
  const photo = element.querySelector(".vx-photo");
  if (!photo) return;
  const map = photo.querySelector(".vx-map");
  const kind = `data-${chosen("direction", "forward")}-${chosen("kind", "share")}`;
  const picture = word?.getAttribute(kind);
  map.hidden = !picture;
  photo.classList.toggle("vx-looking", Boolean(picture));
  if (picture) map.src = picture;
  last = word ?? last;
  for (const each of element.querySelectorAll(".vx-word")) each.classList.toggle("vx-shown", each === word);
}

function pin(word) {
  pinned?.setAttribute("aria-pressed", "false");
  pinned = word;
  pinned?.setAttribute("aria-pressed", "true");
  show(word);
}

const wordOf = (event) => event.target.closest?.(".vx-word");
const isMouse = (event) => event.pointerType === "mouse";

element.addEventListener("pointerover", (event) => { if (isMouse(event) && wordOf(event)) show(wordOf(event)); });
element.addEventListener("pointerout", (event) => { if (isMouse(event) && wordOf(event)) show(pinned); });
element.addEventListener("focusin", (event) => { if (wordOf(event)) show(wordOf(event)); });
element.addEventListener("focusout", (event) => { if (wordOf(event)) show(pinned); });
element.addEventListener("click", (event) => {
  const word = wordOf(event);
  if (word) pin(word === pinned ? null : word);
});
element.addEventListener("keydown", (event) => { if (event.key === "Escape") pin(null); });
element.addEventListener("change", () => pin(pinned ?? last ?? element.querySelector(".vx-word")));
watch("value", () => {
  pinned = last = null;
  show(null);
  element.scrollIntoView({ block: "nearest", behavior: "smooth" });
});
