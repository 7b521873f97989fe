// Fields made from a JSON Schema. Each has `node`, `read()` (undefined: left out), `write(value)` and `fault(path, message)`.
// What has no field of its own is written as JSON.

import { h } from "./dom.js";
import { parse, upload } from "./service.js";
import { toast } from "./view.js";

const DEEPEST = 6;
let made = 0;

/** Something in a field is not what it should be; `field` is where. */
export class Misfit extends Error {
  constructor(message, field) {
    super(message);
    this.field = field;
  }
}

/** The field for `schema`; `root` has the `$defs`. */
export function fieldFor(schema, name, { root = schema, required = false, depth = 0, item = false } = {}) {
  const plain = resolved(schema, root);
  const context = { name, required, root, depth, title: name, item, about: about(plain) };
  if (depth > DEEPEST) return jsonField(plain, context);
  if ("const" in plain) return constant(plain.const);
  if (plain.enum) return choice(plain, context);
  const variants = variantsOf(plain, root);
  if (variants) return variantField(variants, context);
  if (plain.type === "object" && plain.properties) return objectField(plain, context);
  if (plain.type === "array" && plain.items) return arrayField(plain, context);
  if (plain.type === "boolean") return booleanField(plain, context);
  if (plain.type === "integer" || plain.type === "number") return numberField(plain, context);
  if (plain.type === "string") return plain.format === "file-id" ? fileField(plain, context) : textField(plain, context);
  return jsonField(plain, context);
}

/** Without references, and without null as an alternative: a field that is left empty is left out. */
function resolved(schema, root) {
  let plain = schema;
  for (let step = 0; step < 20; step++) {
    if (typeof plain?.$ref === "string") {
      const { $ref: reference, ...rest } = plain;
      plain = { ...reference.split("/").slice(1).reduce((node, part) => node?.[part], root), ...rest };
      continue;
    }
    const single = alternatives(plain).length === 1 ? alternatives(plain)[0] : null;
    if (!single || plain.properties) return plain ?? {};
    const { anyOf, oneOf, allOf, ...rest } = plain;
    plain = { ...single, ...rest };
  }
  return {};
}

function alternatives(schema) {
  return (schema?.anyOf ?? schema?.oneOf ?? schema?.allOf ?? []).filter((one) => one.type !== "null");
}

/** Alternatives that are objects told apart by one constant property, as `[word, schema]`; null where they are not. */
function variantsOf(schema, root) {
  if (schema.properties || schema.allOf) return null;
  const found = alternatives(schema).map((one) => resolved(one, root));
  if (found.length < 2 || !found.every((one) => one.properties)) return null;
  for (const name of Object.keys(found[0].properties)) {
    const words = found.map((one) => one.properties[name]?.const);
    if (words.every((word) => typeof word === "string")) return { name, byWord: new Map(words.map((word, place) => [word, found[place]])) };
  }
  return null;
}

function about(schema) {
  const bounds = [
    schema.minimum !== undefined && `at least ${schema.minimum}`, schema.exclusiveMinimum !== undefined && `above ${schema.exclusiveMinimum}`,
    schema.maximum !== undefined && `at most ${schema.maximum}`, schema.exclusiveMaximum !== undefined && `below ${schema.exclusiveMaximum}`,
    schema.maxLength !== undefined && `at most ${schema.maxLength} characters`,
  ].filter(Boolean).join(", ");
  const preset = schema.default;
  const usual = preset === null || preset === undefined || preset === "" ? "" : `Default: ${JSON.stringify(preset)}`;
  return [schema.description ?? "", bounds ? `${bounds[0].toUpperCase()}${bounds.slice(1)}.` : "", usual.length < 100 ? usual : ""].filter(Boolean).join(" ");
}

