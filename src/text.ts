/*
 * Texts that are made of data: amounts, requirements out of what was typed. Knows no page.
 */

const UNITS = ['bytes', 'kB', 'MB'];

/** A number of bytes as people read it; as the command line shows it. */
export function amount(bytes: number): string {
  let value = bytes;
  for (const unit of UNITS) {
    if (value < 1000) {
      return `${value.toFixed(0)} ${unit}`;
    }
    value /= 1000;
  }
  return `${value.toFixed(1)} GB`;
}

const COMMAND = /^[%!]?\s*(?:(?:python3?|uv)\s+(?:-m\s+)?)?pip3?\s+install\s+/;
const NAMES = /^[A-Za-z0-9][\w.-]*(?:[\s,]+[A-Za-z0-9][\w.-]*)+$/;

/**
 * The requirements in what somebody typed or pasted.
 *
 * One a line, as in requirements.txt, with its comments; a line of nothing but names holds several; a command
 * copied out of a manual is taken for what it installs. Whether it is right is the server's to say.
 */
export function requirements(text: string): string[] {
  const found: string[] = [];
  for (const line of text.split(/\r?\n/)) {
    const bare = line
      .replace(/(^|\s)#.*$/, '')
      .trim()
      .replace(COMMAND, '');
    if (NAMES.test(bare)) {
      found.push(...bare.split(/[\s,]+/));
    } else if (bare) {
      found.push(bare);
    }
  }
  return [...new Set(found)];
}

/**
 * What to search for while somebody types; `''` for what is no search: lists, URLs, files, commands.
 */
export function query(text: string): string {
  const bare = text.trim();
  if (/[\r\n,@/\\]/.test(bare) || COMMAND.test(bare) || bare.length > 100) {
    return '';
  }
  return bare.replace(/\s*[[<>=!~;].*$/, '');
}

/** A link that a page may offer: packages name what they like as their home page. */
export function link(url: string | null): string | null {
  return url && /^https?:\/\/[^\s]+$/i.test(url) ? url : null;
}

/** Whether a package is meant by what stands in the filter box: every word is in its name or summary. */
export function matches(item: { name: string; summary: string }, filter: string): boolean {
  const text = `${item.name} ${item.summary}`.toLowerCase();
  return filter
    .toLowerCase()
    .split(/\s+/)
    .every(word => text.includes(word));
}
