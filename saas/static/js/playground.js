// Streams chat answers (server-sent events over fetch) into every pane at once; without a script the form posts and waits.
(function () {
  "use strict";

  var form = document.querySelector("[data-chat-form]");
  if (!form || !window.ReadableStream) return;
  var panes = Array.from(document.querySelectorAll("[data-chat]")).map(function (box) { return { box: box, history: [] }; });
  var input = form.querySelector("textarea");
  var stop = form.querySelector("[data-chat-stop]");
  var clear = form.querySelector("[data-chat-clear]");
  var send = form.querySelector("button[type=submit]");
  var running = null;

  function turn(pane, role, text) {
    var element = document.createElement("div");
    var who = document.createElement("span");
    var words = document.createElement("span");
    element.className = "turn turn--" + role;
    who.className = "turn__who";
    who.textContent = role === "user" ? form.dataset.you : form.dataset.modelWord;
    words.textContent = text;
    element.append(who, words);
    pane.box.append(element);
    return words;
  }

  function busy(on) {
    send.disabled = on;
    stop.hidden = !on;
    clear.hidden = on || !panes[0].history.length;
  }

  // One SSE block is "data: {json}" or "data: [DONE]"; `facts` say what the answer took and cost.
  function read(block, words) {
    block.split("\n").forEach(function (line) {
      if (!line.startsWith("data: ") || line === "data: [DONE]") return;
      var chunk = JSON.parse(line.slice(6));
      if (chunk.error) throw new Error(chunk.error.message);
      var choice = chunk.choices && chunk.choices[0];
      if (choice && choice.delta && choice.delta.content) words.textContent += choice.delta.content;
      if (chunk.facts) tell(words, chunk.facts);
    });
  }

  function tell(words, text) {
    var facts = document.createElement("p");
    facts.className = "turn__facts";
    facts.textContent = text;
    words.after(facts);
  }

  async function stream(pane, words) {
    var answer = await fetch(form.dataset.stream, {
      method: "POST", signal: running.signal, credentials: "same-origin",
      headers: { "Content-Type": "application/json", "X-CSRFToken": form.querySelector("[name=csrfmiddlewaretoken]").value },
      body: JSON.stringify({ model: pane.box.dataset.model, messages: pane.history }),
    });
    if (!answer.ok) {
      var body = await answer.json().catch(function () { return {}; });
      throw new Error(body.error ? body.error.message : form.dataset.failed);
    }
    var reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    var kept = "";
    for (;;) {
      var part = await reader.read();
      if (part.done) break;
      kept += part.value;
      var blocks = kept.split("\n\n");
      kept = blocks.pop();
      blocks.forEach(function (block) { read(block, words); });
    }
  }

  async function ask(pane, text) {
    pane.history.push({ role: "user", content: text });
    turn(pane, "user", text);
    var words = turn(pane, "assistant", "");
    try {
      await stream(pane, words);
    } catch (error) {
      if (error.name === "AbortError") tell(words, form.dataset.stopped);
      else words.textContent += (words.textContent ? " " : "") + "[" + (error.message || form.dataset.failed) + "]";
    }
    pane.history.push({ role: "assistant", content: words.textContent });
  }

  form.addEventListener("submit", async function (event) {
    event.preventDefault();
    var text = input.value.trim();
    if (!text || running) return;
    input.value = "";
    running = new AbortController();
    busy(true);
    await Promise.all(panes.map(function (pane) { return ask(pane, text); }));
    running = null;
    busy(false);
    input.focus();
  });

  input.addEventListener("keydown", function (event) {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); form.requestSubmit(); }
  });
  stop.addEventListener("click", function () { if (running) running.abort(); });
  clear.addEventListener("click", function () {
    panes.forEach(function (pane) { pane.history = []; pane.box.querySelectorAll(".turn").forEach(function (one) { one.remove(); }); });
    busy(false);
    input.focus();
  });
})();
