// What the studio's pages gain from JavaScript: dropping files and folders, a budget that answers while it is
// dragged, live progress, keys for labelling. Every page works without it.

// Dropping ----------------------------------------------------------------------------------------------------

async function readEntry(entry, path, found) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    if (!entry.name.startsWith(".")) found.push({ file, name: path + entry.name });
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return;
    for (const one of some) await readEntry(one, `${path}${entry.name}/`, found);
  }
}

async function dropped(transfer) {
  const found = [];
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (entries.length) for (const entry of entries) await readEntry(entry, "", found);
  else found.push(...[...transfer.files].map((file) => ({ file, name: file.name })));
  return found;
}

function sendsFiles(form) {
  const zone = form.querySelector("[data-drop]");
  const input = zone.querySelector("input[type=file]");
  const chosen = zone.querySelector("[data-chosen]");
  const error = form.querySelector("[data-error]");
  let files = [];

  const take = (found) => {
    files = found;
    const bytes = found.reduce((sum, { file }) => sum + file.size, 0);
    chosen.textContent = found.length === 1 ? found[0].name : `${found.length.toLocaleString("en")} files, ${(bytes / 1e6).toFixed(1)} MB`;
    if (found.length && form.dataset.atOnce !== undefined) form.requestSubmit();
  };
  const takeChosen = () => take([...input.files].map((file) => ({ file, name: file.webkitRelativePath || file.name })));
  input.addEventListener("change", takeChosen);
  // chosen while the script was still on its way; a file that the browser restores on going back was sent before
  if (input.files.length && performance.getEntriesByType("navigation")[0].type === "navigate") takeChosen();
  if (input.multiple && "webkitdirectory" in input) {
    const whole = Object.assign(document.createElement("button"), { type: "button", className: "quiet", textContent: "Choose a whole folder" });
    whole.addEventListener("click", () => { input.webkitdirectory = true; input.click(); input.webkitdirectory = false; });
    input.after(whole);
  }
  let depth = 0;
  zone.addEventListener("dragenter", (event) => { event.preventDefault(); depth += 1; zone.classList.add("over"); });
  zone.addEventListener("dragover", (event) => event.preventDefault());
  zone.addEventListener("dragleave", () => { depth -= 1; if (!depth) zone.classList.remove("over"); });
  zone.addEventListener("drop", async (event) => {
    event.preventDefault();
    depth = 0;
    zone.classList.remove("over");
    const found = await dropped(event.dataTransfer);
    take(input.multiple ? found : found.slice(0, 1));
  });

  form.addEventListener("submit", (event) => {
    if (!files.length) return;
    event.preventDefault();
    const body = new FormData(form);
    body.delete("files");
    for (const { file, name } of files) body.append("files", file, name);
    const buttons = form.querySelectorAll("button");
    const request = new XMLHttpRequest();
    request.open("POST", form.action);
    request.setRequestHeader("accept", "application/json");
    request.upload.addEventListener("progress", (told) => {
      if (told.lengthComputable && told.total > 1e6) chosen.textContent = `sending, ${Math.round((100 * told.loaded) / told.total)} %`;
    });
    const fail = (text) => { buttons.forEach((one) => { one.disabled = false; }); error.textContent = text; };
    request.addEventListener("error", () => fail("The studio does not answer. Is it still running in the terminal?"));
    request.addEventListener("load", () => {
      let told = {};
      try { told = JSON.parse(request.responseText); } catch { told = { error: request.responseText }; }
      if (request.status < 300 && told.location) location.assign(told.location);
      else fail(told.error || `The studio refused it (${request.status}).`);
    });
    error.textContent = "";
    buttons.forEach((one) => { one.disabled = true; });
    request.send(body);
  });
}

// A budget ----------------------------------------------------------------------------------------------------

function budget(slider) {
  const output = slider.form.querySelector("output");
  const texts = output.dataset.notches.split("|");
  const seconds = output.dataset.seconds.split("|").map((text) => (text ? Number(text) : Infinity));
  const best = output.dataset.best.split("|");
  const reasons = output.dataset.why.split("|");
  const why = document.querySelector("[data-why]:not(output)");
  const hidden = document.querySelector("[data-notch]");
  const rows = [...document.querySelectorAll("tr[data-median]")];
  const allowed = document.querySelector("[data-allowed]");
  const buttons = document.querySelectorAll("[data-train]");
  const careful = 0.85; // as the planner: a budget is met with a reserve
  let before = Number(slider.value);
  const show = () => {
    const at = Number(slider.value);
    output.value = texts[at];
    slider.setAttribute("aria-valuetext", texts[at]);
    hidden.value = slider.value;
    const fits = rows.filter((row) => Number(row.dataset.median) <= careful * seconds[at]);
    rows.forEach((row) => {
      row.classList.toggle("over", !fits.includes(row));
      row.classList.toggle("best", row.querySelector("[name=chosen]").value === best[at]);
    });
    allowed.textContent = `${fits.length === rows.length ? `All ${fits.length}` : `${fits.length} of ${rows.length}`} options meet the limit`;
    why.textContent = `Recommended: ${reasons[at]}.`;
    const checked = document.querySelector("[name=chosen]:checked");
    const row = checked?.closest("tr");
    const picked = checked && checked.value !== best[before] && (row ? fits.includes(row) : at === texts.length - 2);
    if (!picked) document.querySelector(`[name=chosen][value="${CSS.escape(best[at])}"]`).checked = true;
    before = at;
    buttons.forEach((one) => { one.textContent = fits.length ? "Train this" : "Train this, reduced to the budget"; });
  };
  slider.addEventListener("input", show);
  show();
}

