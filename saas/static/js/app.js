// What every page does with JavaScript: local times, copy buttons, dialogs from <details>, theme, toasts, drawer, filters.
(function () {
  "use strict";

  var UNITS = [["day", 86400], ["hour", 3600], ["minute", 60]];

  function ago(date) {
    var seconds = (date - Date.now()) / 1000;
    var words = new Intl.RelativeTimeFormat(document.documentElement.lang, { numeric: "auto" });
    for (var i = 0; i < UNITS.length; i++) {
      if (Math.abs(seconds) >= UNITS[i][1]) return words.format(Math.round(seconds / UNITS[i][1]), UNITS[i][0]);
    }
    return words.format(Math.round(seconds), "second");
  }

  function localise(root) {
    root.querySelectorAll("time[data-when]").forEach(function (element) {
      var date = new Date(element.dateTime);
      if (isNaN(date)) return;
      var style = element.dataset.when;
      var day = { year: "numeric", month: "short", day: "numeric" };
      var full = Object.assign({ hour: "2-digit", minute: "2-digit", second: "2-digit", timeZoneName: "short" }, day);
      if (style === "ago") element.textContent = ago(date);
      else if (style === "date") element.textContent = date.toLocaleDateString(undefined, day);
      else if (style === "clock") element.textContent = date.toLocaleTimeString();
      else element.textContent = date.toLocaleString(undefined, Object.assign({ hour: "2-digit", minute: "2-digit" }, day));
      element.title = date.toLocaleString(undefined, full);
    });
  }

  function toast(text) {
    var element = document.querySelector(".toast");
    if (!element) {
      element = document.createElement("div");
      element.className = "toast";
      element.setAttribute("role", "status");
      document.body.append(element);
    }
    element.textContent = text;
    clearTimeout(element.timer);
    element.timer = setTimeout(function () { element.textContent = ""; }, 2500);
  }

  function copy(button) {
    navigator.clipboard.writeText(button.dataset.copy).then(function () { toast("Copied"); }, function () { toast("Copying is not allowed here: select the text"); });
  }

  // <details data-dialog> works without a script as an unfolding panel; here its body moves into a modal dialog.
  function openDialog(details) {
    var body = details.querySelector(".confirm__body");
    var dialog = document.createElement("dialog");
    dialog.className = "dialog";
    body.before(document.createComment("dialog"));
    var mark = body.previousSibling;
    dialog.append(body);
    document.body.append(dialog);
    var title = body.querySelector("h2");
    if (title) dialog.setAttribute("aria-label", title.textContent);
    body.querySelectorAll("[data-close]").forEach(function (button) {
      button.hidden = false;
      button.onclick = function () { dialog.close(); };
    });
    dialog.addEventListener("click", function (event) { if (event.target === dialog) dialog.close(); });
    dialog.addEventListener("close", function () {
      mark.replaceWith(body);
      dialog.remove();
      details.querySelector("summary").focus();
    });
    dialog.showModal();
    var input = body.querySelector("input[name=confirmation]");
    if (input) input.focus();
  }

  function theme(button) {
    var order = ["", "light", "dark"];
    var words = { "": "Theme: system", light: "Theme: light", dark: "Theme: dark" };
    var root = document.documentElement;
    function show() { button.querySelector("span").textContent = words[root.dataset.theme || ""]; }
    button.hidden = false;
    show();
    button.addEventListener("click", function () {
      var next = order[(order.indexOf(root.dataset.theme || "") + 1) % order.length];
      if (next) root.dataset.theme = next; else delete root.dataset.theme;
      try { if (next) localStorage.setItem("theme", next); else localStorage.removeItem("theme"); } catch (error) { toast("The theme lasts for this page only"); }
      show();
      document.dispatchEvent(new CustomEvent("cloister:theme"));
    });
  }

  // <input data-filter="table-id"> shows the rows that contain what is typed.
  function filterRows(input) {
    var wanted = input.value.trim().toLowerCase();
    document.querySelectorAll("#" + input.dataset.filter + " tbody tr").forEach(function (row) {
      row.hidden = wanted !== "" && !row.textContent.toLowerCase().includes(wanted);
    });
  }

  document.addEventListener("click", function (event) {
    var button = event.target.closest("[data-copy]");
    if (button) return copy(button);
    var summary = event.target.closest("details[data-dialog] > summary");
    if (summary) { event.preventDefault(); openDialog(summary.parentElement); }
  });
  document.addEventListener("input", function (event) { if (event.target.matches("[data-filter]")) filterRows(event.target); });
  document.addEventListener("submit", function (event) {
    var form = event.target;
    if (form.dataset.sent) return event.preventDefault();
    if (form.method === "post" && !form.matches("[data-repeat]")) {
      form.dataset.sent = "1";
      setTimeout(function () { delete form.dataset.sent; }, 4000);
    }
  });
  document.addEventListener("keydown", function (event) {
    var drawer = document.getElementById("rail-toggle");
    if (event.key === "Escape" && drawer) drawer.checked = false;
  });
  document.addEventListener("change", function (event) { if (event.target.matches("[data-submits]")) event.target.form.requestSubmit(); });

  localise(document);
  document.querySelectorAll("[data-theme-button]").forEach(theme);
  document.addEventListener("htmx:load", function (event) { localise(event.target); });
  window.cloister = { localise: localise, toast: toast };
})();
