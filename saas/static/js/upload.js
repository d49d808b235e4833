// Sends <form data-upload> in slices: two on the way at once, each with its checksum; goes on after a pause, a lost
// connection or a closed tab. Without a script, or where the browser has no crypto.subtle, the form posts as it is.
(function () {
  "use strict";

  var form = document.querySelector("form[data-upload]");
  if (!form || !window.crypto || !crypto.subtle || !window.fetch) return;
  var IN_FLIGHT = 2, LONGEST_WAIT = 30, WINDOW = 8000;
  var words = form.dataset;
  var box = form.querySelector("[data-upload-progress]"), bar = box.querySelector("progress");
  var said = box.querySelector("[data-upload-words]"), error = form.querySelector("[data-upload-error]");
  var start = form.querySelector("button[type=submit]"), file = form.querySelector("input[type=file]");
  var hold = form.querySelector("[data-upload-pause]"), cancel = form.querySelector("[data-upload-cancel]");
  var wanted = null; // the unfinished upload whose file is being chosen
  var run = null;    // the upload under way

  function size(bytes) {
    var units = ["B", "kB", "MB", "GB", "TB"], unit = 0;
    for (; bytes >= 1000 && unit < 4; unit += 1) bytes /= 1000;
    return (unit === 0 || bytes >= 100 ? bytes.toFixed(0) : bytes.toFixed(1)) + " " + units[unit];
  }
  function span(seconds) {
    if (seconds < 90) return Math.max(1, Math.round(seconds)) + " s";
    return seconds < 5400 ? Math.round(seconds / 60) + " min" : (seconds / 3600).toFixed(1) + " h";
  }
  function fill(text, values) {
    return text.replace(/\{(\w+)\}/g, function (_, name) { return values[name]; });
  }
  function pause(milliseconds) {
    return new Promise(function (go) {
      var timer = setTimeout(go, milliseconds);
      window.addEventListener("online", function () { clearTimeout(timer); go(); }, { once: true });
    });
  }
  function hex(buffer) {
    return Array.from(new Uint8Array(buffer), function (one) { return one.toString(16).padStart(2, "0"); }).join("");
  }
  function Refused(message) { this.message = message; }
  function Lost(wait) { this.wait = wait || 0; }

  function read(status, text, again) {
    var answer = null;
    try { answer = JSON.parse(text); } catch (broken) { /* a page: of a proxy, or to sign in */ }
    if (status >= 200 && status < 300 && answer) return answer;
    if (status === 0 || status >= 500 || status === 429) throw new Lost(again);
    var code = answer && answer.error && answer.error.code;
    if (code === "checksum_mismatch") throw new Lost();
    throw new Refused(answer && answer.error ? answer.error.message : words.signedOut);
  }

  function ask(method, place, fields) {
    var body = fields ? new URLSearchParams(fields) : undefined;
    var headers = { "Accept": "application/json", "X-CSRFToken": form.elements.csrfmiddlewaretoken.value };
    return fetch(place, { method: method, body: body, headers: headers }).then(
      function (answer) { return answer.text().then(function (text) { return read(answer.status, text); }); },
      function () { throw new Lost(); });
  }

  // Try until it works; a refusal ends it. A pause interrupts what is under way, and it begins again afterwards.
  async function patiently(mine, work) {
    for (var tries = 0; ; tries += 1) {
      if (mine.held) { await mine.released; tries = 0; }
      if (mine.over) throw new Refused("");
      try {
        var answer = await work();
        mine.waiting = false;
        return answer;
      } catch (problem) {
        if (!(problem instanceof Lost)) throw problem;
        if (mine.held || mine.over) continue;
        var seconds = Math.max(problem.wait, Math.min(LONGEST_WAIT, Math.pow(2, tries)));
        mine.waiting = true;
        said.textContent = fill(words.lost, { seconds: seconds });
        await pause(seconds * (800 + Math.random() * 400));
      }
    }
  }

  function slice(mine, number) { return mine.file.slice((number - 1) * mine.slice, number * mine.slice); }

  function digest(blob) {
    return blob.arrayBuffer().then(
      function (bytes) { return crypto.subtle.digest("SHA-256", bytes).then(hex); },
      function () { throw new Refused(words.unreadable); });
  }

  async function deliver(mine, number) {
    var blob = slice(mine, number), sum = await digest(blob);
    await patiently(mine, function () { return post(mine, number, blob, sum); });
    mine.loaded.delete(number);
    mine.done += blob.size;
    show(mine);
  }

  function post(mine, number, blob, sum) {
    return new Promise(function (resolve, reject) {
      var request = new XMLHttpRequest(), body = new FormData();
      body.append("part_number", number);
      body.append("sha256", sum);
      body.append("data", blob, "part");
      request.open("POST", mine.place + "parts/");
      request.setRequestHeader("Accept", "application/json");
      request.setRequestHeader("X-CSRFToken", form.elements.csrfmiddlewaretoken.value);
      request.upload.onprogress = function (event) { mine.loaded.set(number, event.loaded); show(mine); };
      request.onloadend = function () {
        mine.requests.delete(request);
        var again = Number(request.getResponseHeader("Retry-After")) || 0;
        try { resolve(read(request.status, request.responseText, again)); }
        catch (problem) { mine.loaded.delete(number); reject(problem); }
      };
      mine.requests.add(request);
      request.send(body);
    });
  }

  function show(mine) {
    var sent = mine.done;
    mine.loaded.forEach(function (bytes) { sent += bytes; });
    sent = Math.min(sent, mine.file.size);
    bar.max = mine.file.size;
    bar.value = sent;
    if (mine.held) {
      said.textContent = fill(words.paused, { done: size(sent), all: size(mine.file.size) });
      return;
    }
    if (mine.waiting) return;
    var now = Date.now();
    mine.seen.push([now, sent]);
    while (mine.seen.length > 2 && now - mine.seen[0][0] > WINDOW) mine.seen.shift();
    var rate = (sent - mine.seen[0][1]) / Math.max(0.2, (now - mine.seen[0][0]) / 1000);
    var left = rate > 0 ? span((mine.file.size - sent) / rate) : "–";
    said.textContent = fill(words.moving, { done: size(sent), all: size(mine.file.size), rate: size(Math.max(0, rate)), left: left });
  }

  // What has arrived of an upload begun before; refuses another file by the checksums of its first and last slice.
  async function known(mine) {
    said.textContent = words.checking;
    var there = await patiently(mine, function () { return ask("GET", mine.place); });
    mine.slice = there.part_bytes;
    var parts = there.parts.filter(function (part) { return part.part_number && part.bytes === slice(mine, part.part_number).size; });
    for (var at of parts.length ? [0, parts.length - 1] : []) {
      var part = parts[at];
      if (await digest(slice(mine, part.part_number)) !== part.sha256) throw new Refused(fill(words.otherContent, { name: mine.file.name }));
    }
    parts.forEach(function (one) { mine.done += one.bytes; });
    return new Set(parts.map(function (one) { return one.part_number; }));
  }

  async function send(mine, resumed) {
    var arrived = new Set();
    if (resumed) {
      mine.place = resumed.dataset.place;
      arrived = await known(mine);
    } else {
      var fields = { filename: mine.file.name.slice(-255), purpose: new FormData(form).get("purpose"), bytes: mine.file.size, part_bytes: mine.slice };
      var begun = await ask("POST", words.begin, fields); // not repeated by itself: it would count twice
      mine.place = words.begin + begun.id + "/";
      if (mine.over) return giveUp(mine); // cancelled meanwhile
    }
    var numbers = [], all = Math.ceil(mine.file.size / mine.slice);
    for (var number = 1; number <= all; number += 1) if (!arrived.has(number)) numbers.push(number);
    async function worker() {
      while (numbers.length && !mine.over) await deliver(mine, numbers.shift());
    }
    await Promise.all(Array.from({ length: IN_FLIGHT }, worker));
    hold.hidden = true;
    said.textContent = words.finishing;
    var reading = {};
    ["encoding", "delimiter", "quote", "format", "personal_data"].forEach(function (name) {
      if (form.elements[name]) reading[name] = form.elements[name].value;
    });
    var made = await patiently(mine, function () { return ask("POST", mine.place + "complete/", reading); });
    mine.over = true;
    location.assign(made.location);
  }

  function stop(mine) {
    mine.over = true;
    mine.requests.forEach(function (request) { request.abort(); });
    if (mine.release) mine.release();
  }

  // By a form, so that the page that answers says what became of it.
  function giveUp(mine) {
    var goodbye = document.createElement("form");
    goodbye.method = "post";
    goodbye.action = mine.place + "cancel/";
    goodbye.append(form.elements.csrfmiddlewaretoken.cloneNode());
    document.body.append(goodbye);
    goodbye.submit();
  }

  function hint(text) { error.textContent = text; error.hidden = !text; }

  function settle(text) {
    hint(text);
    box.hidden = true;
    hold.hidden = cancel.hidden = true;
    start.hidden = false;
    file.disabled = false;
    delete form.dataset.sent;
  }

  function begin(chosen, resumed) {
    var slices = Math.ceil(chosen.size / Number(words.slicesMost));
    var mine = run = {
      file: chosen, slice: Math.max(Number(words.sliceBytes), slices), done: 0, loaded: new Map(), requests: new Set(), seen: [],
      held: false, waiting: false, over: false, place: "", released: null, release: null,
    };
    hint("");
    box.hidden = false;
    start.hidden = true;
    hold.hidden = cancel.hidden = false;
    hold.textContent = words.pause;
    file.disabled = true;
    show(mine);
    send(mine, resumed).catch(function (problem) {
      if (run !== mine || mine.over) return;
      stop(mine);
      settle(problem instanceof Lost ? words.notBegun : problem.message || String(problem));
    });
  }

  function unfinished(chosen) {
    return Array.from(document.querySelectorAll("[data-upload-unfinished]")).find(function (row) {
      return row.dataset.name === chosen.name.slice(-255) && Number(row.dataset.bytes) === chosen.size;
    });
  }

  form.addEventListener("submit", function (event) {
    if (!file.files.length) return;
    event.preventDefault();
    if (file.files[0].size === 0) { delete form.dataset.sent; return hint(words.empty); }
    begin(file.files[0], unfinished(file.files[0]));
  });

  hold.addEventListener("click", function () {
    if (run.held) {
      run.held = false;
      run.seen = [];
      run.release();
    } else {
      run.held = true;
      run.released = new Promise(function (go) { run.release = go; });
      run.requests.forEach(function (request) { request.abort(); });
    }
    hold.textContent = run.held ? words.resume : words.pause;
    show(run);
  });

  cancel.addEventListener("click", function () {
    if (!window.confirm(words.confirm)) return;
    var mine = run;
    stop(mine);
    said.textContent = words.cancelling;
    if (mine.place) giveUp(mine);
  });

  file.addEventListener("change", function () {
    var row = wanted, chosen = file.files[0];
    wanted = null;
    hint("");
    if (!chosen) return;
    if (row && row !== unfinished(chosen)) {
      file.value = "";
      return hint(fill(words.otherFile, { name: row.dataset.name, bytes: Number(row.dataset.bytes).toLocaleString() }));
    }
    if (row) begin(chosen, row);
  });

  document.querySelectorAll("[data-upload-unfinished]").forEach(function (row) {
    var button = row.querySelector("[data-upload-continue]");
    if (!button) return;
    button.hidden = false;
    button.addEventListener("click", function () {
      if (run && !run.over) return;
      wanted = row;
      file.click();
    });
  });

  form.addEventListener("dragover", function (event) { event.preventDefault(); });
  form.addEventListener("drop", function (event) {
    event.preventDefault();
    if (event.dataTransfer.files.length && !file.disabled) file.files = event.dataTransfer.files;
  });
})();
