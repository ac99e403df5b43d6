const zone = element.querySelector(".vx-drop");
const input = zone.querySelector("input");
const maxMegabytes = Number(zone.dataset.maxMegabytes);

const say = (text) => { element.querySelector(".vx-status").textContent = text; };

async function send(file) {
  if (!file) return;
  if (file.size > maxMegabytes * 2 ** 20) {
    say(`This file is larger than ${maxMegabytes} MB: make it smaller.`);
    return;
  }
  say("Sending the photo …");
  try {
    const answer = await fetch("photo", { method: "POST", body: file });
    const text = await answer.text();
    if (answer.ok) trigger("submit", { photo: text });
    say(answer.ok ? "" : text);
  } catch {
    say("The photo did not reach the server. Is it still running?");
  }
}

input.addEventListener("change", () => { send(input.files[0]); input.value = ""; });
document.addEventListener("paste", (event) => send(event.clipboardData?.files[0]));
zone.addEventListener("dragover", (event) => { event.preventDefault(); zone.classList.add("vx-over"); });
zone.addEventListener("dragleave", () => zone.classList.remove("vx-over"));
zone.addEventListener("drop", (event) => {
  event.preventDefault();
  zone.classList.remove("vx-over");
  send(event.dataTransfer.files[0]);
});
element.addEventListener("click", (event) => {
  const example = event.target.closest("[data-example]");
  if (example) trigger("submit", { example: Number(example.dataset.example) });
});
