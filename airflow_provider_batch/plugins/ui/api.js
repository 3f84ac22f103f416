// Reads from the routes of the plugin. Their address is that of this module, so a prefix of `[api] base_url` is kept.

const { useCallback, useEffect, useRef, useState } = React;

const API = new URL("../api/", import.meta.url);
/** How often a page with something that runs is read again, in milliseconds. */
export const INTERVAL_MS = 10_000;

/** An answer other than 2xx, or none: `status` is 0 if the server cannot be reached. */
export class RequestError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Return the address of a route of the plugin. Parameters that are null or empty are left out. */
export function address(path, parameters = {}) {
  const url = new URL(path, API);
  for (const [name, value] of Object.entries(parameters)) {
    for (const item of Array.isArray(value) ? value : [value]) {
      if (item !== null && item !== undefined && item !== "") url.searchParams.append(name, item);
    }
  }
  return url.href;
}

/** Read a route and return its JSON. */
export async function get(url, signal) {
  return send(url, { signal });
}

/** Call a route that changes something and return its JSON. The header keeps other sites from calling it. */
export async function post(url) {
  return send(url, { method: "POST", headers: { "X-Requested-With": "llm-batch" } });
}

async function send(url, options) {
  let response;
  try {
    response = await fetch(url, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new RequestError(0, "The API server could not be reached.");
  }
  const body = await response.json().catch(() => null);
  if (response.ok && body !== null) return body;
  const detail = typeof body?.detail === "string" ? body.detail : "";
  throw new RequestError(response.status, detail || `The API server answered with status ${response.status}.`);
}

/**
 * Read a route, and read it again while the page is visible.
 *
 * The last answer stays until the next one is here, so nothing flickers. After an error that may pass (no connection,
 * 5xx), the route is read again, too.
 *
 * @param url null to read nothing.
 * @param pace returns after how many milliseconds to read again, or 0 not to.
 * @param keep whether the last answer also stays while another address is read.
 */
export function useRead(url, { pace = () => 0, keep = false } = {}) {
  const [read, setRead] = useState({ url: null, data: null, error: null, time: null });
  const [round, setRound] = useState(0);
  const newestPace = useRef(pace);
  newestPace.current = pace;

  useEffect(() => {
    if (!url) return undefined;
    const abort = new AbortController();
    let timer = null;
    const loadWhenVisible = () => {
      if (document.visibilityState === "visible") load();
      else document.addEventListener("visibilitychange", load, { once: true, signal: abort.signal });
    };
    const loadAfter = (delay) => {
      if (delay && !abort.signal.aborted) timer = setTimeout(loadWhenVisible, delay);
    };
    const load = async () => {
      try {
        const data = await get(url, abort.signal);
        setRead({ url, data, error: null, time: Date.now() });
        loadAfter(newestPace.current(data));
      } catch (error) {
        if (error.name === "AbortError") return;
        setRead((last) => ({ ...last, url, data: last.url === url || keep ? last.data : null, error }));
        loadAfter(!error.status || error.status >= 500 ? INTERVAL_MS : 0);
      }
    };
    load();
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, [url, round]);

  const isCurrent = read.url === url;
  return {
    data: url && (isCurrent || keep) ? read.data : null,
    error: isCurrent ? read.error : null,
    time: read.time,
    isLoading: Boolean(url) && !isCurrent,
    reload: useCallback(() => setRound((last) => last + 1), []),
  };
}

/** Return the parameters that identify a job in a route. */
export function identity(job) {
  return { dag_id: job.dag_id, run_id: job.run_id, task_id: job.task_id, map_index: job.map_index };
}

/** Return the same as one text, for routes that take several jobs. */
export function identityText(job) {
  return [job.dag_id, job.run_id, job.task_id, job.map_index].map(encodeURIComponent).join("|");
}
