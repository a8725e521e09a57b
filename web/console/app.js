// The console: which page is shown, the bar above it, and the keys that work everywhere.

import { Dialog } from "./actions.js";
import { begin, mesh } from "./cluster.js";
import { shorten } from "./format.js";
import { Overview, state } from "./overview.js";
import { StreamPage } from "./stream.js";
import { html, render, useCell, useEffect, useState } from "./view.js";

function App() {
  const route = useRoute();
  const [, kind, name] = /^#\/(streams)\/([^/]+)$/.exec(route) ?? [];
  useEffect(() => {
    document.title = name ? `${decode(name)} · Evermesh` : "Evermesh";
  }, [name]);
  return html`<${Bar} />${kind ? html`<${StreamPage} key=${name} name=${decode(name)} />` : html`<${Overview} />`}<${Dialog} />`;
}

function decode(name) {
  try {
    return decodeURIComponent(name);
  } catch {
    return name;
  }
}

function useRoute() {
  const [route, setRoute] = useState(location.hash);
  useEffect(() => {
    const changed = () => {
      setRoute(location.hash);
      scrollTo(0, 0);
    };
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return route;
}

function Bar() {
  const now = useCell(mesh);
  const [tone, title] = state(now);
  return html`<header class="bar">
    <a class="brand" href="#/"><svg viewBox="0 0 16 16" aria-hidden="true"><path d="M8 3 3 12h10z" /><circle cx="8" cy="3" r="2.2" /><circle cx="3" cy="12" r="2.2" /><circle cx="13" cy="12" r="2.2" /></svg>Evermesh</a>
    ${now?.known && html`<span class="cluster" title=${now.id}>cluster ${now.id.slice(0, 8)}<span class="wide-only"> · as ${shorten(now.asked, 20)} sees it</span></span>`}
    <span class=${`pill ${tone}`} role="status"><i class=${`dot ${tone}`}></i>${title}</span>
    <nav aria-label="Elsewhere"><a href="/docs">API</a><a href="/metrics">Metrics</a></nav>
    <${Theme} />
  </header>`;
}

const THEMES = { system: ["◐", "light"], light: ["☀", "dark"], dark: ["☾", "system"] };

function Theme() {
  const [theme, setTheme] = useState(window.theme.get());
  const [sign, next] = THEMES[theme];
  const turn = () => {
    window.theme.set(next);
    setTheme(next);
  };
  return html`<button type="button" class="quiet-button theme" onClick=${turn} aria-label=${`Colours: ${theme}. Change to ${next}`} title=${`Colours: ${theme}`}>${sign}</button>`;
}

/** `/` goes to the search field, Escape back to the mesh. */
addEventListener("keydown", (key) => {
  if (key.ctrlKey || key.metaKey || key.altKey) return;
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.tagName ?? "");
  if (key.key === "/" && !typing) {
    const field = document.getElementById("find");
    if (!field) return;
    key.preventDefault();
    field.focus();
  } else if (key.key === "Escape" && !document.querySelector("dialog[open]")) {
    if (typing) document.activeElement.blur();
    else if (location.hash.startsWith("#/streams/")) location.hash = "#/";
  }
});

begin();
const root = document.getElementById("console");
root.replaceChildren();
render(html`<${App} />`, root);
