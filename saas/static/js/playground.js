// Streams chat answers (server-sent events over fetch) into the page; without a script the form posts and waits.
(function () {
  "use strict";

  var chat = document.querySelector("[data-chat]");
  var form = document.querySelector("[data-chat-form]");
  if (!chat || !form || !window.ReadableStream) return;
  var input = form.querySelector("textarea");
  var stop = form.querySelector("[data-chat-stop]");
  var clear = form.querySelector("[data-chat-clear]");
  var send = form.querySelector("button[type=submit]");
  var history = [];
  var running = null;

  function turn(role, text) {
    var element = document.createElement("div");
    var who = document.createElement("span");
    var words = document.createElement("span");
    element.className = "turn turn--" + role;
    who.className = "turn__who";
    who.textContent = role === "user" ? chat.dataset.you : chat.dataset.modelWord;
    words.textContent = text;
    element.append(who, words);
    chat.append(element);
    return words;
  }

  function busy(on) {
    send.disabled = on;
    stop.hidden = !on;
    clear.hidden = on || !history.length;
  }

  // One SSE block is "data: {json}" or "data: [DONE]".
  function read(block, words) {
    block.split("\n").forEach(function (line) {
      if (!line.startsWith("data: ") || line === "data: [DONE]") return;
      var chunk = JSON.parse(line.slice(6));
      if (chunk.error) throw new Error(chunk.error.message);
      var choice = chunk.choices && chunk.choices[0];
      if (choice && choice.delta && choice.delta.content) words.textContent += choice.delta.content;
    });
  }

  async function stream(words) {
    running = new AbortController();
    var answer = await fetch(chat.dataset.stream, {
      method: "POST", signal: running.signal, credentials: "same-origin",
      headers: { "Content-Type": "application/json", "X-CSRFToken": form.querySelector("[name=csrfmiddlewaretoken]").value },
      body: JSON.stringify({ model: chat.dataset.model, messages: history }),
    });
    if (!answer.ok) {
      var body = await answer.json().catch(function () { return {}; });
      throw new Error(body.error ? body.error.message : chat.dataset.failed);
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

  form.addEventListener("submit", async function (event) {
    event.preventDefault();
    var text = input.value.trim();
    if (!text || running) return;
    input.value = "";
    history.push({ role: "user", content: text });
    turn("user", text);
    var words = turn("assistant", "");
    busy(true);
    try {
      await stream(words);
    } catch (error) {
      if (error.name !== "AbortError") words.textContent += (words.textContent ? " " : "") + "[" + (error.message || chat.dataset.failed) + "]";
    }
    history.push({ role: "assistant", content: words.textContent });
    running = null;
    busy(false);
    input.focus();
  });

  input.addEventListener("keydown", function (event) {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); form.requestSubmit(); }
  });
  stop.addEventListener("click", function () { if (running) running.abort(); });
  clear.addEventListener("click", function () { history = []; chat.querySelectorAll(".turn").forEach(function (one) { one.remove(); }); busy(false); input.focus(); });
})();
