// Writes amounts, counts and times for people, as `core/formatting.py` does. Unknown is never 0.

/** Return an amount of US dollars as in "$1,234.56", "$0.0234", "less than $0.0001" or "unknown". */
export function usd(amount) {
  const value = number(amount);
  if (value === null) return "unknown";
  if (value < 0) return `-${usd(-value)}`;
  if (value >= 1 || value === 0) return `$${grouped(value, 2)}`;
  if (value < 0.0001) return "less than $0.0001";
  return `$${value.toFixed(4).replace(/0{1,2}$/, "")}`;
}

/** Return a range of US dollars as in "$0.21 to $0.43", or a single amount if both ends look the same. */
export function usdRange(low, high) {
  if (number(low) === null || number(high) === null) return "unknown";
  const ends = [low, high].map(Number).map((end) => usd(Number(low) >= 0.1 ? Math.round(end * 100) / 100 : end));
  return ends[0] === ends[1] ? ends[0] : `${ends[0]} to ${ends[1]}`;
}

/** Return a count as in "1,200", or "unknown". */
export function count(value) {
  return number(value) === null ? "unknown" : Number(value).toLocaleString("en-US");
}

/** Return a count with its noun, as in "1 row" or "1,200 rows". */
export function counted(value, noun, plural = `${noun}s`) {
  return `${count(value)} ${value === 1 ? noun : plural}`;
}

/** Return how long ago a time was, as in "3 h ago", or how far ahead it is, as in "in 3 h". */
export function age(time, now = Date.now()) {
  const seconds = (now - new Date(time).getTime()) / 1000;
  const distance = duration(Math.abs(seconds));
  return seconds >= 0 ? `${distance} ago` : `in ${distance}`;
}

/** Return a length of time as in "42 s", "7 min", "3 h" or "5 days". */
export function duration(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} days`;
}

/** Return a time as in "2026-11-21 15:42:17 UTC". */
export function utc(time) {
  return `${new Date(time).toISOString().slice(0, 19).replace("T", " ")} UTC`;
}

/** Return a share of a total in percent: 100 only if all of it is there, and 0 only if none of it is. */
export function percent(part, total) {
  if (!total || !part) return 0;
  return part >= total ? 100 : Math.min(99, Math.max(1, Math.round((100 * part) / total)));
}

/**
 * Return a text of a person, a model or a provider with the characters that reverse the direction of other text written
 * as "⟨U+202E⟩". They would make a text read otherwise than it is.
 */
export function plain(text) {
  return String(text ?? "").replace(
    /[\u202A-\u202E\u2066-\u2069]/g,
    (control) => `⟨U+${control.codePointAt(0).toString(16).toUpperCase()}⟩`,
  );
}

function number(value) {
  if (value === null || value === undefined || value === "") return null;
  return Number.isFinite(Number(value)) ? Number(value) : null;
}

function grouped(value, digits) {
  return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}