/** A label, a control, a hint and a place for a fault, tied together for screen readers. */
function framed({ title, required, item, about: hint }, control, extra = null) {
  const id = `f${++made}`;
  const target = control.matches("input, select, textarea") ? control : null;
  const fault = h("p", { class: "fault", id: `${id}-fault` });
  const hints = h("p", { class: "hint free", id: `${id}-hint` }, hint);
  const name = [title, required && !item ? h("span", { class: "required" }, " required") : null];
  if (target) {
    target.id = id;
    target.setAttribute("aria-describedby", `${id}-hint ${id}-fault`);
  }
  const node = target
    ? h("div", { class: "field" }, h("label", { for: id }, name), control, extra, hint ? hints : null, fault)
    : h("fieldset", { class: "field" }, h("legend", {}, name), hint ? hints : null, control, extra, fault);
  const show = (message) => {
    fault.textContent = message;
    target?.setAttribute("aria-invalid", String(Boolean(message)));
  };
  return { node, show, focus: () => (target ?? control.querySelector("input, select, textarea, button"))?.focus() };
}

function simple(context, control, read, write, extra = null) {
  const frame = framed(context, control, extra);
  const field = {
    node: frame.node,
    read: () => {
      frame.show("");
      return read(field);
    },
    write,
    fault: (_, message) => frame.show(message),
    focus: frame.focus,
  };
  return field;
}

function constant(value) {
  return { node: h("span"), read: () => value, write() {}, fault() {}, focus() {} };
}

function textField(schema, context) {
  const long = !schema.pattern && !schema.format && (schema.maxLength === undefined || schema.maxLength > 200) && !/(^|_)(model|name|key|url)$/.test(context.name);
  const control = long ? h("textarea", { rows: 3, spellcheck: "false" }) : h("input", { type: "text", autocomplete: "off", spellcheck: "false" });
  return simple(context, control, () => (control.value === "" && !context.keepEmpty ? undefined : control.value), (value) => {
    control.value = value ?? "";
  });
}

function fileField(schema, context) {
  const control = h("input", { type: "text", autocomplete: "off", spellcheck: "false", class: "mono" });
  const chooser = h("input", { type: "file", "aria-label": `Upload a file for ${context.title}` });
  chooser.onchange = async () => {
    if (!chooser.files.length) return;
    try {
      const stored = await upload(chooser.files[0]);
      control.value = stored.id;
      toast(`${stored.name} is uploaded.`);
    } catch (error) {
      toast(error.message, true);
    }
  };
  return simple(context, control, () => control.value.trim() || undefined, (value) => {
    control.value = value ?? "";
  }, chooser);
}

function numberField(schema, context) {
  const whole = schema.type === "integer";
  const control = h("input", { type: "text", inputmode: whole ? "numeric" : "decimal", autocomplete: "off" });
  const pattern = whole ? /^-?\d+$/ : /^-?\d+(\.\d+)?([eE][+-]?\d+)?$/;
  return simple(context, control, (field) => {
    const text = control.value.trim();
    if (text === "") return undefined;
    if (!pattern.test(text)) throw new Misfit(whole ? "A whole number, please." : "A number, please.", field);
    return parse(text.replace(/^(-?)0+(?=\d)/, "$1"));
  }, (value) => {
    control.value = value === null || value === undefined ? "" : JSON.stringify(value);
  });
}

function booleanField(schema, context) {
  const control = h("select", {}, h("option", { value: "" }, context.required ? "choose" : "default"), h("option", { value: "true" }, "yes"), h("option", { value: "false" }, "no"));
  return simple(context, control, () => (control.value === "" ? undefined : control.value === "true"), (value) => {
    control.value = typeof value === "boolean" ? String(value) : "";
  });
}

function choice(schema, context) {
  const options = schema.enum.filter((one) => one !== null);
  const control = h("select", {}, h("option", { value: "" }, context.required ? "choose" : "default"), options.map((one, place) => h("option", { value: String(place) }, String(one))));
  return simple(context, control, () => (control.value === "" ? undefined : options[Number(control.value)]), (value) => {
    control.value = options.includes(value) ? String(options.indexOf(value)) : "";
  });
}

function jsonField(schema, context) {
  const control = h("textarea", { rows: 4, spellcheck: "false", class: "mono" });
  const shown = { ...context, about: [context.about, "As JSON."].filter(Boolean).join(" ") };
  return simple(shown, control, (field) => {
    if (control.value.trim() === "") return undefined;
    try {
      return parse(control.value);
    } catch (error) {
      throw new Misfit(`This is not JSON: ${error.message}`, field);
    }
  }, (value) => {
    control.value = value === null || value === undefined ? "" : JSON.stringify(value, null, 2);
  });
}

