// Questions before something is done: a native dialog keeps the focus, and Escape means no.

import { h } from "./dom.js";

let fields = 0;

/** Ask; resolves to null for no, and to an object of the fields' values for yes.
 *  A field is `{name, label, kind?: text|textarea|number|password, hint?, required?, value?, longest?}`. */
export function ask({ title, body = [], confirm, danger = false, inputs = [] }) {
  return new Promise((resolve) => {
    const controls = inputs.map(control);
    const no = h("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, "Keep as it is");
    const yes = h("button", { type: "submit", class: danger ? "danger" : "primary" }, confirm);
    const id = `dialog-${++fields}`;
    let answer = null;
    const form = h("form", {
      onsubmit: (event) => {
        event.preventDefault();
        answer = Object.fromEntries(controls.map(({ name, input }) => [name, input.value]));
        dialog.close();
      },
    }, h("h2", { id }, title), body, controls.map(({ node }) => node), h("div", { class: "buttons" }, no, yes));
    const dialog = h("dialog", { "aria-labelledby": id }, form);
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(answer);
    });
    document.body.append(dialog);
    dialog.showModal();
    (controls[0]?.input ?? (danger ? no : yes)).focus();
  });
}

function control({ name, label, kind = "text", hint, required = false, value = "", longest }) {
  const id = `field-${++fields}`;
  const shared = { id, required, maxlength: longest, "aria-describedby": hint ? `${id}-hint` : null };
  const input = kind === "textarea"
    ? h("textarea", { ...shared, rows: 3 })
    : h("input", { ...shared, type: kind, autocomplete: "off", step: kind === "number" ? "any" : null, min: kind === "number" ? 0 : null });
  input.value = value;
  const node = h("div", { class: "field" }, h("label", { for: id }, label), input,
    hint ? h("p", { class: "hint", id: `${id}-hint` }, hint) : null);
  return { name, input, node };
}