// Live --------------------------------------------------------------------------------------------------------

function phaseRow(row) {
  const line = Object.assign(document.createElement("div"), { className: "phase" });
  const bar = document.createElement("progress");
  bar.setAttribute("aria-label", row.text);
  line.append(Object.assign(document.createElement("span"), { textContent: row.text }));
  if (row.of) {
    bar.max = row.of;
    bar.value = row.done;
    const of = `${row.done.toLocaleString("en")} of ${row.of.toLocaleString("en")}`;
    line.append(Object.assign(document.createElement("span"), { className: "of", textContent: of }));
  }
  line.append(bar);
  return line;
}

function watch(panel) {
  const source = new EventSource(panel.dataset.job);
  const text = panel.querySelector("[data-text]");
  const phases = panel.querySelector("[data-phases]");
  const curve = document.querySelector("[data-curve]");
  const put = (name, value) => {
    const place = panel.querySelector(`[data-${name}]`);
    place.textContent = value;
    place.hidden = !value;
  };
  source.addEventListener("state", (event) => {
    const now = JSON.parse(event.data);
    if (text.textContent !== now.text) text.textContent = now.text;
    text.classList.toggle("away", now.phases.length > 0 && !now.stopping); // the last bar says the same
    phases.replaceChildren(...now.phases.map(phaseRow));
    put("time", now.time);
    put("expected", now.expected && `predicted ${now.expected}`);
    put("elapsed", now.elapsed && `${now.elapsed} so far`);
    if (curve && now.curve && curve.dataset.shown !== now.curve) {
      curve.innerHTML = now.curve; // an SVG that the server drew from numbers
      curve.dataset.shown = now.curve;
      curve.hidden = false;
    }
    if (!now.over) return;
    source.close();
    const here = new URL(location.href);
    const told = here.searchParams.get("told");
    const target = now.where && now.where !== here.pathname ? now.where : here.pathname;
    location.replace(target + (told ? `?told=${told}` : ""));
  });
  source.addEventListener("error", () => { // the browser asks again by itself, and the next state replaces this
    text.textContent = "The studio does not answer. Is it still running in the terminal?";
    text.classList.remove("away");
  });
}

// Labelling: 1 to 9 choose for the photograph that has the focus, 0 skips --------------------------------------------

function keys(form) {
  form.querySelector("[data-keys]").hidden = !form.querySelector("[type=radio]");
  form.addEventListener("keydown", (event) => {
    if (!/^[0-9]$/.test(event.key) || event.ctrlKey || event.metaKey || event.altKey) return;
    const radios = [...(event.target.closest("fieldset")?.querySelectorAll("[type=radio]") ?? [])];
    const radio = event.key === "0" ? radios.at(-1) : radios.slice(0, -1)[Number(event.key) - 1];
    if (!radio) return;
    radio.checked = true;
    const next = event.target.closest("li").nextElementSibling?.querySelector("[type=radio]:checked, [type=radio]");
    (next ?? form.querySelector("button")).focus();
    event.preventDefault();
  });
}

function onceOnly(form) {
  // What takes a moment says so, and a second click does nothing.
  form.addEventListener("submit", (event) => {
    if (event.defaultPrevented || !event.submitter) return;
    if (form.dataset.sent) { event.preventDefault(); return; }
    form.dataset.sent = "yes";
    event.submitter.setAttribute("aria-busy", "true");
  });
  addEventListener("pageshow", () => { delete form.dataset.sent; });
}

document.querySelector(".tabs [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" }); // on a phone
document.querySelectorAll("form[data-send]").forEach(sendsFiles);
document.querySelectorAll("[data-budget]").forEach(budget);
document.querySelectorAll("[data-job]").forEach(watch);
document.querySelectorAll("form[data-label]").forEach(keys);
document.querySelectorAll("form[method=post]:not([data-send])").forEach(onceOnly);