function objectField(schema, context) {
  const needed = new Set(schema.required ?? []);
  const fields = Object.entries(schema.properties).map(([name, property]) =>
    [name, fieldFor(property, name, { root: context.root, required: needed.has(name), depth: context.depth + 1 })]);
  const inside = h("div", { class: "fields" }, fields.map(([, field]) => field.node));
  const frame = context.depth === 0 ? { node: inside, show() {}, focus() {} } : framed(context, inside);
  return {
    node: frame.node,
    read: () => {
      const found = fields.map(([name, field]) => [name, field.read()]).filter(([, value]) => value !== undefined);
      return found.length || context.required || context.depth === 0 ? Object.fromEntries(found) : undefined;
    },
    write: (value) => fields.forEach(([name, field]) => field.write(value?.[name])),
    fault: ([first, ...rest], message) => {
      const named = fields.find(([name]) => name === first);
      if (named) named[1].fault(rest, message);
      else frame.show(message);
      return Boolean(named);
    },
    focus: () => fields[0]?.[1].focus(),
  };
}

function arrayField(schema, context) {
  const items = resolved(schema.items, context.root);
  if (items.enum) return severalField(items.enum, context);
  const list = h("ol", { class: "items" });
  let fields = [];
  const add = (value) => {
    const field = fieldFor(schema.items, "item", { root: context.root, required: true, depth: context.depth + 1, item: true });
    if (value !== undefined) field.write(value);
    const node = h("li", {}, field.node, h("button", { type: "button", class: "small quiet", "aria-label": `Remove this item of ${context.title}`, onclick: () => {
      fields = fields.filter((one) => one !== field);
      node.remove();
      more.focus();
    } }, "Remove"));
    fields.push(field);
    list.append(node);
    return field;
  };
  const more = h("button", { type: "button", class: "small", onclick: () => add().focus() }, `Add to ${context.title}`);
  const frame = framed(context, list, more);
  return {
    node: frame.node,
    read: () => {
      frame.show("");
      const values = fields.map((field) => field.read()).filter((value) => value !== undefined);
      return values.length || context.required ? values : undefined;
    },
    write: (values) => {
      fields = [];
      list.replaceChildren();
      if (Array.isArray(values)) values.forEach(add);
    },
    fault: ([first, ...rest], message) => (fields[first] ? fields[first].fault(rest, message) : frame.show(message)),
    focus: () => (fields[0] ? fields[0].focus() : more.focus()),
  };
}

/** Several of a few words, as boxes to tick. */
function severalField(words, context) {
  const boxes = words.map((word) => [word, h("input", { type: "checkbox" })]);
  const inside = h("div", { class: "boxes" }, boxes.map(([word, box]) => h("label", {}, box, String(word))));
  return simple(context, inside, () => {
    const ticked = boxes.filter(([, box]) => box.checked).map(([word]) => word);
    return ticked.length || context.required ? ticked : undefined;
  }, (values) => boxes.forEach(([word, box]) => {
    box.checked = Array.isArray(values) && values.includes(word);
  }));
}

/** One of several kinds of objects: the word that tells them apart is chosen, then its fields are there. */
function variantField({ name, byWord }, context) {
  const words = [...byWord.keys()];
  const place = h("div", { class: "variant" });
  const control = h("select", { "aria-label": name }, words.map((word) => h("option", { value: word }, word)));
  let inner = null;
  const choose = (word, value) => {
    control.value = word;
    const { [name]: _, ...properties } = byWord.get(word).properties;
    inner = fieldFor({ ...byWord.get(word), properties }, "options", { root: context.root, required: true, depth: context.depth + 1 });
    if (value) inner.write(value);
    place.replaceChildren(...(Object.keys(properties).length ? [inner.node] : []));
  };
  control.onchange = () => choose(control.value);
  choose(words[0]);
  const frame = framed(context, h("div", {}, control, place));
  return {
    node: frame.node,
    read: () => ({ [name]: control.value, ...inner.read() }),
    write: (value) => choose(byWord.has(value?.[name]) ? value[name] : words[0], value),
    fault: (path, message) => {
      // The service names the alternative it tried in front of the property.
      const rest = words.includes(path[0]) ? path.slice(1) : path;
      if (!rest.length || inner.fault(rest, message) === false) frame.show(message);
    },
    focus: () => control.focus(),
  };
}
