// Sends a small <form data-upload> whole, by XMLHttpRequest so that the progress bar moves; without a script it posts as it is.
(function () {
  "use strict";

  var form = document.querySelector("form[data-upload]");
  if (!form) return;
  var box = form.querySelector("[data-upload-progress]");
  var bar = box.querySelector("progress");
  var words = box.querySelector("[data-upload-words]");
  var error = form.querySelector("[data-upload-error]");
  var button = form.querySelector("button[type=submit]");
  var file = form.querySelector("input[type=file]");
  var started = 0;

  function megabytes(bytes) { return (bytes / 1e6).toFixed(1); }

  function fail(text) {
    error.textContent = text;
    error.hidden = false;
    box.hidden = true;
    button.disabled = false;
    delete form.dataset.sent;
  }

  function moved(event) {
    bar.max = event.total;
    bar.value = event.loaded;
    var rate = event.loaded / Math.max(0.2, (Date.now() - started) / 1000);
    words.textContent = megabytes(event.loaded) + " / " + megabytes(event.total) + " MB, " + megabytes(rate) + " MB/s";
  }

  form.addEventListener("submit", function (event) {
    if (!window.FormData || !file.files.length) return;
    event.preventDefault();
    error.hidden = true;
    box.hidden = false;
    button.disabled = true;
    started = Date.now();
    var request = new XMLHttpRequest();
    request.open("POST", form.action);
    request.setRequestHeader("Accept", "application/json");
    request.upload.onprogress = moved;
    request.onerror = function () { fail(form.dataset.lost); };
    request.onload = function () {
      var answer = {};
      try { answer = JSON.parse(request.responseText); } catch (broken) { return fail(form.dataset.lost); }
      if (request.status < 300 && answer.location) location.assign(answer.location);
      else fail(answer.error ? answer.error.message : form.dataset.lost);
    };
    request.send(new FormData(form));
  });

  form.addEventListener("dragover", function (event) { event.preventDefault(); });
  form.addEventListener("drop", function (event) {
    event.preventDefault();
    if (event.dataTransfer.files.length) file.files = event.dataTransfer.files;
  });
})();
