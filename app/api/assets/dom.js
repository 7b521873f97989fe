// Building and updating the page. Every value becomes a text node or an attribute: nothing here parses markup.

const SVG = "http://www.w3.org/2000/svg";
const ADDRESSES = ["href", "src"];
const REFUSED = ["style", "srcdoc", "formaction", "action"];

/** An element. Attributes that are null, undefined or false are left out; `on…` are listeners; children may be nested. */
export function h(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** An SVG element. */
export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) {
      if (typeof value !== "function") throw new TypeError(`${name} is no function`);
      node[name] = value;
      continue;
    }
    if (REFUSED.includes(name)) throw new TypeError(`${name} is not set here`);
    if (ADDRESSES.includes(name) && !/^(#|\/(?!\/)|blob:)/.test(value)) throw new TypeError("only addresses of our own");
    node.setAttribute(name, value === true ? "" : value);
  }
  append(node, children);
  return node;
}

function append(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : String(child));
  }
}

/** Make `old` look like `fresh`, keeping the nodes that are alike: focus, selection, scrolling and open details stay.
 *  Children with `data-key` are found again by it; what is marked `data-own` looks after itself. */
export function morph(old, fresh) {
  if (old.nodeName !== fresh.nodeName || keyOf(old) !== keyOf(fresh)) {
    old.replaceWith(fresh);
    return;
  }
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  if (old.dataset.own !== undefined && old.dataset.own === fresh.dataset.own) return;
  morphAttributes(old, fresh);
  morphChildren(old, [...fresh.childNodes]);
}

const LISTENERS = ["onclick", "onchange", "oninput", "onsubmit", "onkeydown", "onpointermove", "onpointerleave"];

function morphAttributes(old, fresh) {
  const kept = ({ name }) => name === "open" && old.nodeName === "DETAILS";
  for (const attribute of [...old.attributes]) {
    if (!fresh.hasAttribute(attribute.name) && !kept(attribute)) old.removeAttribute(attribute.name);
  }
  for (const attribute of fresh.attributes) {
    const { name, value } = attribute;
    if (old.getAttribute(name) !== value && !kept(attribute)) old.setAttribute(name, value);
  }
  for (const name of LISTENERS) {
    if (old[name] !== fresh[name]) old[name] = fresh[name];
  }
}

/** Make the children of `parent` look like `fresh` nodes. */
export function morphChildren(parent, fresh) {
  const keyed = new Map();
  for (const child of parent.childNodes) if (keyOf(child) !== undefined) keyed.set(keyOf(child), child);
  let place = parent.firstChild;
  for (const child of fresh) {
    const key = keyOf(child);
    const twin = key === undefined ? unkeyed(place, child) : keyed.get(key);
    if (!twin) {
      parent.insertBefore(child, place);
      continue;
    }
    if (twin === place) place = place.nextSibling;
    else parent.insertBefore(twin, place);
    morph(twin, child);
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

function unkeyed(place, child) {
  return place && keyOf(place) === undefined && place.nodeName === child.nodeName ? place : null;
}

function keyOf(node) {
  return node.dataset?.key;
}
